"""Paths as users write them."""

import os
from pathlib import Path


def user_path(given: str | os.PathLike[str]) -> Path:
    """The path that somebody wrote, in a config, on the command line or in Python: `~` is the home folder.

    What begins with `~name` is below the home of that user. A folder called `~` itself is `./~`. Where there is no
    such home, the path is what was written.

    >>> user_path("runs/a"), user_path("./~")
    (PosixPath('runs/a'), PosixPath('~'))
    >>> user_path("~/a") == Path.home() / "a"
    True
    """
    return Path(os.path.expanduser(given))  # noqa: PTH111 - expanduser() of a Path makes `./~` the home folder, too

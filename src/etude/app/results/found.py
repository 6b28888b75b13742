"""Which runs lie in a folder: those in it, and those in folders of runs inside, as sweeps and pipelines leave them."""

import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import filterfalse
from pathlib import Path

from etude.app.results.summary import CONFIG
from etude.app.runs.pipelines import stages_in
from etude.base.files import storage
from etude.train.lock import OF_LOGGERS, OWN

DEEPEST = 4
"""Levels of folders that are looked into."""
DOOMED = ".removed-"
"""How the name of a run folder begins whose removal has begun."""
_NO_RUNS = frozenset((*OWN, *OF_LOGGERS, "averages", "alignments"))
"""What a run folder holds beside runs of its own."""


def runs_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """The runs that lie in `folder`, or the one that it is, each with its name: the way to it from there.

    The stages of a pipeline are parts of it, and no runs of their own.

    A link to a run counts where it lies in `folder` itself, unless it is but another name of what lies there too, as a
    sweep's `best`; below that no link is followed.
    """
    with storage("list", folder):
        inside = sorted(folder.iterdir())
    if _is_run(folder):
        yield folder.resolve().name, folder
    for path in () if stages_in(folder) else filterfalse(is_another_name, inside):
        yield from _found(path, path.name, DEEPEST)


def is_another_name(path: Path) -> bool:
    """Whether a path is a link to what lies beside it, as a sweep's `best`."""
    return path.is_symlink() and path.resolve().parent == path.parent.resolve()


def _found(path: Path, name: str, levels: int) -> Iterator[tuple[str, Path]]:
    """A run, and those inside; of what is no folder none."""
    if _is_run(path) and not name.startswith(DOOMED):
        yield name, path
    if levels and _may_hold_runs(path) and not stages_in(path):
        for inside in filterfalse(is_another_name, _listed(path)):
            yield from _found(inside, f"{name}/{inside.name}", levels - 1)


def half_removed(folder: Path) -> list[Path]:
    """The folders of runs in `folder` whose removal has begun and not ended."""
    return [path for path in _listed(folder) if path.name.startswith(DOOMED) and _is_plain_folder(path)]


def _may_hold_runs(path: Path) -> bool:
    return not path.name.startswith(".") and path.name not in _NO_RUNS and _is_plain_folder(path)


def _is_plain_folder(path: Path) -> bool:
    """Whether something is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder; nothing of one that cannot be looked into."""
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's; one that cannot be looked into is told of as well."""
    try:
        return stat.S_ISDIR(folder.stat().st_mode) and _holds_config(folder)
    except OSError:
        return False


def _holds_config(folder: Path) -> bool:
    try:
        (folder / CONFIG).lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True

"""How commands and paths are written so that they can be pasted."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command() -> str:
    """The word that starts this Etude from the current folder: `etude` where the shell finds it, else its path."""
    beside = Path(sys.executable).with_name("etude")
    found = shutil.which("etude")
    if found is not None and Path(found).resolve() == beside.resolve():
        return "etude"
    return shell_word(beside) if beside.exists() else f"{shell_word(Path(sys.executable))} -m etude"


def shell_word(path: Path | str) -> str:
    """A path or text as one word of a command, relative to the current folder where it lies inside."""
    text = str(path)
    if os.path.isabs(text):  # noqa: PTH117 - text as well as paths
        try:
            text = str(Path(text).relative_to(Path.cwd()))
        except (ValueError, OSError):
            text = str(path)
    return shlex.quote(text)

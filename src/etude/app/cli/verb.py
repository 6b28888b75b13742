"""A verb of the shell and its arguments as values, and the arguments that several verbs have."""

import gc
import importlib
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Argument:
    """One argument of a verb, as argparse takes it."""

    names: tuple[str, ...]
    options: dict[str, Any]

    def add_to(self, parser: ArgumentParser) -> None:
        """Declare it."""
        parser.add_argument(*self.names, **self.options)


@dataclass(frozen=True)
class Verb:
    """A word of the shell: what it does, an example, its arguments, and the function that does it."""

    name: str
    summary: str
    example: str
    target: str
    """`module:function`; the function takes the parsed arguments and the overrides, and returns the exit code."""
    about: str = ""
    """More than the summary, for its own help."""
    arguments: Sequence[Argument] = field(default_factory=tuple)
    overrides: bool = True
    """Whether `--section.key VALUE` is taken."""

    def run(self, arguments: Namespace, overrides: list[str]) -> int:
        """Import what the verb needs, and do it."""
        module, _, name = self.target.partition(":")
        with lasting():
            function: Callable[[Namespace, list[str]], int] = getattr(importlib.import_module(module), name)
        return function(arguments, overrides)


@contextmanager
def lasting() -> Iterator[None]:
    """Let Python's search for garbage pass by what the block imports, which stays until the process ends.

    It would go through torch's million objects again and again while they come, and once more in every later search.
    In a process that had torch before, there may be garbage already, and nothing is changed.
    """
    if "torch" in sys.modules:
        yield
        return
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def argument(*names: str, **options: Any) -> Argument:
    """Declare an argument as `add_argument` would."""
    return Argument(names, options)


def path(*names: str, **options: Any) -> Argument:
    """Declare an argument that names a file or folder, in which `~` is the home folder."""
    return argument(*names, type=os.path.expanduser, **options)


CONFIG = path("config", metavar="CONFIG", help="a config file (TOML)")
SECOND = path("second", metavar="SECOND", nargs="?", help="with --from: a config with task, data and model")
FROM = argument(
    "--from", dest="tool", metavar="NAME", help="CONFIG is a file of this tool: slangmod; or the stage to start at"
)
ONLY = argument("--only", metavar="STAGE", help="run this stage of CONFIG alone")
FORCE = argument("--force-from", metavar="STAGE", help="run this stage and all that depend on it anew")
WITH = path("--with", dest="beside", metavar="SECOND", help="the same as SECOND")
RUN = path("run", metavar="RUN", help="a run folder, such as runs/numbers")
CHECKPOINT = argument(
    "--checkpoint", metavar="WHICH", default="best", help="best (the default), last, a step, or a checkpoint's folder"
)
DEVICE = argument("--device", metavar="NAME", default="auto", help="cuda, mps or cpu (default: the first available)")
BATCH_SIZE = argument("--batch-size", metavar="N", type=int, help="samples per batch (does not change the result)")
ALLOW_CODE = argument("--allow-code", action="store_true", help="run the custom code that the run's config names")
JSON = argument("--json", action="store_true", help="one JSON object per line")

SPLITS = ("train", "val", "test")
SHELLS = ("bash", "zsh", "fish")

EVALUATE = (RUN, CHECKPOINT, DEVICE, BATCH_SIZE, ALLOW_CODE, JSON)

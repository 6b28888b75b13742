"""`etude rm`: removes runs, failed ones, or the checkpoints of those that lost; lists them and asks first."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from etude.app.cli.streams import is_terminal, printable, put, say
from etude.app.layout import columns
from etude.app.results.removing import Removal, failed_runs, lost_states, remove, whole_runs
from etude.base.errors import ConfigError, StorageError

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
YES = {"y", "yes"}


def run(arguments: Namespace, overrides: list[str]) -> int:
    """List what is to go, ask, and remove it."""
    del overrides
    found = _chosen(arguments)
    if not found:
        say("There is nothing to remove.")
        return 0
    put(_table(found))
    if not arguments.yes and not _agreed(found):
        say("Nothing was removed.")
        return 0
    for one in found:
        remove(one)
        say(f"Removed {one.target}.")
    return 0


def _chosen(arguments: Namespace) -> list[Removal]:
    """What the arguments ask to be removed. Raises ConfigError where they ask for nothing, or for too much at once."""
    asked = [bool(arguments.runs), arguments.failed is not None, arguments.states is not None]
    if sum(asked) != 1:
        raise ConfigError("etude rm: give run folders, or --failed DIR, or --states DIR.")
    if arguments.runs:
        return whole_runs(list(dict.fromkeys(Path(one) for one in arguments.runs)))
    folder = Path(arguments.states if arguments.failed is None else arguments.failed)
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder; give the folder of the runs.")
    if arguments.failed is not None:
        return failed_runs(folder)
    found, notes = lost_states(folder)
    for note in notes:
        say(note)
    return found


def _table(found: Sequence[Removal]) -> str:
    rows = [(str(one.target), size(one.bytes), one.why) for one in found]
    total = (f"in all {len(rows):,}", size(sum(one.bytes for one in found)), "")
    return "\n".join(printable(line).replace("\n", "\\n") for line in columns([*rows, total], right=[1]))


def _agreed(found: Sequence[Removal]) -> bool:
    """Ask. Raises ConfigError where nobody can answer."""
    if not is_terminal(sys.stdin):
        raise ConfigError("etude rm removes nothing without an answer, and nobody can answer here: give --yes.")
    what = "these checkpoints" if found[0].states else "these folders"
    say(f"Remove {what} for good? [y/N]")
    return sys.stdin.readline().strip().lower() in YES


def size(count: float) -> str:
    """So many bytes, in the largest unit.

    >>> size(20), size(3 * 1024**2)
    ('20 bytes', '3.0 MiB')
    """
    level = 0
    while count >= 1024 and level < len(UNITS) - 1:  # noqa: PLR2004 - a KiB
        count, level = count / 1024, level + 1
    return f"{count:,.1f} {UNITS[level]}" if level else f"{count:,.0f} {UNITS[0]}"

"""`etude runs`: what runs a folder holds, how far each has come, and whether it goes on."""

import json
import math
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from etude.app.cli.streams import printable, put, say
from etude.app.results.found import half_removed
from etude.app.results.groups import Group, grouped
from etude.app.results.listing import as_csv, keys_of, row_of, rows_of, table, table_of_groups
from etude.app.results.stages import summaries
from etude.app.results.values import Values, chosen, in_order, refuse_unknown
from etude.app.results.where import Where
from etude.base.errors import ConfigError, StorageError


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print the runs of a folder, the one that changed last first."""
    del overrides
    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder; etude runs DIR lists the runs in DIR.")
    conditions = [Where.read(text) for text in arguments.where]
    keys = keys_of(arguments.columns)
    _refuse_both(arguments)
    found = [Values(one) for one in summaries(folder)]
    refuse_unknown(keys or (), found, "--columns")
    kept = chosen(found, conditions)
    if arguments.group:
        _tell_groups(_in_order_of_groups(kept, arguments), keys, arguments)
    else:
        _tell_runs(_sorted(kept, arguments), keys, arguments)
    _tell_of_the_rest(folder, found, kept)
    return 0


def _refuse_both(arguments: Namespace) -> None:
    if arguments.json and arguments.csv:
        raise ConfigError("etude runs: --json and --csv cannot both be given.")


def _sorted(runs: Sequence[Values], arguments: Namespace) -> list[Values]:
    """The runs in the order asked for, else the one that changed last first."""
    if arguments.sort:
        return in_order(runs, arguments.sort, downwards=arguments.reverse)
    return _by_change(runs)[:: -1 if arguments.reverse else 1]


def _by_change(runs: Sequence[Values]) -> list[Values]:
    """Runs, the one that changed last first; stages stay behind their pipeline."""
    changed = {run.summary.name: run.summary.changed_seconds for run in runs}
    own = [run.summary.pipeline or run.summary.name for run in runs]
    order = sorted(range(len(runs)), key=lambda at: (changed.get(own[at], 0.0), own[at]))
    return [runs[at] for at in order]


def _in_order_of_groups(runs: Sequence[Values], arguments: Namespace) -> list[Group]:
    """The groups, the best by its mean first, or in the order that their runs are asked for in."""
    if arguments.sort:
        return grouped(_sorted(runs, arguments))
    sign = -1.0 if arguments.reverse else 1.0
    groups = grouped(in_order(runs, "name"))
    return sorted(groups, key=lambda group: (math.isinf(group.merit), sign * group.merit))


def _tell_runs(runs: Sequence[Values], keys: Sequence[str] | None, arguments: Namespace) -> None:
    if arguments.json:
        for one in runs:
            put(json.dumps(row_of(one, keys), ensure_ascii=False))
    elif runs:
        put(as_csv([row_of(one, keys) for one in runs]) if arguments.csv else _safe(table(runs, keys)))


def _tell_groups(groups: Sequence[Group], keys: Sequence[str] | None, arguments: Namespace) -> None:
    if arguments.json:
        for row in rows_of(groups, keys):
            put(json.dumps(row, ensure_ascii=False))
    elif groups:
        put(as_csv(rows_of(groups, keys)) if arguments.csv else _safe(table_of_groups(groups, keys)))


def _safe(lines: Sequence[str]) -> str:
    """Lines as a terminal can be shown them."""
    return "\n".join(printable(line).replace("\n", "\\n") for line in lines)


def _tell_of_the_rest(folder: Path, found: Sequence[Values], kept: Sequence[Values]) -> None:
    """Say that there is nothing to list, and what has been left half removed."""
    if not found:
        say(f"{folder} holds no runs.")
    elif not kept:
        say(f"None of the {len(found):,} runs in {folder} meets the condition.")
    for path in half_removed(folder):
        say(f"{path} is a run whose removal was interrupted; etude rm {path} ends it.")

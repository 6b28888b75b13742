"""`etude ensemble`: the saved outputs of several runs, or of a sweep, as those of one."""

import json
import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from etude.app.cli.streams import printable, put, say
from etude.app.ensemble.averaged import Columns, averaged
from etude.app.ensemble.joined import Joined, joined
from etude.app.ensemble.measured import measured, processed
from etude.app.layout import columns
from etude.base.errors import ConfigError
from etude.base.named_files import check_named, named_file
from etude.callbacks.config import is_installed
from etude.callbacks.tables import JSON_LINES, PARQUET, finite, open_table

ENSEMBLE = "ensemble"


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Average, process, write and measure."""
    del overrides
    _check(arguments)
    found = joined(arguments.runs, arguments.split, arguments.best)
    for name in found.without:
        say(f"{name} saved no outputs of {arguments.split}: it is left out.")
    if found.left_out:
        say(f"{found.left_out:,} samples that not all runs have answered are left out.")
    rows = averaged(found, softmax=arguments.softmax)
    if arguments.process is not None:
        rows = processed(rows, arguments.process)
    told = _alone(found) | {ENSEMBLE: measured(rows)}
    put(json.dumps(_as_json(found, told)) if arguments.json else printable("\n".join(_table(told))))
    if arguments.output is not None:
        _write(Path(arguments.output), rows)
    return 0


def _check(arguments: Namespace) -> None:
    """Refuse what could not be done, before anything is read."""
    if arguments.best is not None and arguments.best < 1:
        raise ConfigError(f"--best must be at least 1, but is {arguments.best}.")
    if arguments.output is None:
        return
    path = Path(arguments.output)
    if path.suffix not in {PARQUET, JSON_LINES}:
        raise ConfigError(f"--output must end in {PARQUET} or {JSON_LINES}, but is {arguments.output}.")
    if path.suffix == PARQUET and not is_installed("pyarrow"):
        raise ConfigError(f"--output {path} needs pyarrow: run pip install 'etude[outputs]', or name a {JSON_LINES}.")
    check_named(path, "output")


def _alone(found: Joined) -> dict[str, dict[str, float]]:
    """What each run is worth by itself, over the same samples."""
    names = ("target", "prediction", "loss", "tokens")
    return {
        member.name: measured({name: [answer.get(name) for answer in member.answers] for name in names})
        for member in found.members
    }


def _table(told: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(dict.fromkeys(name for metrics in told.values() for name in metrics))
    rows = [
        (run, *(f"{metrics[name]:.5g}" if name in metrics else "" for name in names)) for run, metrics in told.items()
    ]
    return list(columns([("run", *names), *rows], right=range(1, len(names) + 1)))


def _as_json(found: Joined, told: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    metrics = {
        run: {name: value if math.isfinite(value) else None for name, value in one.items()} for run, one in told.items()
    }
    return {
        "runs": [{"name": one.name, "folder": str(one.folder), "metrics": metrics[one.name]} for one in found.members],
        "samples": len(found.members[0].answers),
        "left_out": found.left_out,
        "without": list(found.without),
        ENSEMBLE: metrics[ENSEMBLE],
    }


def _write(path: Path, rows: Columns) -> None:
    """Write the rows, whole or not at all."""
    if path.suffix == JSON_LINES:
        with named_file(path) as file:
            for values in zip(*rows.values(), strict=True):
                row = {name: finite(value) for name, value in zip(rows, values, strict=True)}
                file.write((json.dumps(row, ensure_ascii=False, default=str) + "\n").encode())
        return
    table = open_table(path.with_name(f".{path.name}.partial"))
    try:
        table.add(rows)
        table.finish(path)
    except BaseException:
        table.abandon()
        raise

"""`etude plan`: the scheduled values of a run, and when it evaluates, saves and ends; as text, a picture, or data."""

import csv
import io
import json
import locale
import math
import os
import shutil
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etude.app.cli.picture import check_picture, write_file
from etude.app.cli.plan_ranks import check_world, draw_ranks
from etude.app.cli.stages import plan_stages
from etude.app.cli.streams import flushed, is_terminal, put, say
from etude.app.plan.picture import svg
from etude.app.plan.plan import LOG, SAVE, VALIDATE, Plan, Row, plan
from etude.app.plan.text import BLOCKS, text
from etude.app.stages.loading import is_pipeline
from etude.base.errors import ConfigError
from etude.base.named_files import check_named
from etude.tasks.config import LoadedConfig, load_config

WIDTH = 80
"""Columns where no terminal tells."""


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print the plan, and write what was asked for."""
    check_world(arguments)
    if is_pipeline(arguments.config):
        return plan_stages(arguments, overrides, draw)
    if arguments.stage is not None:
        raise ConfigError(f"--stage names a stage, but {arguments.config} has none.")
    check_files(arguments)
    draw(load_config(arguments.config, overrides), arguments)
    return 0


def check_files(arguments: Namespace) -> None:
    """Refuse files that cannot be written, before anything is planned."""
    if arguments.output is not None:
        check_picture(arguments.output, "output")
    if arguments.csv is not None:
        check_named(Path(arguments.csv), "csv")


def draw(loaded: LoadedConfig, arguments: Namespace) -> None:
    """Print the plan of a run, and write what was asked for of it."""
    if arguments.world is not None:
        draw_ranks(loaded, arguments)
        return
    made = plan(loaded, steps=arguments.steps, say=say)
    with flushed():
        _print(made, arguments)
    if arguments.output is not None:
        write_file(arguments.output, svg(made))
    if arguments.csv is not None:
        write_file(arguments.csv, as_csv(made))


def _print(made: Plan, arguments: Namespace) -> None:
    if arguments.json:
        put(json.dumps(as_json(made), ensure_ascii=False, allow_nan=False))
        return
    for line in text(made, width=_width(), plain=arguments.ascii or not _shows_blocks()):
        put(line)


def as_json(made: Plan) -> dict[str, Any]:
    """The plan as one object; a row has the keys of `metrics.jsonl`. What is not finite is null."""
    return asdict(made) | {"rows": [_flat(row) for row in made.rows]}


def as_csv(made: Plan) -> str:
    """The rows as a table, with 1 where a step is followed by a log line, a validation or a save."""
    out = io.StringIO()
    events = (LOG, VALIDATE, SAVE)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["step", "epoch", "samples", "tokens", *made.names, *events])
    for row in made.rows:
        head = (row.step, row.epoch, row.samples, row.tokens)
        writer.writerow([*head, *row.values.values(), *(int(event in row.events) for event in events)])
    return out.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    values = {name: value if math.isfinite(value) else None for name, value in row.values.items()}
    head = {"step": row.step, "epoch": row.epoch, "samples": row.samples, "tokens": row.tokens}
    return head | values | {"events": row.events}


def _width() -> int:
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else WIDTH


def _shows_blocks() -> bool:
    """Whether who reads the output is likely to be able to show the blocks of a chart.

    Standard output itself takes any text, since the shell writes UTF-8; what reads it follows the locale.
    """
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0] or locale.getencoding()
    try:
        BLOCKS.encode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True

"""`etude check`."""

from argparse import Namespace
from collections.abc import Iterator

from etude.app.check import check
from etude.app.cli.stages import check_stages
from etude.app.cli.streams import flushed, put, say
from etude.app.stages.loading import is_pipeline
from etude.tasks.config import load_config


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print each fact as it is found."""
    facts = check_stages if is_pipeline(arguments.config) else _facts
    for line in facts(arguments.config, overrides):
        with flushed():
            put(line)
    return 0


def _facts(config: str, overrides: list[str]) -> Iterator[str]:
    """What is found out of a run."""
    yield from map(str, check(load_config(config, overrides), say))

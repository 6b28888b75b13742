"""`etude check`."""

from argparse import Namespace

from etude.app.check import check
from etude.app.cli.streams import flushed, put, say
from etude.tasks.config import load_config


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print each fact as it is found."""
    for fact in check(load_config(arguments.config, overrides), say):
        with flushed():
            put(f"{fact.name:<10}  {fact.told}")
    return 0

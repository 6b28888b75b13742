"""Verbs that several ranks work on together: started by a launcher, or here where the command line asks for them."""

import os
from argparse import Namespace
from collections.abc import Callable, Sequence

from etude.app.cli.streams import say
from etude.app.ranks import one_heard, start_ranks
from etude.base.config.command import parse
from etude.train.world import World, find_place

PROCESSES = ("distributed", "processes")
STARTED = range(2, 1025)
"""How many ranks are started here; any other number is left to the check of the config."""


def together(arguments: Namespace, overrides: Sequence[str], work: Callable[[World], int]) -> int:
    """Do the work of a verb as one of its ranks, or start as many as the command line asks for; the exit code.

    What the config of a run says of processes is of its training.
    """
    count = _asked(overrides)
    if count in STARTED and find_place(os.environ) is None:
        return start_ranks(arguments.words, count, say, again="start the same command again")
    with one_heard(debug=arguments.debug) as world:
        return work(world)


def _asked(overrides: Sequence[str]) -> int:
    """How many ranks a command line asks for."""
    given = [one.value for one in parse(overrides) if one.key == PROCESSES]
    match given:
        case [*_, int() as count]:
            return count
    return 1

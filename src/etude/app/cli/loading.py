"""Opens the run that a verb works on, with what the command line changes about it."""

from argparse import Namespace
from collections.abc import Sequence

from etude.app.cli.streams import say
from etude.app.runs.run import Run
from etude.base.errors import ConfigError

AT_LEAST = {"batch_size": 1, "beam_size": 1, "length_penalty": 0}
"""What the values of some flags must be, told in the flag's own name."""


def open_run(arguments: Namespace, overrides: Sequence[str]) -> Run:
    """The run folder that the command names. Raises StorageError where it is none, RefusedError for foreign code."""
    given = vars(arguments)
    for name, least in AT_LEAST.items():
        value = given.get(name)
        if value is not None and value < least:
            bound = "at least 1" if least else "0 or more"
            raise ConfigError(f"--{name.replace('_', '-')} must be {bound}, but is {value}.")
    size = given.get("batch_size")
    words = [*overrides, *(() if size is None else ("--train.eval_batch_size", str(size)))]
    return Run(arguments.run, overrides=words, allow_code=arguments.allow_code, say=say)

"""Opens the run that a verb works on, with what the command line changes about it."""

from argparse import Namespace

from etude.app.cli.streams import say
from etude.app.run import Run
from etude.base.errors import ConfigError

FLAGS = {
    "batch_size": "--train.eval_batch_size",
    "beam_size": "--task.beam_size",
    "length_penalty": "--task.length_penalty",
}
"""Flags that are short for a key of the config."""


def open_run(arguments: Namespace, overrides: list[str]) -> Run:
    """The run folder that the command names. Raises StorageError where it is none, RefusedError for foreign code."""
    words = list(overrides)
    for name, key in FLAGS.items():
        value = getattr(arguments, name, None)
        if value is not None:
            if value < 0 or (isinstance(value, int) and value < 1):
                bound = "at least 1" if isinstance(value, int) else "0 or more"
                raise ConfigError(f"--{name.replace('_', '-')} must be {bound}, but is {value}.")
            words += [key, str(value)]
    return Run(arguments.run, overrides=words, allow_code=arguments.allow_code, say=say)

"""Opens the run that a verb works on, with what the command line changes about it."""

import json
from argparse import Namespace

from etude.app.cli.streams import say
from etude.app.runs.run import Run
from etude.base.errors import ConfigError

FLAGS = {
    "batch_size": "--train.eval_batch_size",
    "beam_size": "--task.beam_size",
    "length_penalty": "--task.length_penalty",
}
"""Flags that are short for a key of the config."""


SEARCH = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens", "samples", "seed")
"""Flags that stand for keys of [task]."""


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


TOGETHER = {
    ("prompt", "file"): "--prompt takes the place of an input: leave out FILE, or --prompt",
    ("prompt", "whole"): "--prompt takes the place of an input, of which --whole is a form: leave one of them out",
    ("score", "samples"): "--score tells how likely text is and completes nothing: leave out --samples",
    ("score", "raw"): "--score tells how likely text is and completes nothing: leave out --raw",
    ("json", "raw"): "--json and --raw are two forms of output: leave one of them out",
}
"""Flags that contradict each other, and what to do."""


def _check_together(arguments: Namespace) -> None:
    """Refuse what would be without effect. Raises ConfigError."""
    if arguments.n_best != 1:
        raise ConfigError(f"--n-best is for translations; a language model takes --samples {arguments.n_best}.")
    given = {name for pair in TOGETHER for name in pair if getattr(arguments, name)}
    for pair, told in TOGETHER.items():
        if given.issuperset(pair):
            raise ConfigError(f"{told}.")


def overrides_of(arguments: Namespace, kind: str) -> list[str]:
    """The flags of a search as overrides of [task]. Raises ConfigError for flags that the task does not know."""
    given = {name: getattr(arguments, name) for name in SEARCH if getattr(arguments, name, None) is not None}
    if arguments.stop:
        given["stop"] = list(arguments.stop)
    if kind == "language_model":
        _check_together(arguments)
    own = {"score": arguments.score, "raw": arguments.raw, "whole": arguments.whole, "prompt": arguments.prompt}
    if kind != "language_model":
        wrong = [name for name, value in {**given, **own}.items() if value]
        if wrong and (kind != "hf" or any(name in own for name in wrong)):
            flag = wrong[0].replace("_", "-")
            raise ConfigError(f"--{flag} is for a language model, but this run's task is {kind}.")
    words: list[str] = []
    for name, value in given.items():
        words += [f"--task.{name}", json.dumps(value)]
    return words

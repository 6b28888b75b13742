"""Flags of `etude predict` as plain data, so that its help is written without importing a task.

A task names those that it takes. One of another task is refused in a sentence; one that is short for a key of the
config is passed on, and the config tells which keys there are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from etude.base.errors import ConfigError


@dataclass(frozen=True)
class Flag:
    """A flag: what it takes, what it is short for, and what is said where a task does not take it."""

    name: str
    """Without the dashes in front: `max-tokens`."""
    help: str
    metavar: str = ""
    """What stands for its value in the help; a flag without one takes no value."""
    kind: Callable[[str], object] = str
    """Of its value."""
    default: object = None
    repeats: bool = False
    """Whether it may be given several times, for a list of values."""
    key: str = ""
    """The key of the config that it is short for, such as `task.max_tokens`."""
    refused: str = ""
    """What a run is told whose task does not take it; `{type}` is that task's, `{value}` what was given."""

    @property
    def word(self) -> str:
        """Its name as parsed arguments have it."""
        return self.name.replace("-", "_")

    @property
    def options(self) -> dict[str, object]:
        """What argparse is told of it."""
        if not self.metavar:
            return {"help": self.help, "action": "store_true"}
        told: dict[str, object] = {"help": self.help, "metavar": self.metavar}
        if self.kind is not str:
            told["type"] = self.kind
        if self.repeats:
            told["action"] = "append"
        return told if self.default is None else {**told, "default": self.default}

    def given(self, arguments: Mapping[str, object]) -> object | None:
        """What was given; None where it was not."""
        value = arguments.get(self.word)
        return None if value is False or value == self.default else value


def given_of(flags: Sequence[Flag], arguments: Mapping[str, object]) -> dict[str, object]:
    """The values of the flags that were given, by their words."""
    found = {flag.word: flag.given(arguments) for flag in flags}
    return {word: value for word, value in found.items() if value is not None}


ELSEWHERE = "--{name} is for a language model, but this run's task is {type}."

N_BEST = Flag(
    "n-best",
    "give the N best predictions of each line",
    "N",
    int,
    default=1,
    refused="--n-best is for translations, but this run's task is {type}.",
)
BEAM_SIZE = Flag("beam-size", "width of the beam; 1 is greedy search", "N", int, key="task.beam_size")
LENGTH_PENALTY = Flag("length-penalty", "above 0 favours longer predictions", "X", float, key="task.length_penalty")
BEST_LINES = (N_BEST, BEAM_SIZE, LENGTH_PENALTY)
"""Flags of what answers lines with the best that a beam finds."""

MAX_TOKENS = Flag("max-tokens", "most tokens of a completion", "N", int, key="task.max_tokens", refused=ELSEWHERE)
TEMPERATURE = Flag(
    "temperature",
    "0 takes the likeliest token, 1 samples as the model says",
    "X",
    float,
    key="task.temperature",
    refused=ELSEWHERE,
)
TOP_K = Flag("top-k", "sample from the N most likely tokens", "N", int, key="task.top_k", refused=ELSEWHERE)
TOP_P = Flag(
    "top-p",
    "sample from the likeliest tokens of total probability P",
    "P",
    float,
    key="task.top_p",
    refused=ELSEWHERE,
)
REPETITION_PENALTY = Flag(
    "repetition-penalty",
    "above 1 avoids tokens that have occurred",
    "X",
    float,
    key="task.repetition_penalty",
    refused=ELSEWHERE,
)
SEED = Flag(
    "seed",
    "seed of the sampling: the same seed gives the same completions",
    "N",
    int,
    key="task.seed",
    refused=ELSEWHERE,
)
PROMPT = Flag("prompt", "complete this text instead of an input; repeatable", "TEXT", repeats=True, refused=ELSEWHERE)
SCORE = Flag("score", "report how likely each line is instead of completing it", refused=ELSEWHERE)
PROMPT_OR_FILE = {("prompt", "file"): "--prompt takes the place of an input: leave out FILE, or --prompt"}
"""Flags that contradict each other, and what to do."""


def refuse_together(given: Mapping[str, object], pairs: Mapping[tuple[str, str], str]) -> None:
    """Refuse the first two flags, given together, of which one would be without effect. Raises ConfigError."""
    for pair, told in pairs.items():
        if given.keys() >= set(pair):
            raise ConfigError(f"{told}.")

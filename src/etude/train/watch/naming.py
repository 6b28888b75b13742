"""What methods are called that look like events: Etude's `on_...`, and those of other tools."""

from collections.abc import Collection

from etude.base.near import nearest

PREFIX = "on_"
FOREIGN = "cb_on_"
"""What a method begins with that another tool calls by itself, and Etude refuses."""
_WORDS = {"begin": "start", "val": "validation", "eval": "validation", "train": "fit", "iteration": "epoch"}
"""Words in the events of other tools, and Etude's."""


def is_event(name: str) -> bool:
    """Whether a method's name is that of an event, Etude's or another tool's."""
    return name.startswith((PREFIX, FOREIGN))


def meant(name: str, known: Collection[str]) -> str:
    """The event that a method's name stands for, or that it is near to; empty where there is none.

    >>> meant("cb_on_val_begin", ["on_validation_start"]), meant("on_setp_end", ["on_step_end"])
    ('on_validation_start', 'on_step_end')
    """
    words = name.removeprefix("cb_").split("_")
    translated = "_".join(_WORDS.get(word, word) for word in words)
    return translated if translated in known else nearest(name, known)

"""Names that are near a misspelt one."""

import difflib
from collections.abc import Iterable, Sequence

NEAR = 0.75
"""How alike two names must be for one to be taken for a slip of the other, as difflib counts."""


def nearest(name: str, names: Iterable[object]) -> str:
    """Find the name closest to a misspelt one, in whatever case; empty if none is close.

    >>> nearest("AdamW", ["adam", "adamw"]), nearest("stage", ["target"]), nearest("momentun", ["momentum"])
    ('adamw', '', 'momentum')
    """
    spelled = {str(known).lower(): str(known) for known in names}
    return spelled.get(next(iter(difflib.get_close_matches(str(name).lower(), spelled, n=1, cutoff=NEAR)), ""), "")


def near_names(pattern: str, names: Sequence[str]) -> str:
    """A clause that tells which names a pattern that means none may have been for."""
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
    return f"near names are {', '.join(near)}" if near else f"the first are {', '.join(names[:3])}"


def did_you_mean(name: str, names: Iterable[object], otherwise: str, *, quote: str = "") -> str:
    """The end of a sentence about an unknown name: whether the nearest is meant, or `otherwise`.

    >>> did_you_mean("tran", ["train", "align"], "there are two."), did_you_mean("x", ["train"], "there is one.")
    ('did you mean train?', 'there is one.')
    """
    near = nearest(name, names)
    return f"did you mean {quote}{near}{quote}?" if near else otherwise

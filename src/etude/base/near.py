"""Names that are near a misspelt one."""

import difflib
from collections.abc import Iterable

NEAR = 0.75
"""How alike two names must be for one to be taken for a slip of the other, as difflib counts."""


def nearest(name: str, names: Iterable[object]) -> str:
    """Find the name closest to a misspelt one, in whatever case; empty if none is close.

    >>> nearest("AdamW", ["adam", "adamw"]), nearest("stage", ["target"]), nearest("momentun", ["momentum"])
    ('adamw', '', 'momentum')
    """
    spelled = {str(known).lower(): str(known) for known in names}
    return spelled.get(next(iter(difflib.get_close_matches(str(name).lower(), spelled, n=1, cutoff=NEAR)), ""), "")

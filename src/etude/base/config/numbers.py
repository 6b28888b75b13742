"""Numbers as people write them, in TOML's spelling."""

import re

_DIGITS = r"\d(?:_?\d)*"
_POINTED = rf"(?P<whole>{_DIGITS})?\.(?P<part>{_DIGITS})?"
_NUMBER = rf"(?P<sign>[+-]?)(?:{_POINTED}|(?P<alone>{_DIGITS}))(?P<power>[eE][+-]?\d+)?"
_ALONE = re.compile(_NUMBER)
_INSIDE = re.compile(rf"\"(?:\\.|[^\"\\])*\"|'[^']*'|#.*|(?<![\w.+-]){_NUMBER}(?![\w.+-])")
"""Text in quotes, a comment, or a number that stands by itself."""


def is_spelled(text: str) -> bool:
    """Whether text is a decimal number, in whatever spelling.

    >>> [is_spelled(text) for text in (".001", "1.e-3", "1E-4", "007", ".", "v1.2")]
    [True, True, True, False, False, False]
    """
    found = _ALONE.fullmatch(text)
    return found is not None and _is_decimal(found)


def toml_spelling(text: str) -> str:
    """Text of TOML with every decimal number in the way that TOML has for it; what is in quotes stays.

    >>> toml_spelling(".001"), toml_spelling("[1.e-3, '.5', 001e-6]")
    ('0.001', "[1.0e-3, '.5', 1e-6]")
    """
    return _INSIDE.sub(_spelled, text)


def misspelled(line: str) -> tuple[str, str] | None:
    """The first decimal number of a line that TOML does not read, and its spelling there; None where there is none.

    >>> misspelled("learning_rate = .001  # not .1")
    ('.001', '0.001')
    """
    pairs = ((found[0], _spelled(found)) for found in _INSIDE.finditer(line))
    return next(((written, spelled) for written, spelled in pairs if written != spelled), None)


def _is_decimal(found: re.Match[str]) -> bool:
    """Whether a match is a number with a point or an exponent; a whole one may be a name, such as 007."""
    parts = found.groupdict("")
    digits = parts["alone"] + parts["whole"] + parts["part"]
    return bool(digits and (parts["power"] or not parts["alone"]))


def _spelled(found: re.Match[str]) -> str:
    if not _is_decimal(found):
        return found[0]
    parts = found.groupdict("")
    whole = (parts["alone"] + parts["whole"]).lstrip("0_") or "0"
    point = "" if parts["alone"] else f".{parts['part'] or 0}"
    return f"{parts['sign']}{whole}{point}{parts['power']}"

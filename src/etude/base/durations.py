"""Durations: one way to say when, and how long."""

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any, Self, final

from etude.base.progress import Progress

UNITS = ("epochs", "steps", "batches", "tokens", "samples", "seconds", "percent")
"""The canonical units; minutes and hours are kept as seconds."""

NAMES = "epochs, steps, batches, tokens, samples, seconds, minutes, hours, %"
"""The units as a message names them."""

LARGEST = 10**18
"""Amounts beyond this are slips of the keyboard."""
DECIMALS = 12
"""Digits after the point, at most, so that an exponent cannot ask for a number of a million digits."""

_SPELLINGS: dict[str, tuple[str, int]] = {
    "%": ("percent", 1),
    "s": ("seconds", 1),
    "sec": ("seconds", 1),
    "secs": ("seconds", 1),
    "second": ("seconds", 1),
    "min": ("seconds", 60),
    "mins": ("seconds", 60),
    "minute": ("seconds", 60),
    "minutes": ("seconds", 60),
    "h": ("seconds", 3600),
    "hr": ("seconds", 3600),
    "hrs": ("seconds", 3600),
    "hour": ("seconds", 3600),
    "hours": ("seconds", 3600),
    "epoch": ("epochs", 1),
    "step": ("steps", 1),
    "batch": ("batches", 1),
    "token": ("tokens", 1),
    "sample": ("samples", 1),
} | {unit: (unit, 1) for unit in UNITS}

_SINGULAR = {
    "epochs": "epoch",
    "steps": "step",
    "batches": "batch",
    "tokens": "token",
    "samples": "sample",
    "seconds": "second",
    "minutes": "minute",
    "hours": "hour",
}

_TEXT = re.compile(r"\s*([+-]?)((?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*([A-Za-z]+|%)\s*")

_WHOLE = {"steps", "batches", "tokens", "samples"}
_EPOCHS = 2
_PERCENT = -1
_ALL = 100
_COUNTER = {"steps": 0, "batches": 1, "epochs": _EPOCHS, "samples": 3, "tokens": 4, "seconds": 5, "percent": _PERCENT}
"""Where Progress keeps the count that a unit is measured by."""


@final
class Duration:
    """A moment or a length of training: an exact amount and its unit.

    >>> Duration.parse("0.25 epochs")
    Duration.parse('0.25 epochs')
    >>> str(Duration(90, "minutes")), Duration(90, "minutes").amount
    ('90 minutes', Fraction(5400, 1))

    Raises ValueError, with a sentence that begins with "must", for an unknown unit or an amount that is negative or
    not finite. Zero is an amount: `parse` refuses it unless told otherwise.
    """

    __slots__ = ("_bottom", "_counter", "_inner", "_top", "amount", "unit")

    amount: Fraction
    """In `unit`, exactly as it was written."""
    unit: str
    """One of `UNITS`."""
    _counter: int
    _top: int
    _bottom: int
    _inner: int

    def __init__(self, amount: float | Decimal | Fraction | str, unit: str) -> None:
        spelled = _SPELLINGS.get(unit.lower())
        if spelled is None:
            raise ValueError(f"must have one of the units {NAMES}")
        canonical, scale = spelled
        exact = _exactly(amount) * scale
        if canonical == "percent" and exact > _ALL:
            raise ValueError("must be at most 100 %")
        put = object.__setattr__
        put(self, "amount", exact)
        put(self, "unit", canonical)
        put(self, "_counter", _COUNTER[canonical])
        put(self, "_top", exact.numerator)
        put(self, "_bottom", exact.denominator)
        put(self, "_inner", _inside_an_epoch(exact) if canonical == "epochs" else 0)

    @classmethod
    def parse(cls, text: object, *, zero: bool = False) -> Self:
        """Read a duration from text such as `"16 epochs"`, `"2e9 tokens"`, `"1.5 h"` or `"5 %"`.

        Raises ValueError with a sentence that begins with "must"; 0 is accepted only where `zero` says that it means
        something. Steps, batches, tokens and samples are whole numbers.
        """
        duration = text if isinstance(text, cls) else cls._of_text(text)
        if not zero and duration.amount == 0:
            raise ValueError("must be more than 0")
        return duration

    @classmethod
    def _of_text(cls, text: object) -> Self:
        sign, number, unit = _words(text)
        if unit.lower() not in _SPELLINGS:
            raise ValueError(f'must have one of the units {NAMES}, as in "16 epochs"')
        duration = cls(sign.strip("+") + number.replace("_", ""), unit)
        if duration.unit in _WHOLE and duration._bottom != 1:
            raise ValueError(f"must be a whole number of {duration.unit}")
        return duration

    def due(self, before: Progress, now: Progress) -> bool:
        """Whether a multiple of this duration was crossed or met between two moments, `before` excluded.

        A fraction of an epoch counts within each epoch, whose end is always due (`0.95 epochs`: twice an epoch); all
        else counts through from the start of the run. Raises ValueError for a share of a run (`of` makes it a length).
        """
        counter, top, bottom = self._counter, self._top, self._bottom
        if counter == _EPOCHS:
            return self._epoch_due(before, now)
        if counter == _PERCENT:
            raise ValueError(f"{self} is a share of a run: it must be resolved against its length first")
        return before[counter] * bottom // top != now[counter] * bottom // top

    def reached(self, now: Progress) -> bool:
        """Whether the run has come this far. Raises ValueError for a share of a run."""
        counter, top, bottom = self._counter, self._top, self._bottom
        if counter == _EPOCHS:
            total = now.epoch_total
            if total:
                return (now.epoch * total + now.epoch_done) * bottom >= top * total
            return now.epoch * bottom >= top
        if counter == _PERCENT:
            raise ValueError(f"{self} is a share of a run: it must be resolved against its length first")
        return now[counter] * bottom >= top

    def passed(self, now: Progress) -> int:
        """How often this duration fits into the run so far, counted through from its start.

        Raises ValueError for a share of a run.
        """
        counter, top, bottom = self._counter, self._top, self._bottom
        if counter == _EPOCHS:
            return now.epoch // top if bottom == 1 else _epochs_through(now, top, bottom)
        if counter == _PERCENT:
            raise ValueError(f"{self} is a share of a run: it must be resolved against its length first")
        return int(now[counter] * bottom // top)

    def of(self, total: "Duration") -> "Duration":
        """This share of `total`, in the unit of `total`; a duration that is no share is returned as it is.

        The share may be a fraction of a step. Raises ValueError where `total` is itself a share.
        """
        if self.unit != "percent":
            return self
        if total.unit == "percent":
            raise ValueError("must not be a share of the run, whose length it is")
        return Duration(self.amount * total.amount / 100, total.unit)

    def __str__(self) -> str:
        """Canonical text, which `parse` reads back: `"16 epochs"`, `"1 step"`, `"90 minutes"`, `"5 %"`."""
        if self.unit == "percent":
            return f"{_decimal(self.amount)} %"
        amount, unit = _in_longest(self.amount) if self.unit == "seconds" else (self.amount, self.unit)
        return f"{_decimal(amount)} {_SINGULAR[unit] if amount == 1 else unit}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Duration):
            return NotImplemented
        return self.unit == other.unit and self.amount == other.amount

    def __hash__(self) -> int:
        return hash((self.amount, self.unit))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A Duration is a value: its {name} cannot be changed.")

    def __reduce__(self) -> tuple[type["Duration"], tuple[Fraction, str]]:
        return Duration, (self.amount, self.unit)

    def __repr__(self) -> str:
        return f"Duration.parse({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        """Let pydantic read it from text, and write it as text, defaults in a JSON Schema included."""
        from pydantic_core import core_schema  # the shell starts without pydantic

        del source, handler
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
            metadata={"pydantic_js_functions": [lambda _schema, _handler: {"type": "string"}]},
        )

    def _epoch_due(self, before: Progress, now: Progress) -> bool:
        top, bottom, inner = self._top, self._bottom, self._inner
        if inner:
            if before.epoch != now.epoch:
                return True
            # Where the total is an estimate the epoch may go on past it; its inner multiples do not.
            whole = top * now.epoch_total
            return whole > 0 and min(before.epoch_done * bottom // whole, inner) != min(
                now.epoch_done * bottom // whole, inner
            )
        if bottom == 1:
            return before.epoch // top != now.epoch // top
        return _epochs_through(before, top, bottom) != _epochs_through(now, top, bottom)


def _words(text: object) -> tuple[str, str, str]:
    """Part a duration into its sign, if it has one, its number and its unit."""
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'must be a number with its unit ({NAMES}), as in "16 epochs"')
    return match[1], match[2], match[3]


def _exactly(amount: float | Decimal | Fraction | str) -> Fraction:
    """Turn a number into the fraction that its decimal text says: 0.1 is a tenth."""
    if not _is_finite(amount):
        raise ValueError("must be a finite number with its unit")
    exact = Fraction(str(amount)) if isinstance(amount, float) else Fraction(amount)
    _check_size(exact)
    if (exact * 10**DECIMALS).denominator != 1 and not isinstance(amount, Fraction):
        raise ValueError(f"must have at most {DECIMALS} digits after the point")
    return exact


def _inside_an_epoch(amount: Fraction) -> int:
    """The multiples of a fraction of an epoch that lie inside the epoch; none of whole epochs."""
    return math.ceil(1 / amount) - 1 if 0 < amount < 1 else 0


def _check_size(amount: Fraction) -> None:
    if amount < 0:
        raise ValueError("must not be negative")
    if amount > LARGEST:
        raise ValueError("must be at most 1e18")


def _is_finite(amount: float | Decimal | Fraction | str) -> bool:
    """Whether a number has an end; a bool is an int to Python, but no number here."""
    if isinstance(amount, float | Decimal):
        return math.isfinite(amount)
    return not isinstance(amount, bool)


def _in_longest(seconds: Fraction) -> tuple[Fraction, str]:
    """Give seconds in the longest unit of which they are a whole number."""
    if seconds and seconds % 3600 == 0:
        return seconds / 3600, "hours"
    if seconds and seconds % 60 == 0:
        return seconds / 60, "minutes"
    return seconds, "seconds"


def _decimal(amount: Fraction) -> str:
    """Write a fraction as a decimal number without an exponent (one that has no end, as a fraction)."""
    if amount.denominator == 1:
        return str(amount.numerator)
    digits = next((n for n in range(1, 2 * DECIMALS + 3) if 10**n % amount.denominator == 0), None)
    if digits is None:
        return str(amount)
    text = str(amount.numerator * (10**digits // amount.denominator)).rjust(digits + 1, "0")
    return f"{text[:-digits]}.{text[-digits:]}"


def _epochs_through(at: Progress, top: int, bottom: int) -> int:
    total = at.epoch_total or 1
    done = at.epoch_done if at.epoch_total else 0
    return (at.epoch * total + done) * bottom // (top * total)

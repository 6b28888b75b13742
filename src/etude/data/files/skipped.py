"""Samples that were left out: how many may be, and where each is listed."""

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import AfterValidator

from etude.base.errors import DataError
from etude.base.files import write_text
from etude.data.files.lines import shown


class Allowance(NamedTuple):
    """How many samples may be left out: a number of them, or a share of all."""

    amount: Decimal
    share: bool
    """Whether `amount` is in percent."""

    @classmethod
    def parse(cls, value: int | str) -> "Allowance":
        """Read `100`, `"100"`, `"1%"` or `"0.5 %"`. Raises ValueError where it is neither."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", str(value), re.ASCII)
        if isinstance(value, bool) or match is None:
            raise ValueError('must be a number of samples or a share of them, such as 100 or "1%"')
        amount, share = Decimal(match[1]), bool(match[2])
        if (share and amount > 100) or (not share and amount != int(amount)):  # noqa: PLR2004 - percent
            raise ValueError('must be a whole number of samples or at most "100%"')
        return cls(amount, share)

    def of(self, samples: int) -> int:
        """Give how many of `samples` may be left out."""
        return int(self.amount * samples / 100) if self.share else int(self.amount)

    def __str__(self) -> str:
        return f"{self.amount}{'%' if self.share else ''}"


def _read(value: int | str) -> int | str:
    Allowance.parse(value)
    return value


AllowanceField = Annotated[int | str, AfterValidator(_read)]
"""A config's field that holds what `Allowance` reads, as it was written."""


class Policy(NamedTuple):
    """Which samples are bad, and what is done about them."""

    max_length: int | None = None
    """The longest text that is good, in tokens of either side."""

    on_bad_sample: str = "error"
    """`error` ends at the first bad sample, `skip` leaves bad ones out."""

    max_skipped: int | str = "1%"
    """How many may be left out, in the words of `Allowance`."""

    @property
    def skips(self) -> bool:
        """Whether bad samples may be left out."""
        return self.on_bad_sample == "skip"


class BadSampleError(DataError):
    """A sample that cannot be used: where it stands, and why."""

    def __init__(self, file: str, line: int, reason: str) -> None:
        self.file, self.line, self.reason = file, line, reason
        super().__init__(f'{shown(file)}, line {line}: {reason}. data.on_bad_sample = "skip" leaves such lines out.')


class Origin(Protocol):
    """What samples come from."""

    def __len__(self) -> int:
        """Count the samples, bad ones included."""

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a sample."""


def check_skipped(skipped: int, origin: Origin, policy: Policy) -> None:
    """Raise DataError where more samples were left out than the policy allows."""
    allowed = Allowance.parse(policy.max_skipped)
    most = allowed.of(len(origin))
    if skipped > most:
        raise DataError(
            f"{skipped} of {len(origin)} samples in {origin.place(0)[0]} cannot be used, but data.max_skipped allows "
            f'{most} ({allowed}); data.on_bad_sample = "error" shows the first.'
        )


class SkippingTable(Protocol):
    """What is asked of a prepared table about the samples that it left out."""

    def skips(self) -> Iterator[Any]:
        """Give each skip, with `sample`, `side` and `reason`."""
        ...


class PlacedSource(Protocol):
    """What is asked of a source about where its samples stand."""

    def place(self, index: int, side: str) -> tuple[str, int]:
        """Give file and line of a sample."""
        ...


def write_skipped(path: Path, parts: Iterable[tuple[SkippingTable, PlacedSource]]) -> int:
    """Write `skipped.jsonl`: `file`, `line` and `reason` of every sample that the tables left out; give their number.

    Nothing is written where nothing was left out.
    """
    lines = []
    for table, source in parts:
        for skip in table.skips():
            file, line = source.place(skip.sample, skip.side)
            lines.append(json.dumps({"file": file, "line": line, "reason": skip.reason}, ensure_ascii=False) + "\n")
    if lines:
        write_text(path, "".join(lines))
    return len(lines)

"""The first line of a table: whether it names the columns, and which of them hold the pair."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from etude.base.errors import DataError
from etude.base.says import Say
from etude.data.files.lines import shown
from etude.data.files.names import PAIRED, ColumnName, Roles

SIDES = PAIRED.names
Choice: TypeAlias = bool | Literal["auto"]
"""Whether something is so; `auto` finds out."""
Wanted: TypeAlias = tuple[ColumnName, ColumnName]
OTHER_NAMES: Mapping[str, str] = {
    "src": "source",
    "tgt": "target",
    "trg": "target",
    "source text": "source",
    "target text": "target",
    "source_text": "source",
    "target_text": "target",
    "sentence": "text",
    "content": "text",
    "review": "text",
    "class": "label",
    "category": "label",
    "labels": "label",
}
"""What other tools call the two columns."""
QUOTED_NAME = re.compile(r"""\s*(["']?)(.*)\1\s*""", re.DOTALL)


class Header(NamedTuple):
    """Where the pair stands in a table."""

    columns: tuple[int, int]
    """Of both texts, such as source and target, from 0 on."""
    lines: int
    """Lines of names: 0 or 1."""


def read_header(
    path: Path, names: list[str], wanted: Wanted, header: Choice, notice: Say, roles: Roles = PAIRED
) -> Header:
    """Find the two columns in a file whose first line has these cells. Raises DataError where they are not there.

    `auto` takes the line for names where it holds both that are `wanted`, in any case and in quotes, and for a
    sample where it holds neither and no name is known otherwise; `notice` hears so.
    """
    match wanted, header:
        case (int() as source, int() as target), _:
            return Header((source - 1, target - 1), int(header is True))
        case _, False:
            return _counted(path, wanted, roles)
    found = [_place(path, names, column) for column in wanted]
    match found:
        case [int() as source, int() as target]:
            return Header((source, target), 1)
    if (wanted, found, len(names), header) == (roles.names, [None, None], len(roles.names), "auto"):
        return _unnamed(path, names, notice, roles)
    raise DataError(_missing(path, names, wanted, found, roles))


def _place(path: Path, names: list[str], column: ColumnName) -> int | None:
    return column - 1 if isinstance(column, int) else place_of(path, names, column)


def _counted(path: Path, wanted: Wanted, roles: Roles) -> Header:
    """Take the columns of a file that names none: the first two, unless others are named by number."""
    if wanted == roles.names:
        return Header((0, 1), 0)
    raise DataError(
        f"{shown(path)} has no column names, as data.header = false says, so {_keys(roles)} must be "
        f"numbers of columns, counted from 1, but are {shown(wanted[0])} and {shown(wanted[1])}."
    )


def _unnamed(path: Path, names: list[str], notice: Say, roles: Roles) -> Header:
    """Take the first line for a sample, and say so; refuse one that has names by which others call its columns."""
    line = shown("\t".join(names), 120)
    meant = [OTHER_NAMES.get(plain_name(name)) for name in names]
    if set(meant) == set(roles.names):
        told = " and ".join(f'data.{side} = "{shown(name, 40)}"' for side, name in zip(meant, names, strict=True))
        raise DataError(
            f'{shown(path)}, line 1: "{line}" are names that Etude does not look for: set {told}, or '
            f"data.header = false where the line is a {roles.sample}."
        )
    first, second = roles.names
    notice(
        f'{shown(path)} does not begin with column names: its first line, "{line}", is a {roles.sample}, and its first '
        f"column is the {first}, its second the {second}; data.header = true says otherwise."
    )
    return Header((0, 1), 0)


def _missing(path: Path, names: list[str], wanted: Wanted, found: Sequence[int | None], roles: Roles) -> str:
    listed = ", ".join(f'"{shown(name, 40)}"' for name in names[:10])
    gone = found.index(None)
    beside = "" if found[1 - gone] is None else f', beside "{shown(wanted[1 - gone])}"'
    return (
        f'{shown(path)}, line 1: there is no column "{shown(wanted[gone])}"{beside}; the first line has {listed}. '
        f"{_keys(roles)} name the columns, or count them from 1 where a file has no names; "
        f"data.header = false says that the line is a {roles.sample}."
    )


def _keys(roles: Roles) -> str:
    return " and ".join(f"data.{name}" for name in roles.names)


def place_of(path: Path, names: list[str], wanted: str) -> int | None:
    """Find the column of a name: the one that is called so or, where none is, so in another case or in quotes.

    Raises DataError where two are.
    """
    found = places_of(names, wanted)
    if len(found) > 1:
        raise DataError(f'{shown(path)}, line 1: two columns are called "{shown(wanted)}".')
    return next(iter(found), None)


def places_of(names: list[str], wanted: str) -> list[int]:
    """Find the columns that are called so or, where none is, so in another case or in quotes."""
    return _equal(names, wanted) or _equal([*map(plain_name, names)], plain_name(wanted))


def _equal(names: list[str], wanted: str) -> list[int]:
    return [place for place, name in enumerate(names) if name == wanted]


def plain_name(name: str) -> str:
    """Give a name as it is compared: without quotes and white space around it, in lower case."""
    found = QUOTED_NAME.fullmatch(name)
    assert found is not None  # it matches every text
    return found[2].strip().casefold()

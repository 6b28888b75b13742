"""Where two runs part: what they were made from, and the first step at which rows or checkpoints differ."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from etude.tasks.config import any_config
from etude.tasks.task_type import TOKENIZERS
from etude.app.runs.folder import CODE, CONFIG, DATA, ENVIRONMENT
from etude.base.config.loading import difference
from etude.base.config.meaning import meaning_of
from etude.base.config.reading import read
from etude.base.errors import StorageError
from etude.base.files import json_or_empty, sha256_of
from etude.train.memory.checkpoint.content import ALIASES, AVERAGED, MODEL, OPTIMIZER, STATE, STATE_JSON
from etude.train.memory.checkpoint.reader import read_tensors, verify
from etude.train.memory.checkpoint.store import Store
from etude.train.watch.record import METRICS, Row, read_rows

Pair = tuple[str, Any, Any]
"""A name, and what stands under it in the first run and in the second."""

CLOCK = ("_seconds", "_per_second", "_memory")
OF_THE_START = ("record", "ended", "horizon", "optimizers")
"""What the state says about the files and the end of a run rather than about its steps."""
PROGRESS_SECONDS = 5
"""Where the clock stands in a progress that is written as a list."""
PROGRESSES = ("since", "judged")
TENSORS = (MODEL, AVERAGED, OPTIMIZER)


@dataclass(frozen=True)
class Rows:
    """The first step, of those that both logged, whose values differ."""

    step: int
    values: list[Pair]


@dataclass(frozen=True)
class Weights:
    """The first step, of those that both saved, whose tensors differ."""

    step: int
    weights: list[tuple[str, float | None]]
    """Parameters with the largest absolute difference of their elements; None where their shapes differ."""
    of: int
    """How many tensors the weights are."""
    optimizer: int
    """How many tensors of the optimizer's state differ."""
    averaged: int
    """How many averaged tensors differ."""


@dataclass
class Comparison:
    """Two runs side by side."""

    first: Path
    second: Path
    config: list[Pair] = field(default_factory=list)
    data: list[Pair] = field(default_factory=list)
    code: list[Pair] = field(default_factory=list)
    environment: list[Pair] = field(default_factory=list)
    rows: Rows | None = None
    weights: Weights | None = None
    state: tuple[int, list[str]] | None = None
    """The first step that both saved at which they remember different things, and what."""
    logged: int = 0
    """Steps that both logged."""
    saved: list[int] = field(default_factory=list)
    """Steps that both have a sound checkpoint of."""
    equal_to: int | None = None
    """The last step to which they were seen to be equal."""
    notes: list[str] = field(default_factory=list)

    @property
    def parts_at(self) -> int | None:
        """The first step seen to differ; None where none does."""
        return min((found.step for found in (self.rows, self.weights) if found is not None), default=None)

    @property
    def telling(self) -> list[Pair]:
        """What of the config can change a number."""
        return [change for change in self.config if meaning_of(any_config(), change[0]).identity != "none"]

    @property
    def cause(self) -> str | None:
        """What the difference most likely comes from; None where there is none."""
        if self.parts_at is None:
            return None
        for word, found in (("config", self.telling), ("data", self.data), ("code", self.code)):
            if found:
                return word
        return "arithmetic" if self.environment else "unknown"


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare two run folders, of the shell or of a trainer; nothing is written.

    Raises StorageError for a folder that is no run.
    """
    for folder in (first, second):
        if not (folder / CONFIG).is_file():
            raise StorageError(f"{folder} is no run folder: it has no {CONFIG}.")
    found = Comparison(first, second)
    changes = difference(read(first / CONFIG).data, read(second / CONFIG).data)
    found.config = [change for change in changes if not meaning_of(any_config(), change[0]).place]
    found.data = [*_both(_data, found), *_both(_tokenizers, found)]
    found.code = _both(_code, found)
    found.environment = _both(_environment, found)
    _compare_checkpoints(found, _compare_rows(found))
    return found


# -- what they were made from ------------------------------------------------------------------------------------


def _both(of: Callable[[Path], Mapping[str, Any]], found: Comparison) -> list[Pair]:
    return _unlike(of(found.first), of(found.second))


def _unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Pair]:
    names = dict.fromkeys([*first, *second])
    return [(name, first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)]


def _data(folder: Path) -> Mapping[str, Any]:
    return json_or_empty(folder / DATA)


def _tokenizers(folder: Path) -> Mapping[str, Any]:
    return {f"{TOKENIZERS}/{path.name}": sha256_of(path) for path in sorted((folder / TOKENIZERS).glob("*.json"))}


def _code(folder: Path) -> Mapping[str, Any]:
    return {Path(name).name: digest for name, digest in json_or_empty(folder / CODE / "sha256.json").items()}


def _environment(folder: Path) -> Mapping[str, Any]:
    """Versions and hardware by dotted name, and the commit."""
    told = json_or_empty(folder / ENVIRONMENT)
    parts = {name: told.get(name) for name in ("versions", "hardware")}
    flat = {f"{name}.{key}": value for name, part in parts.items() for key, value in dict(part or {}).items()}
    commit = told.get("commit")
    return flat | ({f"commit.{key}": value for key, value in commit.items()} if isinstance(commit, Mapping) else {})


# -- rows ----------------------------------------------------------------------------------------------------------


def by_step(rows: Sequence[Row]) -> dict[int, Row]:
    """What was logged of each step, without what depends on the clock and without later tests."""
    found: dict[int, Row] = {}
    for row in rows:
        if isinstance(row.get("step"), int):
            found.setdefault(row["step"], {}).update({key: value for key, value in row.items() if _is_of_training(key)})
    return found


def _is_of_training(key: str) -> bool:
    return not key.startswith(("time/", "test/")) and not key.endswith(CLOCK)


def first_difference(first: Mapping[int, Row], second: Mapping[int, Row]) -> Rows | None:
    """The first step of both whose common values differ; None where all are equal."""
    for step in sorted(first.keys() & second.keys()):
        one, other = first[step], second[step]
        unlike = [(key, value, other[key]) for key, value in one.items() if key in other and value != other[key]]
        if unlike:
            return Rows(step, unlike)
    return None


def _compare_rows(found: Comparison) -> list[int]:
    """Find the first row that differs; give the steps that both logged."""
    first, second = (by_step(read_rows(folder / METRICS, found.notes.append)) for folder in (found.first, found.second))
    common = sorted(first.keys() & second.keys())
    found.logged, found.rows = len(common), first_difference(first, second)
    _note_equal(found, [step for step in common if found.rows is None or step < found.rows.step])
    return common


def _note_equal(found: Comparison, steps: Sequence[int]) -> None:
    if steps:
        found.equal_to = max(steps[-1], found.equal_to or 0)


# -- checkpoints ---------------------------------------------------------------------------------------------------


def _compare_checkpoints(found: Comparison, logged: Sequence[int]) -> None:
    stores = [Store(folder / "checkpoints") for folder in (found.first, found.second)]
    equal = []
    for step in sorted(set(stores[0].steps()) & set(stores[1].steps())):
        places = [store.path(step) for store in stores]
        try:
            files = [verify(place)["files"] for place in places]
            found.saved.append(step)
            if found.state is None and (remembered := _unlike_state(places, files)):
                found.state = step, remembered
            found.weights = found.weights or _unlike_tensors(step, places, files)
        except StorageError as error:
            found.notes.append(f"{error} Step {step:,} is left out of the comparison.")
            continue
        if found.weights is None:
            equal.append(step)
    parts_at = found.parts_at
    if parts_at is not None and found.equal_to is not None and found.equal_to >= parts_at:
        found.equal_to = None  # rows agreed where weights did not
        _note_equal(found, [step for step in logged if step < parts_at])
    _note_equal(found, [step for step in equal if parts_at is None or step < parts_at])


def _unlike_tensors(step: int, places: Sequence[Path], files: Sequence[Mapping[str, Any]]) -> Weights | None:
    """How the tensors of two checkpoints differ; None where those that training uses are equal."""
    # One alone may keep an average: that is no difference of what both compute.
    names = [name for name in TENSORS if name != AVERAGED or all(name in listed for listed in files)]
    unlike = {name: _unlike_file(name, places, files) for name in names}
    if not any(unlike.values()):
        return None
    of = len(_tensors(places[0], MODEL, files[0]))
    return Weights(step, unlike[MODEL], of, len(unlike[OPTIMIZER]), len(unlike.get(AVERAGED, [])))


def _unlike_file(
    name: str, places: Sequence[Path], files: Sequence[Mapping[str, Any]]
) -> list[tuple[str, float | None]]:
    """The tensors that differ in one of the files of two checkpoints; files that are equal are not read."""
    hashes = [listed.get(name, {}).get("sha256") for listed in files]
    if hashes[0] == hashes[1]:
        return []
    return list(_apart(*(_tensors(place, name, listed) for place, listed in zip(places, files, strict=True))))


def _tensors(place: Path, name: str, files: Mapping[str, Any]) -> Mapping[str, Tensor]:
    if name not in files:
        return {}
    aliases = json_or_empty(place / ALIASES) if ALIASES in files else {}
    return read_tensors(place / name, aliases)


def _apart(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Iterator[tuple[str, float | None]]:
    """Tensors of two checkpoints that are not equal to the bit, with how far they are apart."""
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
            yield name, None
        elif not torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)):
            yield name, float((one.double() - other.double()).abs().max())


def _unlike_state(places: Sequence[Path], files: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names in two states that differ, the clock's left out; tensors among them by the names in their file."""
    one, other = (dict(_flat(json_or_empty(place / STATE_JSON), ())) for place in places)
    plain = [".".join(key) for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
    return plain + [name for name, _ in _unlike_file(STATE, places, files)]


def _flat(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not (place == () and key in OF_THE_START) and key != "seconds":
                yield from _flat(part, (*place, str(key)))
    elif isinstance(value, list) and place and place[-1] in PROGRESSES:
        yield place, [part for index, part in enumerate(value) if index != PROGRESS_SECONDS]
    else:
        yield place, value

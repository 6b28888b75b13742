"""Where two runs part: what they were made from, and the first step at which rows or checkpoints differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.app.runs.apart import Both, Weights
from etude.app.runs.folder import CODE, CONFIG, DATA, ENVIRONMENT, code_names, tokenizer_hashes
from etude.base.config.loading import difference
from etude.base.config.meaning import meaning_of
from etude.base.config.reading import read
from etude.base.errors import StorageError
from etude.base.files import json_or_empty
from etude.tasks.config import any_config
from etude.tasks.task_type import TOKENIZERS
from etude.train.lock import refuse_links_out
from etude.train.memory.checkpoint.store import Store
from etude.train.watch.record import METRICS, Row, read_rows

Pair = tuple[str, Any, Any]
"""A name, and what stands under it in the first run and in the second."""

CLOCK = ("_seconds", "_per_second", "_memory")


@dataclass(frozen=True)
class Rows:
    """The first step, of those that both logged, whose values differ."""

    step: int
    values: list[Pair]


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
        found = [one.step for one in (self.rows, self.weights) if one is not None]
        return min(found, default=None)

    def is_before(self, step: int) -> bool:
        """Whether nothing was seen to differ up to a step."""
        return self.parts_at is None or step < self.parts_at

    @property
    def telling(self) -> list[Pair]:
        """What of the config can change a number."""
        return [change for change in self.config if meaning_of(any_config(), change[0]).identity != "none"]

    @property
    def cause(self) -> str | None:
        """What the difference most likely comes from; None where there is none."""
        if self.parts_at is None:
            return None
        reasons = {"config": self.telling, "data": self.data, "code": self.code, "arithmetic": self.environment}
        return next((word for word, found in reasons.items() if found), "unknown")


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare two run folders, of the shell or of a trainer; nothing is written.

    Raises StorageError for a folder that is no run.
    """
    _refuse_other_folders(first, second)
    found = Comparison(first, second)
    changes = difference(read(first / CONFIG).data, read(second / CONFIG).data)
    found.config = [change for change in changes if not meaning_of(any_config(), change[0]).place]
    found.data = [*_both(_data, found), *_both(_tokenizers, found)]
    found.code = _both(_code, found)
    found.environment = _both(_environment, found)
    compared = [*_compare_rows(found), *_compare_checkpoints(found)]
    found.equal_to = max(filter(found.is_before, compared), default=None)
    return found


def _refuse_other_folders(*folders: Path) -> None:
    for folder in folders:
        if not (folder / CONFIG).is_file():
            raise StorageError(f"{folder} is not a run folder: it has no {CONFIG}.")
        refuse_links_out(folder)


# -- what they were made from ------------------------------------------------------------------------------------


def _both(of: Callable[[Path], Mapping[str, object]], found: Comparison) -> list[Pair]:
    return _unlike(of(found.first), of(found.second))


def _unlike(first: Mapping[str, object], second: Mapping[str, object]) -> list[Pair]:
    pairs = [(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]
    return [(name, one, other) for name, one, other in pairs if one != other]


def _data(folder: Path) -> Mapping[str, Any]:
    return json_or_empty(folder / DATA)


def _tokenizers(folder: Path) -> Mapping[str, Any]:
    return {f"{TOKENIZERS}/{name}": digest for name, digest in tokenizer_hashes(folder).items()}


def _code(folder: Path) -> Mapping[str, Any]:
    hashes = json_or_empty(folder / CODE / "sha256.json")
    return {name: hashes[file] for file, name in code_names(hashes).items()}


def _environment(folder: Path) -> Mapping[str, Any]:
    """Versions and hardware by dotted name, and the commit."""
    told = json_or_empty(folder / ENVIRONMENT)
    tables = [(name, told.get(name)) for name in ("versions", "hardware", "commit")]
    known = [(name, table) for name, table in tables if isinstance(table, Mapping)]
    return {f"{name}.{key}": value for name, table in known for key, value in table.items()}


# -- rows ----------------------------------------------------------------------------------------------------------


def by_step(rows: Sequence[Row]) -> dict[int, Row]:
    """What was logged of each step, without what depends on the clock and without later tests."""
    found: dict[int, Row] = {}
    for row in rows:
        if isinstance(row.get("step"), int):
            found.setdefault(row["step"], {}).update(_of_training(row))
    return found


def _of_training(row: Row) -> Row:
    return {key: value for key, value in row.items() if _is_of_training(key)}


def _is_of_training(key: str) -> bool:
    return not key.startswith(("time/", "test/")) and not key.endswith(CLOCK)


def first_difference(first: Mapping[int, Row], second: Mapping[int, Row]) -> Rows | None:
    """The first step of both whose common values differ; None where all are equal."""
    for step in sorted(first.keys() & second.keys()):
        both = first[step].keys() & second[step].keys()
        unlike = [pair for pair in _unlike(first[step], second[step]) if pair[0] in both]
        if unlike:
            return Rows(step, unlike)
    return None


def _compare_rows(found: Comparison) -> list[int]:
    """Find the first row that differs; give the steps that both logged."""
    first, second = (by_step(read_rows(folder / METRICS, found.notes.append)) for folder in (found.first, found.second))
    common = sorted(first.keys() & second.keys())
    found.logged, found.rows = len(common), first_difference(first, second)
    return common


# -- checkpoints ---------------------------------------------------------------------------------------------------


def _compare_checkpoints(found: Comparison) -> list[int]:
    """Find the first checkpoints whose tensors and states differ; give the steps of those before, which are equal."""
    stores = [Store(folder / "checkpoints") for folder in (found.first, found.second)]
    common = set(stores[0].steps()) & set(stores[1].steps())
    return [step for step in sorted(common) if _is_equal(found, step, stores)]


def _is_equal(found: Comparison, step: int, stores: Sequence[Store]) -> bool:
    """Take in how the checkpoints of a step differ; tell whether no weights have differed up to it."""
    try:
        both = Both(step, [store.path(step) for store in stores])
        found.saved.append(step)
        if found.state is None and (names := both.unlike_state()):
            found.state = step, names
        found.weights = found.weights or both.unlike_weights()
    except StorageError as error:
        found.notes.append(f"{error} Step {step:,} is left out of the comparison.")
        return False
    return found.weights is None

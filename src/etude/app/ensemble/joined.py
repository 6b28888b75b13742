"""The saved outputs of several runs for the same samples of a split, in one order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, final

from etude.app.report.gather import folders, names
from etude.app.results.answers import Answer, answers_of
from etude.app.results.values import Values
from etude.base.errors import ConfigError
from etude.base.files import json_or_empty
from etude.tasks.task_type import TOKENIZERS


@final
@dataclass(frozen=True)
class Member:
    """A run, and what it has answered."""

    name: str
    folder: Path
    answers: Sequence[Answer]
    """A row a sample, in the order that all members share."""

    @property
    def labels(self) -> Sequence[str] | None:
        """The labels in the order of its scores; None of a run that keeps none."""
        kept = (json_or_empty(path) for path in sorted((self.folder / TOKENIZERS).glob("*.json")))
        return next(filter(None, map(_labels, kept)), None)

    @property
    def thresholds(self) -> float | Mapping[str, float] | None:
        """From which probability on it predicts a label, as its config says."""
        match Values.of(self.name, self.folder)("task.thresholds"):
            case (float() | dict()) as found:
                return found
        return None


def _labels(kept: Mapping[str, Any]) -> Sequence[str] | None:
    """The names of labels in what a run keeps to be used without its data."""
    match kept.get("targets", kept):
        case {"kind": "label" | "labels", "names": [*found]} | {"labels": [*found], "counts": [*_]}:
            return list(map(str, found))
    return None


@final
@dataclass(frozen=True)
class Joined:
    """Several runs, with the samples that all of them have answered."""

    members: Sequence[Member]
    without: Sequence[str]
    """Runs that have saved no outputs of the split."""
    left_out: int
    """Samples that only some of them have."""

    def column(self, name: str) -> list[Any]:
        """What the first run has under a name."""
        return [answer.get(name) for answer in self.members[0].answers]


def joined(places: Sequence[str | Path], split: str, best: int | None) -> Joined:
    """The outputs of a split, of runs or of all runs in folders; of the best alone, if their number is given.

    Raises StorageError where there are no runs, ConfigError where none has saved outputs, the best are not known, or a
    sample has not the same target everywhere.
    """
    found = folders(places)
    called = names(found)
    chosen = found if best is None else _best(found, best)
    answered = {folder: answers_of(folder, split) for folder in chosen}
    kept = {folder: rows for folder, rows in answered.items() if rows}
    if not kept:
        raise ConfigError(
            f"{_listed([called[one] for one in chosen])} saved no outputs of {split}: train with train.save_outputs = "
            f'"{split}"{", or run etude test" if split == "test" else ""}.'
        )
    shared = reduce(_in_both, (list(rows) for rows in kept.values()))
    everything = set().union(*kept.values())
    members = [Member(called[folder], folder, [rows[one] for one in shared]) for folder, rows in kept.items()]
    for member in members[1:]:
        _refuse_other_data(members[0], member)
    if not shared:
        raise ConfigError("The saved outputs have no sample in common.")
    without = [called[folder] for folder in chosen if folder not in kept]
    return Joined(members, without, len(everything) - len(shared))


def _in_both(first: list[object], second: list[object]) -> list[object]:
    inside = set(second)
    return [sample for sample in first if sample in inside]


def _best(found: Sequence[Path], count: int) -> list[Path]:
    """The best of runs by the metric that they monitor."""
    runs = [Values.of(folder.name, folder) for folder in found]
    judged = {(run.summary.monitor, run.mode) for run in runs}
    if len(judged) > 1 or any(run.mode is None for run in runs):
        told = ", ".join(sorted({run.summary.monitor for run in runs}))
        raise ConfigError(f"--best ranks runs by the metric that they all monitor, but these monitor {told}.")
    return [run.folder for run in sorted(runs, key=Values.merit)[:count]]


def _refuse_other_data(first: Member, other: Member) -> None:
    for one, two in zip(first.answers, other.answers, strict=True):
        if one.get("target") != two.get("target"):
            raise ConfigError(
                f"The saved outputs are of other data: sample {one.get('sample')} has another target in "
                f"{first.name} than in {other.name}."
            )


def _listed(names_: Sequence[str]) -> str:
    more = f" and {len(names_) - 1} more" if len(names_) > 1 else ""
    return f"{names_[0]}{more}"

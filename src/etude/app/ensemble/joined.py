"""The saved outputs of several runs for the same samples of a split, in one order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import filterfalse
from operator import attrgetter, itemgetter
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
    answered = dict(zip(chosen, map(partial(_answers, split), chosen), strict=True))
    kept = dict(filter(itemgetter(1), answered.items()))
    without = list(map(called.__getitem__, filterfalse(kept.__contains__, chosen)))
    if not kept:
        raise ConfigError(_lacking(without, split))
    shared = reduce(_in_both, map(list, kept.values()))
    if not shared:
        raise ConfigError("The saved outputs have no sample in common.")
    members = [Member(called[folder], folder, list(map(rows.__getitem__, shared))) for folder, rows in kept.items()]
    for member in members[1:]:
        _refuse_other_data(members[0], member)
    return Joined(members, without, len(set().union(*kept.values())) - len(shared))


def _answers(split: str, run: Path) -> Mapping[object, Answer]:
    return answers_of(run, split) or {}


def _lacking(runs: Sequence[str], split: str) -> str:
    """A sentence about runs that have saved nothing of a split."""
    test = ", or run etude test" if split == "test" else ""
    return f'{_listed(runs)} saved no outputs of {split}: train with train.save_outputs = "{split}"{test}.'


def _in_both(first: list[object], second: list[object]) -> list[object]:
    return list(filter(set(second).__contains__, first))


def _best(found: Sequence[Path], count: int) -> list[Path]:
    """The best of runs by the metric that they monitor."""
    runs = sorted(map(Values.of, map(str, found), found), key=Values.merit)
    judged = set(map(attrgetter("summary.monitor", "mode"), runs))
    if len(judged) > 1 or runs[0].mode is None:
        told = ", ".join(sorted(set(map(itemgetter(0), judged))))
        raise ConfigError(f"--best ranks runs by the metric that they all monitor, but these monitor {told}.")
    return list(map(attrgetter("folder"), runs[:count]))


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

"""Which changes a run can take at a step, and what then begins anew."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from etude.app.runs.changes import Change, governing, shown
from etude.base.durations import Duration
from etude.base.errors import RefusedError

DRIVING = ("schedule", "monitor", "mode")
"""The keys of a schedule that follows validations after whose change its memory is of something else."""
RATE = {"lr": "learning_rate"}


def judge(changes: Sequence[Change], *, at_an_epochs_end: bool, at: Duration) -> None:
    """Raise RefusedError, a sentence for each change that cannot be taken."""
    problems, refused = [], set()
    for change in sorted(changes, key=lambda change: not change.key.endswith(".type")):
        section = change.key.partition(".")[0]
        if section in refused:
            continue  # another type brings other keys
        if change.meaning.shared == "never":
            refused.add(section)
            problems.append(f"{_told(change)}, but {change.meaning.why}: a fork cannot change it, a new run can.")
        elif change.meaning.shared == "epoch" and not at_an_epochs_end:
            problems.append(
                f"{_told(change)}, but an epoch keeps the data and batches that it began with: give --at in "
                f"whole epochs instead of {at}."
            )
    if problems:
        raise RefusedError("\n".join(problems))


def judge_weights(before: Mapping[str, Tensor], after: Mapping[str, Tensor], changes: Sequence[Change]) -> None:
    """Raise RefusedError where the changed network has no place for the weights of the parent's."""
    told = "; ".join(_told(change) for change in governing("weights", changes))
    for name in dict.fromkeys([*before, *after]):
        old, new = _shape(before, name), _shape(after, name)
        if old != new:
            raise RefusedError(
                f"{told}, but the weights of the parent do not fit: {name} would be {new or 'gone'} instead of "
                f"{old or 'not there'}. A fork keeps every weight's name and shape."
            )


def begins_anew(part: str, changes: Sequence[Change], *, other_validation: bool) -> bool:
    """Whether a part of State that the parent has too remembers what no longer holds."""
    if part == "stopping":
        return other_validation or bool(governing("stopping", changes))
    word = part.rpartition(" ")[2]
    return part.startswith("schedule ") and any(_drives(change.key, RATE.get(word, word)) for change in changes)


def _drives(key: str, value: str) -> bool:
    """Whether a key says what the schedule of a value follows."""
    named = key.split(".")
    return named[-1] in DRIVING and value in named


def _told(change: Change) -> str:
    return f"{change.key} was {shown(change.old)} and would be {shown(change.new)}"


def _shape(weights: Mapping[str, Tensor], name: str) -> list[int] | None:
    return list(weights[name].shape) if name in weights else None

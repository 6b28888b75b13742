"""Which changes a run can take at a step, and what then begins anew."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from etude.app.runs.changes import Change, is_below, shown
from etude.base.durations import Duration
from etude.base.errors import RefusedError

NEVER = {
    "task.type": "the weights belong to the task they were trained for",
    "tokenizer": "the weights belong to the tokens they were trained on",
    "optimizer.type": "an optimizer cannot go on from the state of another kind",
    "optimizer.amsgrad": "the optimizer's state does not fit it",
    "init": "weights are initialised before the first step alone",
}
"""Keys, or whole sections, that no run can change on its way, and why."""

AT_AN_EPOCHS_END = (
    "data",
    "run.seed",
    "train.batch_size",
    "train.batch_tokens",
    "train.limit_train",
    "train.overfit",
    "train.tbptt_steps",
)
"""What an epoch's batches are made from: an epoch that was begun with one ends with it."""
AT_ANY_STEP = ("data.val", "data.test", "data.workers")
"""Of these, what training takes no batch from."""

SHAPING = ("model", "task", "loss")
"""Sections that may give the network other weights."""

JUDGING = ("train.monitor", "train.mode", "data.val", "train.limit_val", "train.overfit", "loss.type")
"""What the best validation so far was measured by."""
DRIVING = ("schedule", "monitor", "mode")
"""The keys of a schedule that follows validations after whose change its memory is of something else."""
RATE = {"lr": "learning_rate"}


def judge(changes: Sequence[Change], *, at_an_epochs_end: bool, at: Duration) -> None:
    """Raise RefusedError, a sentence for each change that cannot be taken."""
    problems, refused = [], set()
    for key, old, new in sorted(changes, key=lambda change: not change[0].endswith(".type")):
        section = key.partition(".")[0]
        place = next((place for place in NEVER if is_below(key, [place])), None)
        if section in refused:
            continue  # another type brings other keys
        if place is not None:
            refused.add(section)
            problems.append(f"{_told(key, old, new)}, but {NEVER[place]}: a fork cannot change it, a new run can.")
        elif is_below(key, AT_AN_EPOCHS_END) and not is_below(key, AT_ANY_STEP) and not at_an_epochs_end:
            problems.append(
                f"{_told(key, old, new)}, but an epoch ends with the data and batches that it began with: give --at in "
                f"whole epochs instead of {at}."
            )
    if problems:
        raise RefusedError("\n".join(problems))


def judge_weights(before: Mapping[str, Tensor], after: Mapping[str, Tensor], changes: Sequence[Change]) -> None:
    """Raise RefusedError where the changed network has no place for the weights of the parent's."""
    names = [name for name in dict.fromkeys([*before, *after]) if _shape(before, name) != _shape(after, name)]
    if not names:
        return
    told = "; ".join(_told(*change) for change in changes if is_below(change[0], SHAPING))
    name = names[0]
    raise RefusedError(
        f"{told}, but the weights of the parent do not fit: {name} would be {_shape(after, name) or 'gone'} instead of "
        f"{_shape(before, name) or 'not there'}. A fork keeps every weight's name and shape."
    )


def begins_anew(part: str, changes: Sequence[Change], *, other_validation: bool) -> bool:
    """Whether a part of State that the parent has too remembers what no longer holds."""
    keys = [key for key, _, _ in changes]
    if part == "stopping":
        return other_validation or any(is_below(key, JUDGING) for key in keys)
    if not part.startswith("schedule "):
        return False
    word = part.rpartition(" ")[2]
    parts = [key.split(".") for key in keys if key.rpartition(".")[2] in DRIVING]
    return any(RATE.get(word, word) in named for named in parts)


def _told(key: str, old: Any, new: Any) -> str:
    return f"{key} was {shown(old)} and would be {shown(new)}"


def _shape(weights: Mapping[str, Tensor], name: str) -> list[int] | None:
    return list(weights[name].shape) if name in weights else None

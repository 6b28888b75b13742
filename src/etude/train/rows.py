"""What a log line holds."""

from collections.abc import Mapping, Sequence

from etude.base.progress import Progress
from etude.train.optim.slot import Slot
from etude.train.step.outcome import Outcome
from etude.train.step.terms import TOTAL
from etude.train.values import Values
from etude.train.watch.metrics import prefixed
from etude.train.watch.record import Row


def head(progress: Progress) -> Row:
    """What every line begins with."""
    return {"step": progress.step, "epoch": round(progress.epochs, 6), "tokens": progress.tokens}


def step_row(outcome: Outcome, scalars: Mapping[str, float], slots: Sequence[Slot], values: Values) -> Row:
    """The step's own loss and terms, what the task logged, the gradient's norm, and every scheduled value."""
    row: Row = {prefixed("train", name): value for name, value in scalars.items()}
    row |= _of_outcome(outcome)
    row |= _learning_rates(slots)
    for given in [*(slot.scheduled() for slot in slots), values.row()]:
        row |= {f"train/{name}": value for name, value in given.items()}
    return row


def _learning_rates(slots: Sequence[Slot]) -> Row:
    if len(slots) == 1:
        return {"train/learning_rate": slots[0].learning_rate}
    return {f"train/learning_rate/{slot.name}": slot.learning_rate for slot in slots}


def _of_outcome(outcome: Outcome) -> Row:
    """Losses and norms; nothing where no optimizer computed a loss in this step, or it had no targets."""
    if outcome.empty or not outcome.terms:
        return {}
    row: Row = {"train/loss": outcome.loss}
    for name, (total, count, _) in outcome.terms.items():
        if name != TOTAL and float(count):
            row[f"train/{name}"] = float(total) / float(count)
    row["train/grad_norm"] = float(outcome.grad_norm)
    return row | {f"train/grad_norm/{name}": float(norm) for name, norm in outcome.norms.items()}

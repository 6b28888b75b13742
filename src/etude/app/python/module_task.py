"""A plain `nn.Module` and a loss, as a task."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.callbacks.columns import interpreted
from etude.data.feeds.batches import PairBatch
from etude.model.loss import Loss
from etude.train.task import StepOutput, Task

TARGETS = "targets"
LOSS = "loss."
"""What the names of a loss's own parameters begin with in the state."""
_NARROW = (torch.float16, torch.bfloat16)


class ModuleTask(Task):
    """A module trained on `(inputs, targets)`, or on mappings of its arguments plus `targets`.

    With `teacher_forcing` a batch is `(source, target)`: the decoder gets `target[:, :-1]`, the loss
    `target[:, 1:]`. Its state is the module's own, under the module's names. Label smoothing is for training only.
    The loss is computed in float32, whatever the precision of the forward pass.
    """

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor | Loss], *, teacher_forcing: bool = False) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.plain_loss = _unsmoothed(loss)
        self.teacher_forcing = teacher_forcing

    def training_step(self, batch: Any) -> Any:
        """The loss of a batch."""
        logits, targets = self._run(batch)
        return self.loss(_wide(logits), targets)

    def validation_step(self, batch: Any) -> Any:
        """The loss of a batch, without label smoothing."""
        logits, targets = self._run(batch)
        return StepOutput(self.plain_loss(_wide(logits), targets), outputs=logits)

    def predict_step(self, batch: Any) -> Any:
        """The module's output."""
        if isinstance(batch, Mapping):
            return self.model(**{name: value for name, value in batch.items() if name != TARGETS})
        return self.model(batch[0] if isinstance(batch, (tuple, list)) else batch)

    def output_columns(self, batch: Any, outputs: Any) -> Mapping[str, Any]:
        """For saved outputs: targets, predictions, scores of classes, and the loss of each sample."""
        if isinstance(batch, PairBatch):
            batch = (batch.source, batch.target)
        target: Any = batch[TARGETS] if isinstance(batch, Mapping) else batch[1]
        if self.teacher_forcing:
            target = target[:, 1:]
        found = {"target": target, **interpreted(outputs, target)}
        if isinstance(outputs, Tensor) and isinstance(target, Tensor):
            found["loss"] = [self._of_one(outputs[i : i + 1], target[i : i + 1]) for i in range(len(outputs))]
        return found

    def _of_one(self, logits: Tensor, target: Tensor) -> float:
        value = self.plain_loss(_wide(logits), target)
        terms = value.values() if isinstance(value, Mapping) else [value]
        return sum(float(term.value) * term.weight if isinstance(term, Loss) else float(term) for term in terms)

    def _run(self, batch: Any) -> tuple[Any, Any]:
        if isinstance(batch, PairBatch):
            batch = (batch.source, batch.target)
        if isinstance(batch, Mapping):
            if self.teacher_forcing:
                raise ConfigError("With teacher_forcing a batch must be (source, target), but is a mapping.")
            if TARGETS not in batch:
                raise ConfigError(f"A mapping given as batch needs the key {TARGETS!r}; it has {', '.join(batch)}.")
            return self.predict_step(batch), batch[TARGETS]
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:  # noqa: PLR2004 - inputs and targets
            raise ConfigError(
                f"A batch must be (inputs, targets) or a mapping with {TARGETS!r}, but is {_shown(batch)}; write an "
                f"etude.Task for any other."
            )
        inputs, targets = batch
        if self.teacher_forcing:
            return self.model(inputs, targets[:, :-1]), targets[:, 1:]
        return self.model(inputs), targets

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The module's state, and the loss's own where it has parameters to learn."""
        state = self.model.state_dict(*args, **kwargs)
        if _learns(self.loss):
            kept = kwargs.get("keep_vars", False)
            state.update(self.loss.state_dict(prefix=LOSS, keep_vars=kept))
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Give the module, and the loss where it learns, their state."""
        own = dict(state_dict)
        if _learns(self.loss):
            learnt = {name: own.pop(name) for name in state_dict if name.startswith(LOSS)}
            self.loss.load_state_dict({name.removeprefix(LOSS): value for name, value in learnt.items()})
        return self.model.load_state_dict(own, *args, **kwargs)


def _learns(loss: Any) -> TypeGuard[nn.Module]:
    return isinstance(loss, nn.Module) and any(True for _ in loss.parameters())


def _wide(logits: Any) -> Any:
    return logits.float() if isinstance(logits, Tensor) and logits.dtype in _NARROW else logits


def _unsmoothed(loss: Any) -> Any:
    if callable(getattr(loss, "plain", None)):
        return loss.plain()
    if not getattr(loss, "label_smoothing", 0.0):
        return loss
    plain = copy.copy(loss)
    plain.label_smoothing = 0.0
    return plain


def _shown(batch: Any) -> str:
    several = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    return f"a {type(batch).__name__}{several}"

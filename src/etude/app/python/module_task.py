"""A plain `nn.Module` and a loss, as a task."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard, final

import numpy as np
import torch
from torch import Tensor, nn

from etude.app.python.samples import as_tensor
from etude.base.errors import ConfigError
from etude.callbacks.columns import interpreted
from etude.data.feeds.batches import PairBatch
from etude.model.loss import Loss, Mean
from etude.model.losses.torchs import Called, LossFunction, LossValue, plain
from etude.train.task import StepOutput, Task

TARGETS = "targets"
LOSS = "loss."
"""What the names of a loss's own parameters begin with in the state."""


@final
class ModuleTask(Task):
    """A module trained on `(inputs, targets)`, or on mappings of its arguments plus `targets`.

    With `teacher_forcing` a batch is `(source, target)`: the decoder gets `target[:, :-1]`, the loss
    `target[:, 1:]`. Its state is the module's own, under the module's names. Label smoothing is for training only.
    A loss of torch's counts as it divides, and takes logits [B, T, V] for targets [B, T].
    The loss is computed in float32, whatever the precision of the forward pass.
    """

    def __init__(self, model: nn.Module, loss: LossFunction, *, teacher_forcing: bool = False) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.plain_loss = plain(loss)
        self._called = Called(self.loss)
        self._called_plain = Called(self.plain_loss)
        self.teacher_forcing = teacher_forcing
        self.training = model.training  # a module that is in eval mode as a whole is trained as a whole

    # -- steps -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: object) -> LossValue:
        """The loss of a batch."""
        logits, targets = self._run(batch)
        return self._called(_wide(logits), targets)

    def validation_step(self, batch: object) -> StepOutput:
        """The loss of a batch, without label smoothing."""
        logits, targets = self._run(batch)
        return StepOutput(self._called_plain(_wide(logits), targets), outputs=logits)

    def predict_step(self, batch: object) -> Any:
        """The module's output."""
        match batch:
            case Mapping():
                return self.model(**{name: value for name, value in batch.items() if name != TARGETS})
            case tuple() | list():
                return self._output(self._read(batch[0]))
        return self.model(self._read(batch))

    def _run(self, batch: object) -> tuple[object, object]:
        """The module's output for a batch, and the targets that it is compared with."""
        match batch:
            case PairBatch():
                return self._run_pair(batch.source, batch.target)
            case Mapping():
                return self._run_mapping(batch)
            case tuple() | list() if len(batch) == 2:  # noqa: PLR2004 - inputs and targets
                return self._run_pair(*batch)
        raise ConfigError(
            f"A batch must be (inputs, targets) or a mapping with {TARGETS!r}, but is {_shown(batch)}; several "
            f"inputs are ((a, b), targets), and an etude.Task takes any other."
        )

    def _run_pair(self, inputs: object, targets: Any) -> tuple[object, object]:
        inputs, targets = self._read(inputs), self._read(targets)
        if self.teacher_forcing:
            return self.model(inputs, targets[:, :-1]), targets[:, 1:]
        return self._output(inputs), targets

    def _output(self, inputs: object) -> object:
        """The module's output for inputs; several are its arguments where it takes as many, and no single one."""
        match inputs:
            case tuple() | list() if takes(self.model, len(inputs)) and not takes(self.model, 1):
                return self.model(*inputs)
        return self.model(inputs)

    def _read(self, part: object) -> Any:
        """A part of a batch, with tensors for the arrays of numpy."""
        match part:
            case np.ndarray():
                return as_tensor(part).to(next(self.parameters()).device)
            case tuple() | list():
                return type(part)(map(self._read, part)) if not hasattr(part, "_fields") else part
        return part

    def _run_mapping(self, batch: Mapping[str, object]) -> tuple[object, object]:
        if self.teacher_forcing:
            raise ConfigError("With teacher_forcing a batch must be (source, target), but is a mapping.")
        if TARGETS not in batch:
            raise ConfigError(f"A mapping given as batch needs the key {TARGETS!r}; it has {', '.join(batch)}.")
        return self.predict_step(batch), batch[TARGETS]

    # -- saved outputs -----------------------------------------------------------------------------------------------

    def output_columns(self, batch: object, outputs: object) -> dict[str, object]:
        """For saved outputs: targets, predictions, scores of classes, and the loss of each sample."""
        target = self._targets(batch)
        found = {"target": target, **interpreted(outputs, target)}
        match outputs, target:
            case Tensor() as logits, Tensor() as targets:
                found["loss"] = self._of_each(logits, targets)
        return found

    def _targets(self, batch: object) -> object:
        """The targets of a batch that `_run` took."""
        targets: Any = None
        match batch:
            case PairBatch(target=targets) | (_, targets) | {"targets": targets}:
                pass
        return targets[:, 1:] if self.teacher_forcing else targets

    def _of_each(self, logits: Tensor, targets: Tensor) -> list[float]:
        """The loss of each sample."""
        samples = range(len(logits))
        losses = (self._called_plain(_wide(logits[i : i + 1]), targets[i : i + 1]) for i in samples)
        return [sum(map(_number, _terms(loss))) for loss in losses]

    # -- memory ------------------------------------------------------------------------------------------------------

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """The module's state, and the loss's own where it has parameters to learn."""
        state = self.model.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        if _learns(self.loss):
            state.update(self.loss.state_dict(prefix=LOSS, keep_vars=keep_vars))
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: FBT001, FBT002 - as torch has it
        """Give the module, and the loss where it learns, their state."""
        own = dict(state_dict)
        if _learns(self.loss):
            learnt = [name for name in state_dict if name.startswith(LOSS)]
            self.loss.load_state_dict({name.removeprefix(LOSS): own.pop(name) for name in learnt})
        return self.model.load_state_dict(own, strict=strict, assign=assign)


def takes(model: nn.Module, count: int) -> bool:
    """Whether a module can be called with so many arguments."""
    try:
        inspect.signature(model.forward).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def as_task(model: object, loss: object, *, teacher_forcing: bool) -> Task:
    """What `etude.fit` trains: a task as it is, any other module with its loss."""
    match model:
        case Task() if loss is not None or teacher_forcing:
            raise ConfigError(f"{type(model).__name__} is a task, which knows its loss; leave out what etude.fit adds.")
        case Task():
            return model
        case nn.Module() if callable(loss):
            return ModuleTask(model, loss, teacher_forcing=teacher_forcing)
        case nn.Module():
            raise ConfigError(
                "etude.fit needs a loss: etude.losses.CrossEntropy(), or any function of (logits, targets)."
            )
    raise ConfigError(f"etude.fit needs a torch.nn.Module, but got a {type(model).__name__}.")


def _learns(loss: object) -> TypeGuard[nn.Module]:
    return isinstance(loss, nn.Module) and next(loss.parameters(), None) is not None


def _wide(logits: object) -> object:
    match logits:
        case Tensor(dtype=torch.float16 | torch.bfloat16):
            return logits.float()
    return logits


def _terms(value: LossValue) -> Collection[Tensor | Loss | Mean]:
    """What a loss adds up."""
    match value:
        case Mapping():
            return value.values()
    return [value]


def _number(term: Tensor | Loss | Mean) -> float:
    match term:
        case Loss() | Mean():
            return float(term.value) * term.weight
    return float(term)


def _shown(batch: object) -> str:
    match batch:
        case tuple() | list():
            return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"

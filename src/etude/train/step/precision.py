"""The number format of the forward pass."""

from contextlib import AbstractContextManager, nullcontext

import torch

from etude.train.device import has_bfloat16

AUTO, PLAIN = "auto", "float32"
_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """The number format of the forward pass; master weights and losses stay float32."""

    def __init__(self, name: str, device: torch.device) -> None:
        if name == AUTO:
            name = "bfloat16" if has_bfloat16(device) else PLAIN
        self.name = name
        self._device = device
        self._type = _TYPES.get(name)
        self._scaler = torch.amp.GradScaler(device.type) if name == "float16" else None

    @property
    def dtype(self) -> torch.dtype:
        """What products are computed in."""
        return self._type or torch.float32

    def forward(self) -> AbstractContextManager[object]:
        """A context for one forward pass."""
        if self._type is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._type)

    def __str__(self) -> str:
        """Say it as a sentence does: `float32 on cpu`."""
        return f"{self.name} on {self._device}"

    def told(self, *, validates: bool) -> str:
        """What a run computes in, as a sentence; its validation, where that computes otherwise."""
        return f"Training computes in {self}{self.judged(validates=validates)}."

    def judged(self, *, validates: bool) -> str:
        """What validation computes in, as the end of a sentence; nothing where there is none, or that computes alike.

        >>> Precision("bfloat16", torch.device("cpu")).judged(validates=True)
        ', validation in float32'
        """
        name = self.for_evaluation().name
        return f", validation in {name}" if validates and name != self.name else ""

    def for_evaluation(self, asked: str = AUTO) -> "Precision":
        """What a validation, a test or a prediction of a run of this precision computes in: what it asks for itself.

        One that asks for nothing computes in float32 on a CPU, and as training does on an accelerator.
        """
        if asked == AUTO:
            asked = PLAIN if self._device.type == "cpu" else self.name
        return Precision(asked, self._device)

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to differentiate: scaled up where the format is narrow."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the gradients back to their true size."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer, *, finite: bool) -> None:
        """Step, or skip where the gradients are not finite (and lower the scale that made them overflow)."""
        if self._scaler is None:
            if finite:
                # The quick way is not for an optimizer that somebody listens to.
                quick = None if optimizer._optimizer_step_post_hooks else getattr(optimizer, "advance", None)  # noqa: SLF001
                (quick or optimizer.step)()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()

    @property
    def is_scaled(self) -> bool:
        """Whether losses are scaled up, so that a gradient may overflow by that alone."""
        return self._scaler is not None and float(self._scaler.get_scale()) > 1

    def rescale(self) -> None:
        """Take up what the gradients of a step, taken by the task itself, say about the scale."""
        if self._scaler is not None:
            self._scaler.update()

    def state_dict(self) -> dict[str, float]:
        """The scaler's state; nothing where there is none."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from `state_dict()`."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)

"""Running statistics: what a forward changes without an optimizer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_TOO_NARROW_TO_COUNT = {torch.bool, torch.uint8, torch.int8}
"""Types of masks and of quantised weights, which may be large and are not counted up."""


class _Buffer:
    """A buffer of a module: the tensor that it is before a step, and the values in it."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._all = module._buffers  # noqa: SLF001 - there is no public way to a buffer that another may be put in place of
        self._name = name
        self._tensor: Tensor | None = None
        self._values = torch.empty(0)
        self._version = 0

    def keep(self) -> None:
        """Remember the tensor and its values."""
        before, self._tensor = self._tensor, self._all[self._name]
        if self._tensor is None or self._tensor.dtype in _TOO_NARROW_TO_COUNT:
            return
        self._version = self._tensor._version  # noqa: SLF001 - torch's own count of what was written to it
        if self._tensor is before:
            self._values.copy_(self._tensor)
        else:
            self._values = self._tensor.clone()

    def restore(self) -> None:
        """Bring back the tensor and its values."""
        self._all[self._name] = self._tensor
        if self._tensor is not None and self._tensor.dtype not in _TOO_NARROW_TO_COUNT:
            self._tensor.copy_(self._values)

    def has_changed(self) -> bool:
        """Whether it holds numbers, and was written to or replaced since."""
        now = self._all[self._name]
        if now is None or not now.is_floating_point():
            return False
        return now is not self._tensor or now._version != self._version  # noqa: SLF001 - as above

    def now(self) -> Tensor:
        """The tensor as it is."""
        tensor = self._all[self._name]
        return torch.empty(0) if tensor is None else tensor


class Running:
    """Keeps the buffers of a module as they were before a step, so that one that is skipped leaves no trace.

    They are those of normalisation layers and any others, in which a module of the user's keeps a running mean or a
    count. Memory: their size once more.
    """

    def __init__(self, module: nn.Module) -> None:
        self._buffers = [_Buffer(part, name) for part in module.modules() for name in part._buffers]  # noqa: SLF001 - those that are None too

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the present ones."""
        for buffer in self._buffers:
            buffer.keep()

    @torch.no_grad()
    def restore(self) -> None:
        """Bring back what was kept."""
        for buffer in self._buffers:
            buffer.restore()

    def changed(self) -> list[bool]:
        """Of each buffer, whether it holds numbers that are other ones than were kept."""
        return [buffer.has_changed() for buffer in self._buffers]

    def floating(self, chosen: Sequence[bool]) -> list[Tensor]:
        """The buffers that are chosen, as they are now."""
        return [buffer.now() for buffer, is_chosen in zip(self._buffers, chosen, strict=True) if is_chosen]

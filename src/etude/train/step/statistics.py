"""Running statistics of normalisation layers: what a forward changes without an optimizer."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def _is_tracked(layer: nn.Module) -> bool:
    return isinstance(layer, _NormBase) and layer.track_running_stats


class Running:
    """Keeps the running statistics as they were before a step, so that one that is skipped leaves no trace."""

    def __init__(self, module: nn.Module) -> None:
        self._layers = list(filter(_is_tracked, module.modules()))
        self._kept = [[buffer.detach().clone() for buffer in layer.buffers()] for layer in self._layers]

    def keep(self) -> None:
        """Remember the present ones."""
        for layer, kept in zip(self._layers, self._kept, strict=True):
            for old, buffer in zip(kept, layer.buffers(), strict=True):
                old.copy_(buffer)

    def restore(self) -> None:
        """Bring back what was kept."""
        for layer, kept in zip(self._layers, self._kept, strict=True):
            for old, buffer in zip(kept, layer.buffers(), strict=True):
                buffer.copy_(old)

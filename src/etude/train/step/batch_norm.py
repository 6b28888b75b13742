"""The running statistics of batch normalisation, computed anew for weights that were not trained to them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - torch has no public base of its batch norms
RUNNING = ("running_mean", "running_var")


def has_statistics(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights hold running statistics."""
    return any(name.rpartition(".")[2] in RUNNING for name in weights)


def renew_statistics(module: nn.Module, batches: Iterable[object], step: Callable[[object], object]) -> int:
    """Let the statistics be the means over `batches`, each given to `step` without gradients; how many batches were.

    Modules compute in the mode that they are in, and layers in eval mode keep their statistics. That is what
    `torch.optim.swa_utils.update_bn` does (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better
    Generalization", section 3.2).
    """
    layers = [part for part in module.modules() if isinstance(part, BatchNorm) and part.training]
    count = 0
    with _cumulative(layers), torch.no_grad():
        for batch in batches:
            step(batch)
            count += 1
    return count


@contextmanager
def _cumulative(layers: list[BatchNorm]) -> Iterator[None]:
    """Forget the statistics, and let each batch inside the block count the same."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

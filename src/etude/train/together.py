"""What ranks do with their weights and numbers between steps: read, compare, average."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from etude.train.averaging import not_finite
from etude.train.step.ranks import Among
from etude.train.watch.metrics import ScalarLog
from etude.train.world import World


def read(scalars: ScalarLog, world: World) -> dict[str, float]:
    """The mean of each scalar over all ranks."""
    whole = ScalarLog()
    for sums in world.gather(scalars.mark()):
        whole.take_in(sums)
    return whole.read()


def average(
    world: World, task: nn.Module, averaged: Mapping[str, Tensor] | None, optimizers: Mapping[str, Any]
) -> None:
    """Let weights, their moving average and what optimizers remember be the mean over the ranks, in place."""
    tensors = [*task.parameters(), *(averaged or {}).values()]
    for slot in optimizers.values():
        tensors += [value for kept in slot["state"].values() for value in kept.values() if _is_floating(value)]
    once = list({tensor.data_ptr(): tensor.detach() for tensor in tensors}.values())
    world.add_up(once)
    torch._foreach_div_(once, world.size)


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0


def difference(among: Among, task: nn.Module) -> str | None:
    """The name of the first weight that another rank has otherwise, and which rank; None where all are alike."""
    if among.sharding.is_sharded or among.world.size == 1:
        return None
    named = dict(task.named_parameters())
    first, *others = among.world.gather([hashed(weight) for weight in named.values()])
    for rank, hashes in enumerate(others, start=1):
        for name, own, other in zip(named, first, hashes, strict=True):
            if own != other:
                return f"rank {rank} has another {name} than rank 0"
    return None


def hashed(weight: Tensor) -> int:
    """What tells the bits of a tensor from others."""
    if not weight.numel():
        return 0
    numbers = torch.view_as_real(weight) if weight.is_complex() else weight
    return int(torch.hash_tensor(numbers.detach()).view(torch.int64))


def broken(among: Among, task: nn.Module) -> str | None:
    """The name of the first weight that is trained and not finite, on any rank; None where all are."""
    own = not_finite(task)
    return among.world.agree(own) if among.sharding.is_sharded else own

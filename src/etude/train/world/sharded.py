"""Weights sharded over the ranks by torch's FSDP2.

A parameter, its gradient and the optimizer's state are split along their first dimension, and a layer is gathered for
as long as it computes. What is stored is always whole, so that a checkpoint does not depend on it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast, final

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from etude.train.world.sharding import layers_of

Nest = TypeVar("Nest")
STEPS = ("training_step",)
"""Methods of a task that compute with its weights, as a module's forward does."""


@final
class Sharded:
    """Each rank holds a part of every parameter; all that is asked of this is asked by all ranks."""

    is_sharded = True

    def __init__(self, task: nn.Module, size: int, narrow: torch.dtype | None) -> None:
        """Shard `task`, which lies on its device; `narrow` is the type that layers are gathered and computed in."""
        device = next(task.parameters()).device
        self._task = task
        mesh = init_device_mesh(device.type, (size,))
        kind = type(task)
        policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32 if narrow else None)
        for layer in layers_of(task):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(task, mesh=mesh)
        self._modules = [module for module in task.modules() if isinstance(module, FSDPModule)]
        for module in self._modules:
            module.set_gradient_divide_factor(1.0)  # sums, which are scaled by what all ranks have counted
            module.set_force_sum_reduction_for_comms(True)  # as plain sums, which gloo can do
        for step in STEPS:
            register_fsdp_forward_method(task, step)
        # It is still what it was, whatever torch calls it.
        type(task).__name__, type(task).__qualname__ = kind.__name__, kind.__qualname__
        type(task).__module__ = kind.__module__

    def reduces(self, *, now: bool) -> None:
        """Let the next backward pass add up gradients over the ranks, or leave that to a later one."""
        for module in self._modules:
            module.set_requires_gradient_sync(now, recurse=False)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Let every rank hold all weights inside the block, where it computes without the others."""
        for module in self._modules:
            module.set_reshard_after_forward(reshard_after_forward=False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in self._modules:
                module.reshard()
                module.set_reshard_after_forward(reshard_after_forward=module is not self._task, recurse=False)

    def whole(self, nest: Nest) -> Nest:
        """The same mappings and lists with whole tensors, in this rank's memory on the CPU where they were sharded."""
        return cast("Nest", _mapped(nest, _gathered))

    def parted(self, value: Tensor, like: Tensor) -> Tensor:
        """This rank's part of a whole tensor, as `like` is parted; itself where that is not."""
        if not isinstance(like, DTensor) or value.shape != like.shape:
            return value
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _gathered(value: Tensor) -> Tensor:
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _mapped(nest: Any, act: Callable[[Tensor], Tensor]) -> Any:
    match nest:
        case Tensor():
            return act(nest)
        case Mapping():
            return {key: _mapped(value, act) for key, value in nest.items()}
        case list():
            return [_mapped(value, act) for value in nest]
        case tuple():
            return tuple(_mapped(value, act) for value in nest)
    return nest

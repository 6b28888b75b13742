"""Weights sharded over the ranks by torch's FSDP2.

A parameter, its gradient and the optimizer's state are split along their first dimension, and a layer is gathered for
as long as it computes. What is stored is always whole, so that a checkpoint does not depend on it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from etude.train.world.gathering import handed_out
from etude.train.world.protocol import World
from etude.train.world.sharding import Handed, Key, layers_of

STEPS = ("training_step",)
"""Methods of a task that compute with its weights, as a module's forward does."""


@final
class Sharded:
    """Each rank holds a part of every parameter; all that is asked of this is asked by all ranks."""

    is_sharded = True

    def __init__(self, task: nn.Module, world: World, narrow: torch.dtype | None) -> None:
        """Shard `task`, which lies on its device; `narrow` is the type that layers are gathered and computed in."""
        device = next(task.parameters()).device
        self._task = task
        self._world = world
        mesh = init_device_mesh(device.type, (world.size,))
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
        # Else the first module to compute, were it a layer of a validation before any step, would take itself for all.
        cast("Any", self._task)._get_fsdp_state()._lazy_init()  # noqa: SLF001
        for module in self._modules:
            module.set_reshard_after_forward(reshard_after_forward=False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in self._modules:
                module.reshard()
                module.set_reshard_after_forward(reshard_after_forward=module is not self._task, recurse=False)

    def handed_out(self, tensors: Mapping[Key, Tensor], count: int) -> Handed:
        """Those of some tensors that are sharded, each whole on one of the first `count` ranks, balanced by bytes."""
        return handed_out(self._world, tensors, count)

    def parted(self, value: Tensor, like: Tensor) -> Tensor:
        """This rank's part of a whole tensor, as `like` is parted; itself where that is not."""
        if not isinstance(like, DTensor) or value.shape != like.shape:
            return value.clone()  # it may lie in a mapped file
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

"""Weights sharded over the ranks by torch's FSDP2.

A parameter, its gradient and the optimizer's state are split along their first dimension, and a layer is gathered for
as long as it computes. What is stored is always whole, so that a checkpoint does not depend on it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar, cast, final

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from etude.train.world.before import Before
from etude.train.world.gathering import handed_out
from etude.train.world.protocol import World
from etude.train.world.sharding import Handed, Key, layers_of

T = TypeVar("T")
STEPS = ("training_step",)
"""Methods of a task that compute with its weights, as a module's forward does."""


@final
class Sharded:
    """Each rank holds a part of every parameter; all that is asked of this is asked by all ranks."""

    def __init__(self, world: World, device: torch.device, narrow: torch.dtype | None) -> None:
        """Of tasks that lie on `device`; `narrow` is the type that layers are gathered and computed in."""
        self.is_sharded = True
        self._world = world
        self._device = device
        self._policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32 if narrow else None)
        self._modules: list[FSDPModule] = []
        """The task, which is the first, and its layers."""
        self._before: Before | None = None

    @cached_property
    def _mesh(self) -> DeviceMesh:
        return init_device_mesh(self._device.type, (self._world.size,))

    def shard(self, task: nn.Module) -> None:
        """Let each rank hold a part of every weight of a task that is whole on all of them, unless it is the end."""
        if not self.is_sharded:
            return
        self._before, kind = Before(task), type(task)
        for layer in layers_of(task):
            layer.register_forward_hook(_without_views)
            fully_shard(layer, mesh=self._mesh, mp_policy=self._policy)
        fully_shard(task, mesh=self._mesh)
        self._modules = [module for module in task.modules() if isinstance(module, FSDPModule)]
        for module in self._modules:
            module.set_gradient_divide_factor(1.0)  # sums, which are scaled by what all ranks have counted
            module.set_force_sum_reduction_for_comms(True)  # as plain sums, which gloo can do
        for step in STEPS:
            register_fsdp_forward_method(task, step)
        # Else the first module to compute, were it a layer of a validation before any step, would take itself for all.
        cast("Any", task)._get_fsdp_state()._lazy_init()  # noqa: SLF001
        # It is still what it was, whatever torch calls it.
        type(task).__name__, type(task).__qualname__ = kind.__name__, kind.__qualname__
        type(task).__module__ = kind.__module__
        self._before.sharded()

    def unshard(self) -> None:
        """Let every rank hold all weights of the task again, as before it was sharded."""
        for module in self._modules:
            module.reshard()
        if self._before is not None:
            self._before.restore(_whole)
        self._before, self._modules = None, []

    def end(self) -> None:
        """Let every rank hold all weights from here on."""
        self.unshard()
        self.is_sharded = False

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
            for number, module in enumerate(self._modules):
                module.reshard()
                _forget_order(module)
                module.set_reshard_after_forward(reshard_after_forward=number > 0, recurse=False)

    def handed_out(self, tensors: Mapping[Key, Tensor], count: int) -> Handed:
        """Those of some tensors that are sharded, each whole on one of the first `count` ranks, balanced by bytes."""
        return handed_out(self._world, tensors, count)

    def whole(self, nest: T) -> T:
        """A nest of tensors of which each rank has a part, whole and on the CPU; one that is there twice stays one."""
        found: dict[Tensor, Tensor] = {}

        def take(tensor: Tensor) -> Tensor:
            if tensor not in found:
                found[tensor] = _whole(tensor).cpu()
            return found[tensor]

        return cast("T", tree_map_only(Tensor, take, nest))

    def parted(self, value: Tensor, like: Tensor) -> Tensor:
        """This rank's part of a whole tensor, as `like` is parted; itself where that is not."""
        if not isinstance(like, DTensor) or value.shape != like.shape:
            return value.clone()  # it may lie in a mapped file
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _forget_order(module: FSDPModule) -> None:
    """Let what was computed so far, by each rank something else, not tell what a backward pass gathers ahead."""
    state = cast("Any", module)._get_fsdp_state()  # noqa: SLF001
    state._comm_ctx.post_forward_order.clear()  # noqa: SLF001
    if state._fsdp_param_group is not None:  # noqa: SLF001
        state._fsdp_param_group._post_forward_indices.clear()  # noqa: SLF001


def _without_views(_layer: nn.Module, _inputs: object, outputs: object) -> object:
    """What a layer gives, no part of which is a view, as an LSTM's is: torch loses sight of one that is changed."""
    return tree_map_only(Tensor, _as_its_own, outputs)


def _as_its_own(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.requires_grad and tensor._is_view() else tensor  # noqa: SLF001


def _whole(tensor: Tensor) -> Tensor:
    """A tensor on its device, of which each rank had a part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

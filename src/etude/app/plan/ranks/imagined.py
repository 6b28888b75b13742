"""Tensors without numbers, and the memory that they would take.

Inside the mode, tensors of floating point have a shape, a type and a storage of the size that they would have, but no
numbers: a model of any size can be built, and take a step, in the memory of its batch. Whole numbers are real, so that
lengths, masks and indices are what they are in training. Every storage that an operator gives is counted until it is
freed, so that what is seen is what the allocator would hold, without what a kernel needs while it runs.
"""

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from etude.app.plan.ranks.operators import ANSWERS, BY_PLACES, MADE, WORKSPACES, places_of
from etude.base.errors import ConfigError

DEVICE = torch.ops.prim.device.default


class Kind(Enum):
    """What a storage is for."""

    PARAMETERS = auto()
    GRADIENTS = auto()
    OPTIMIZER = auto()
    AVERAGE = auto()
    BUFFERS = auto()
    OTHER = auto()
    """Activations, and what is needed in passing."""


KEPT = (Kind.PARAMETERS, Kind.OPTIMIZER, Kind.AVERAGE, Kind.BUFFERS)
"""What is there between two steps."""


class Level(NamedTuple):
    """How much gradients and activations take at one moment, in bytes."""

    gradients: int
    other: int


@final
class Imagined(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Lets floating-point tensors be imagined, and counts their memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._live: dict[int, tuple[int, Kind]] = {}
        self._held: Counter[Kind] = Counter()
        self._most: dict[int, int] = {}

    # -- memory --------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Begin to look for the most anew."""
        self._most = {}
        self._look()

    def levels(self) -> list[Level]:
        """The most that there was beside so many bytes of gradients, since it was last forgotten."""
        return [Level(gradients, other) for gradients, other in sorted(self._most.items())]

    def held(self, kind: Kind) -> int:
        """Bytes that are there now."""
        return self._held[kind]

    def mark(self, tensors: Iterable[Tensor | None], kind: Kind) -> None:
        """Let tensors be of a kind, whether they were seen before or not."""
        for tensor in tensors:
            if tensor is not None:
                self._see(tensor)
                key = tensor.untyped_storage()._cdata  # noqa: SLF001 - as above
                size, before = self._live[key]
                self._live[key] = size, kind
                self._held[before] -= size
                self._held[kind] += size
        self._look()

    def _see(self, tensor: Tensor) -> None:
        """Count the storage of a tensor, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001 - what tells one storage from another
        if key not in self._live:
            self._live[key] = storage.nbytes(), Kind.OTHER
            self._held[Kind.OTHER] += storage.nbytes()
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        size, kind = self._live.pop(key)
        self._held[kind] -= size

    def _look(self) -> None:
        gradients = self._held[Kind.GRADIENTS]
        self._most[gradients] = max(self._most.get(gradients, 0), self._held[Kind.OTHER])

    # -- operators -----------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do what an operator does to whole numbers, and give what it would give for others."""
        del types
        if func is DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # asked for many times a step
        out = self._given(func, args, kwargs or {})
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        self._look()
        return out

    def _given(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        imagined = [tensor for tensor in given if isinstance(tensor, FakeTensor)]
        if imagined and func in ANSWERS:
            return ANSWERS[func](*args)
        if not imagined and (_are_whole(given) if given else self._makes_whole(func, args, kwargs)):
            return self._without_numbers(func(*args, **kwargs))
        if func in MADE:
            with self._fake:
                return MADE[func](*args)
        if func in BY_PLACES:
            args = (args[0], places_of(args[1]), *args[2:])
        with self._fake:
            out = func(*args, **kwargs)
            return WORKSPACES[func](out, args) if func in WORKSPACES else out

    def _makes_whole(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether an operator without tensors makes whole numbers."""
        with self._fake:
            return _are_whole(tree_leaves(func(*args, **kwargs)))

    def _without_numbers(self, out: Any) -> Any:
        """What was made of whole numbers, imagined where it is not whole itself."""

        def forgotten(tensor: Tensor) -> Tensor:
            return self._fake.from_tensor(tensor) if tensor.is_floating_point() else tensor

        return tree_map_only(Tensor, forgotten, out)

    def emptied(self, module: nn.Module) -> None:
        """Let the parameters and buffers of a module be imagined; what two names share they share still."""
        done: dict[int, Tensor] = {}
        for part in module.modules():
            for tensors in (part._parameters, part._buffers):  # noqa: SLF001 - as torch's own `_apply` does
                for name, tensor in tensors.items():
                    if tensor is not None:
                        done.setdefault(id(tensor), self._emptied(tensor))
                        tensors[name] = done[id(tensor)]  # type: ignore[assignment]

    def _emptied(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor) or not tensor.is_floating_point():
            return tensor
        with self._fake:
            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _are_whole(given: Iterable[object]) -> bool:
    """Whether tensors hold whole numbers, or truths, alone."""
    tensors = [one for one in given if isinstance(one, Tensor)]
    return not any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors)


def cannot(error: Exception) -> ConfigError:
    """Say that a step cannot be imagined."""
    told = " ".join(str(error).split())[:300]
    return ConfigError(
        f"The memory of a step cannot be planned: this task computes with numbers that a plan does not have "
        f"({type(error).__name__}: {told}). etude check measures a step in its place."
    )

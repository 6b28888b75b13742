"""What a task was before it was sharded, and how it comes to be that again."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, final

from torch import Tensor, nn
from torch.distributed._composable_state import _module_state_mapping

Names = Mapping[str, frozenset[object]]
"""The attributes of a module by name, and of those that are mappings, such as hooks, the keys."""
Place = tuple[nn.Module, str]
"""A module, and the name under which it has a parameter."""


class _Was(NamedTuple):
    """A module, and what it was."""

    module: nn.Module
    kind: type
    names: Names


@final
class Before:
    """A task as it was when this was made; what sharding then adds to its modules can be taken away from them again.

    Torch has no way back from `fully_shard`. What it adds is what a module has more right after it than right before:
    attributes, hooks, a class. What comes to be there later is somebody else's, and stays.
    """

    def __init__(self, task: nn.Module) -> None:
        self._modules = [_Was(module, type(module), _names(module)) for module in task.modules()]
        self._parameters = _parameters(task)
        self._sharded: Sequence[Names] = ()

    def sharded(self) -> None:
        """Note what the modules have come to be, and let go of the whole weights, whose parts are copies."""
        self._sharded = [_names(was.module) for was in self._modules]
        for parameter in self._parameters:
            parameter.data, parameter.grad = parameter.data.new_empty(0), None

    def restore(self, whole: Callable[[Tensor], Tensor]) -> None:
        """Let the task be what it was, with the weights that it has now; `whole` makes each of a rank's part."""
        for parameter, places in self._parameters.items():
            part = places[0][0].get_parameter(places[0][1])
            parameter.data = whole(part.detach()).clone()  # what was gathered may be longer, by padding
            parameter.requires_grad_(part.requires_grad)
            for module, name in places:
                setattr(module, name, parameter)
        for was, names in zip(self._modules, self._sharded, strict=True):
            was.module.__class__ = was.kind
            _take_away(vars(was.module), was.names, names)
            _module_state_mapping.pop(was.module, None)


def _names(module: nn.Module) -> Names:
    return {name: frozenset(value) if isinstance(value, dict) else frozenset() for name, value in vars(module).items()}


def _take_away(held: dict[str, dict[object, object]], before: Names, after: Names) -> None:
    """Remove from the attributes of a module, and from the mappings among them, what was there `after` alone."""
    for name in after.keys() - before.keys():
        held.pop(name, None)
    for name in after.keys() & before.keys():
        for key in after[name] - before[name]:
            held[name].pop(key, None)


def _parameters(task: nn.Module) -> dict[nn.Parameter, list[Place]]:
    """Each parameter, and all places where it is registered."""
    found: dict[nn.Parameter, list[Place]] = {}
    for module in task.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            found.setdefault(parameter, []).append((module, name))
    return found

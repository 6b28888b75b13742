"""`torch.compile` for the modules of a task, in place: parameters keep their names."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import nn


def compile_task(task: nn.Module, say: Callable[[str], None]) -> None:
    """Compile each module that the task holds, and the methods that a module names in `compiled_methods`.

    Lengths are dynamic from the beginning, so that batches of new shapes are not compiled anew. A module without
    children (a single layer) is left as it is where there are others: it has little to gain. What was compiled before
    is forgotten: the compiler makes a few versions of one method, for all tasks together, and leaves further ones as
    they are, so that the bits of a network that grows would hang on how often the run was started.
    """
    torch.compiler.reset()
    for part in task.modules():
        _leave_alone(part)
    chosen = _worth_it(task)
    with warnings.catch_warnings():
        # The compiler's own modules use a name of torch's that is deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        for child in chosen:
            _compile(child)
    told = ", ".join(type(child).__name__ for child in chosen) or "nothing: the task holds no module"
    say(f"torch.compile compiles {told}; the first steps and the first validation wait for it.")


def _worth_it(task: nn.Module) -> list[nn.Module]:
    """The modules of a task that hold parameters: those with modules of their own, if there are any."""
    holding = list(filter(_holds_parameters, task.children()))
    return list(filter(_holds_modules, holding)) or holding


def _holds_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _holds_modules(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _leave_alone(part: object) -> None:
    """Keep from the compiler what a module says that it should not see."""
    match part:
        case object(uncompiled_methods=[*names]):
            for name in names:
                _replace(part, name, torch.compiler.disable)


def _compile(module: nn.Module) -> None:
    """Compile a module: its `forward`, or the methods that it names."""
    named: object = module
    match named:
        case object(compiled_methods=[_, *_] as names):
            for name in names:
                _replace(module, name, partial(torch.compile, dynamic=True))
        case _:
            module.compile(dynamic=True)


def _replace(module: object, name: str, by: Callable[[Callable[..., object]], object]) -> None:
    """Let a method of one module be another; the class keeps its own."""
    object.__setattr__(module, name, by(getattr(module, name)))

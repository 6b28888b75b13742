"""`torch.compile` for the modules of a task, in place: parameters keep their names."""

import warnings
from collections.abc import Callable

import torch
from torch import nn

LEFT = "uncompiled_methods"
"""Where a module names what of it the compiler leaves alone."""
METHODS = "compiled_methods"
"""Where a module names what is called of it besides `forward`."""


def compile_task(task: nn.Module, say: Callable[[str], None]) -> None:
    """Compile each module that the task holds, and the methods that a module names in `compiled_methods`.

    Lengths are dynamic from the beginning, so that batches of new shapes are not compiled anew. A module without
    children (a single layer) is left as it is where there are others: it has little to gain.
    """
    for part in task.modules():
        _leave_alone(part)
    children = [child for child in task.children() if any(True for _ in child.parameters())]
    chosen = [child for child in children if any(True for _ in child.children())] or children
    with warnings.catch_warnings():
        # The compiler's own modules use a name of torch's that is deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        for child in chosen:
            _compile(child)
    told = ", ".join(type(child).__name__ for child in chosen) or "nothing: the task holds no module"
    say(f"torch.compile compiles {told}; the first steps and the first validation wait for it.")


def _leave_alone(part: nn.Module) -> None:
    """Keep from the compiler what a module says that it should not see."""
    for name in getattr(part, LEFT, ()):
        object.__setattr__(part, name, torch.compiler.disable(getattr(part, name)))  # type: ignore[no-untyped-call]


def _compile(module: nn.Module) -> None:
    """Compile a module: its `forward`, or the methods that it names."""
    names = getattr(module, METHODS, ())
    if not names:
        module.compile(dynamic=True)
    for name in names:
        object.__setattr__(module, name, torch.compile(getattr(module, name), dynamic=True))

"""Adam and AdamW, fused, without the bookkeeping that torch repeats at every step.

torch's optimizers collect parameters, gradients and moments into lists, and sort them by device and type, anew at
each step; for a small model that costs more than the arithmetic. Here the lists of a group are made once. The
arithmetic is torch's own fused kernel, so the weights are those of `torch.optim.AdamW(fused=True)` to the bit.
"""

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor


class _Lists:
    """What the kernel takes of one group."""

    def __init__(self, optimizer: torch.optim.Adam, group: dict[str, Any]) -> None:
        self.parameters: list[Tensor] = list(group["params"])
        states = [optimizer.state[parameter] for parameter in self.parameters]
        self.first = list(map(itemgetter("exp_avg"), states))
        self.second = list(map(itemgetter("exp_avg_sq"), states))
        self.largest = list(map(itemgetter("max_exp_avg_sq"), states)) if group["amsgrad"] else []
        # All parameters of a group have taken the same steps: one counter stands for all.
        self.counter: Tensor = states[0]["step"]
        for state in states:
            state["step"] = self.counter
        self.counters = [self.counter] * len(states)
        self.kernel: Callable[..., Any] = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_


def _without_compiler(method: Callable[..., object]) -> Any:
    """A method of torch's Optimizer without the wrapper that imports the compiler, which takes a second."""
    return vars(method).get("__wrapped__", method)


class _Quick(torch.optim.Adam):
    """The shared part: `advance` is a step without hooks, taken by the loop."""

    _lists: list[_Lists] | None = None
    grad_scale: Tensor | None = None
    """Set by torch's scaler for the time of a step, as `found_inf` is."""
    found_inf: Tensor | None = None
    add_param_group = _without_compiler(torch.optim.Optimizer.add_param_group)
    state_dict = _without_compiler(torch.optim.Optimizer.state_dict)
    zero_grad = _without_compiler(torch.optim.Optimizer.zero_grad)

    def advance(self) -> None:
        """Take a step; one without all gradients is torch's own."""
        lists = self._lists if self._lists is not None else self._gather()
        if lists is None or self.grad_scale is not None:
            self._ordinary()
            return
        gradients = [[p.grad for p in group.parameters] for group in lists]
        if any(grad is None for grads in gradients for grad in grads):
            self._lists = None
            self._ordinary()
            return
        found = self.found_inf
        for group, options, grads in zip(lists, self.param_groups, gradients, strict=True):
            group.counter.add_(1)
            beta1, beta2 = options["betas"]
            group.kernel(
                group.parameters,
                grads,
                group.first,
                group.second,
                group.largest,
                group.counters,
                amsgrad=options["amsgrad"],
                lr=options["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=options["weight_decay"],
                eps=options["eps"],
                maximize=options["maximize"],
                grad_scale=None,
                found_inf=found,
            )
            if found is not None:
                group.counter.sub_(found)

    def _ordinary(self) -> None:
        # Counters that were shared are counted by torch for each parameter.
        for state in filter(None, self.state.values()):
            state["step"] = state["step"].clone()
        self._lists = None
        self.step()

    def _gather(self) -> list[_Lists] | None:
        """Make the lists, if in every group all parameters have gradients and have taken the same steps."""
        if any(p.grad is None for group in self.param_groups for p in group["params"]):
            return None
        if not all(map(self._is_in_step, self.param_groups)):
            return None
        self._lists = [_Lists(self, group) for group in self.param_groups]
        return self._lists

    def _is_in_step(self, group: dict[str, Any]) -> bool:
        """Whether all parameters of a group have taken the same steps; missing state is made."""
        self._init_group(group, [], [], [], [], [], [])  # type: ignore[no-untyped-call]  # what torch's step begins with
        steps = {float(self.state[parameter]["step"]) for parameter in group["params"]}
        return len(steps) == 1 and not group["differentiable"]

    def load_state_dict(self, state_dict: object) -> None:
        """Go on from `state_dict()`."""
        _without_compiler(torch.optim.Optimizer.load_state_dict)(self, state_dict)
        self._lists = None


class QuickAdam(_Quick):
    """`torch.optim.Adam(fused=True)`."""


class QuickAdamW(_Quick):
    """`torch.optim.AdamW(fused=True)`."""

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, decoupled_weight_decay=True, **options)

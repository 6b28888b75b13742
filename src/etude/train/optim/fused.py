"""Adam and AdamW, fused, without the bookkeeping that torch repeats at every step.

torch's optimizers collect parameters, gradients and moments into lists, and sort them by device and type, anew at
each step; for a small model that costs more than the arithmetic. Here the lists of a group are made once. The
arithmetic is torch's own fused kernel, so the weights are those of `torch.optim.AdamW(fused=True)` to the bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Lists:
    """What the kernel takes of one group."""

    def __init__(self, optimizer: torch.optim.Adam, group: dict[str, Any]) -> None:
        self.parameters: list[Tensor] = list(group["params"])
        states = [optimizer.state[parameter] for parameter in self.parameters]
        self.first = [state["exp_avg"] for state in states]
        self.second = [state["exp_avg_sq"] for state in states]
        self.largest = [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else []
        # All parameters of a group have taken the same steps: one counter stands for all.
        self.counter: Tensor = states[0]["step"]
        for state in states:
            state["step"] = self.counter
        self.counters = [self.counter] * len(states)
        self.kernel: Callable[..., Any] = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_


class _Quick(torch.optim.Adam):
    """The shared part: `advance` is a step without hooks, taken by the loop."""

    _lists: list[_Lists] | None = None

    def advance(self) -> None:
        """Take a step; the first, and one without all gradients, are torch's own."""
        lists = self._lists
        if lists is None or getattr(self, "grad_scale", None) is not None:
            self._ordinary()
            return
        gradients = [[p.grad for p in group.parameters] for group in lists]
        if any(grad is None for grads in gradients for grad in grads):
            self._lists = None
            self._ordinary()
            return
        found = getattr(self, "found_inf", None)
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
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter)
                if state:
                    state["step"] = state["step"].clone()
        self.step()
        self._gather()

    def _gather(self) -> None:
        """Keep the lists of every group whose parameters have all taken the same steps."""
        for group in self.param_groups:
            states = [self.state.get(parameter) for parameter in group["params"]]
            if group["differentiable"] or not all(states) or len({float(s["step"]) for s in states if s}) != 1:
                return
        self._lists = [_Lists(self, group) for group in self.param_groups]

    def load_state_dict(self, state_dict: Any) -> None:
        """Go on from `state_dict()`."""
        super().load_state_dict(state_dict)
        self._lists = None


class QuickAdam(_Quick):
    """`torch.optim.Adam(fused=True)`."""


class QuickAdamW(_Quick):
    """`torch.optim.AdamW(fused=True)`."""

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, decoupled_weight_decay=True, **options)

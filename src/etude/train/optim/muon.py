"""Muon for the hidden matrices, AdamW for everything else, as one optimizer."""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import filterfalse
from typing import Any

import torch
from torch import Tensor, nn

from etude.train.device import has_bfloat16


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) on matrices, AdamW on the rest.

    A group with `muon = True` holds matrices and is stepped by `torch.optim.Muon`, its update scaled to the size of
    AdamW's (Liu et al. 2025, arXiv 2502.16982) so that both share one learning rate; the others by AdamW. torch
    orthogonalises in bfloat16; a device that emulates it does so in float32, which is some thirty times as fast there.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, object]],
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        groups = [dict(group) for group in groups]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        matrices = list(map(_without_flag, filter(_is_of_matrices, self.param_groups)))
        others = list(map(_without_flag, filterfalse(_is_of_matrices, self.param_groups)))
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            quick = has_bfloat16(matrices[0]["params"][0].device)
            self._parts.append(
                (torch.optim.Muon if quick else Float32Muon)(
                    matrices, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
                )
            )
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps))
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Step both parts."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of both parts, parameters numbered through."""
        packed: dict[str, Any] = {"state": {}, "param_groups": []}
        offset = 0
        for part in self._parts:
            own = part.state_dict()
            packed["state"].update({index + offset: value for index, value in own["state"].items()})
            packed["param_groups"] += _all_moved(own["param_groups"], offset)
            offset += _parameters_in(own["param_groups"])
        return packed

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        offset = first = 0
        for part in self._parts:
            groups = state_dict["param_groups"][first : first + len(part.param_groups)]
            count = _parameters_in(groups)
            own = range(offset, offset + count)
            state = {index - offset: value for index, value in state_dict["state"].items() if index in own}
            part.load_state_dict({"state": state, "param_groups": _all_moved(groups, -offset)})
            offset += count
            first += len(groups)
        self._share_groups()


class Float32Muon(torch.optim.Muon):
    """torch's Muon, with Nesterov momentum and AdamW's scale, whose updates are orthogonalised in float32."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step all matrices that have a gradient; a closure is called by the whole that this is a part of."""
        del closure
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._step(matrix, matrix.grad, group)

    def _step(self, matrix: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state, rate, momentum = self.state[matrix], float(group["lr"]), group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        update = gradient.lerp(state["momentum_buffer"], momentum).float()
        update = orthogonal(update, group["ns_coefficients"], steps=group["ns_steps"], eps=group["eps"])
        matrix.mul_(1 - rate * group["weight_decay"])
        matrix.add_(update, alpha=-0.2 * rate * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], *, steps: int, eps: float) -> Tensor:
    """The nearest orthogonal matrix, nearly, by Newton-Schulz iterations [n, m]: singular values near 1."""
    tall = matrix.size(0) > matrix.size(1)
    found = matrix.T if tall else matrix
    found = found / found.norm().clamp(min=eps)
    first, second, third = coefficients
    for _ in range(steps):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=second, alpha=third), found, beta=first)
    return found.T if tall else found


def _is_of_matrices(group: Mapping[str, object]) -> bool:
    return bool(group.get("muon"))


def _parameters_in(groups: Iterable[Mapping[str, Any]]) -> int:
    """How many parameters groups have."""
    return sum(len(group["params"]) for group in groups)


def _all_moved(groups: Iterable[Mapping[str, Any]], by: int) -> list[dict[str, Any]]:
    """Packed groups whose parameters have other numbers."""
    return [{**group, "params": [index + by for index in group["params"]]} for group in groups]


def _without_flag(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "muon"}


def is_hidden_matrix(name: str, parameter: nn.Parameter, embeddings: set[nn.Parameter]) -> bool:
    """Whether Muon is meant for it: a matrix that is neither an embedding nor the output layer."""
    return parameter.ndim == 2 and parameter not in embeddings and "output" not in name.split(".")  # noqa: PLR2004

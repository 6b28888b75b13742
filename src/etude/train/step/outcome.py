"""What one step gave: the terms of its loss, the norm of its gradient, and whether they were finite."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, sqrt
from operator import itemgetter

import torch
from torch import Tensor

from etude.train.step.terms import TOTAL, Term, inverse

Totals = dict[str, tuple[float | Tensor, float | Tensor, float]]
"""By name: sum, count, weight."""


@dataclass
class Outcome:
    """What one optimizer's turn gave, or a whole step of one optimizer; tensors stay on the device until read."""

    terms: Totals = field(default_factory=dict)
    """By name: sum, count, weight."""
    targets: dict[str, float | Tensor] = field(default_factory=dict)
    """By name: the number of targets, which is the count unless they have weights."""
    grad_norm: float | Tensor = 0.0
    """Global norm before clipping."""
    finite: bool = True
    overflowed: bool = False
    """Whether only the scale of a narrow number format, which is lowered now, made the gradient overflow."""
    empty: bool = False
    """Whether no target of its batches counts, as far as the host knows: there is nothing to take a step by."""

    without_targets: int = 0
    """Batches in which no target counts."""
    counted: list[bool] = field(default_factory=list)
    """Of each batch, whether a target of it counts."""

    @property
    def moves(self) -> bool:
        """Whether the step is to be taken."""
        return self.finite and not self.empty

    @property
    def _counts(self) -> list[float | Tensor]:
        return list(map(itemgetter(1), self.terms.values()))

    def judge(self, *, read: bool = False) -> None:
        """Find out whether any target counts, as far as counts lie on the host, or by reading them."""
        if read or not any(map(_is_unread, self._counts)):
            self.empty = not any(map(float, self._counts))

    def leaving_out(self, norm: Tensor) -> Tensor:
        """The norm of a gradient, or infinity, by which a device leaves a step out, where counts there are 0."""
        return torch.where(sum(self._counts) != 0, norm, inf) if all(map(_is_unread, self._counts)) else norm  # type: ignore[arg-type]

    def note(self, terms: Sequence[Term]) -> None:
        """Count a batch in which no target counts, as far as the host knows."""
        self.counted.append(any(map(_has_targets, terms)))
        self.without_targets += not self.counted[-1]

    def add(self, term: Term, total: float | Tensor) -> None:
        """Add one batch's term; `total` is its sum, detached."""
        known = self.terms.get(term.name)
        self.terms[term.name] = (
            (total, term.count, term.weight)
            if known is None
            else (known[0] + total, known[1] + term.count, term.weight)
        )
        own = term.count if term.targets is None else term.targets
        self.targets[term.name] = self.targets.get(term.name, 0) + own

    def clear(self) -> None:
        """Begin anew."""
        self.terms.clear()
        self.targets.clear()
        self.counted.clear()
        self.without_targets = 0

    @property
    def loss(self) -> float:
        """The step's own loss: every term over its count, weighted and added (syncs on an accelerator)."""
        return sum(float(total) * float(inverse(count)) * weight for total, count, weight in self.terms.values())

    @property
    def unread_loss(self) -> float | Tensor:
        """The same without a sync: on an accelerator a tensor there, in its own precision."""
        return sum(total * inverse(count) * weight for total, count, weight in self.terms.values())

    @property
    def factors(self) -> dict[str, float | Tensor]:
        """By term: its weight over its count."""
        return {name: weight * inverse(count) for name, (_, count, weight) in self.terms.items()}

    @property
    def tokens(self) -> float | Tensor:
        """Targets counted by the first term."""
        return next(iter(self.targets.values()), 0)

    @property
    def norms(self) -> Mapping[str, float | Tensor]:
        """The gradient's norm by optimizer, where there are several."""
        return {}


def _is_unread(count: object) -> bool:
    return isinstance(count, Tensor)


def _has_targets(term: Term) -> bool:
    return _is_unread(term.count) or bool(term.count)


class Round(Outcome):
    """A step of several optimizers.

    Terms that two of them share are told apart by the optimizer's name: `loss/generator` and `loss/critic`. Its loss
    is the sum over the optimizers, its norm that of all their gradients together.
    """

    def __init__(self, turns: Mapping[str, Outcome]) -> None:
        super().__init__(
            terms=_told_apart(turns),
            finite=all(turn.finite for turn in turns.values()),
            overflowed=any(turn.overflowed for turn in turns.values()),
            empty=all(turn.empty for turn in turns.values()),
            without_targets=max(turn.without_targets for turn in turns.values()),
        )
        self._turns = {name: turn for name, turn in turns.items() if turn.terms}
        squares = sum(turn.grad_norm**2 for turn in self._turns.values())
        self.grad_norm = squares.sqrt() if isinstance(squares, Tensor) else sqrt(squares)

    @property
    def tokens(self) -> float | Tensor:
        """Targets of the batches, counted once, by the first optimizer that computed a loss."""
        return next((turn.tokens for turn in self._turns.values()), 0)

    @property
    def norms(self) -> Mapping[str, float | Tensor]:
        """The gradient's norm by optimizer; of those that computed one."""
        return {name: turn.grad_norm for name, turn in self._turns.items()}


def _told_apart(turns: Mapping[str, Outcome]) -> Totals:
    """The terms of all optimizers; the name of one that several have, and that of the total, gets the optimizer's."""
    names = Counter(name for turn in turns.values() for name in turn.terms)
    shared = {TOTAL, *(name for name, times in names.items() if times > 1)}
    found: Totals = {}
    for optimizer, turn in turns.items():
        for name, term in turn.terms.items():
            found[f"{name}/{optimizer}" if name in shared else name] = term
    return found

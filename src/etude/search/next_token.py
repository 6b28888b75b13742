"""The choice of the next token.

Legend: R rows, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, slots=True)
class Options:
    """How the next token is chosen, and when a text ends."""

    max_tokens: int = 256
    """Tokens that a sample has at most."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token."""
    top_k: int | None = None
    """Only the so many likeliest tokens (Fan et al. 2018)."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Only tokens at least so many times as likely as the likeliest (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Positive logits of tokens that were there already are divided by it, negative ones multiplied (Keskar et al.
    2019)."""
    stop: tuple[str, ...] = ()
    """A sample ends before the first of these texts."""
    samples: int = 1
    """Samples of each prompt."""
    seed: int = 1
    """Sample s of prompt p draws from (seed, p, s) alone."""
    eos: int | None = None
    """The token that ends a text."""
    banned: tuple[int, ...] = ()
    """Tokens that are never chosen."""


@final
class Choice:
    """Chooses the next token of every row; `rows` are the tokens that are there when it begins."""

    def __init__(self, options: Options, rows: Sequence[Sequence[int]], logits_RV: Tensor) -> None:
        self._options = options
        self._banned = torch.tensor(options.banned, dtype=torch.int64, device=logits_RV.device)
        self._seen: Tensor | None = None
        if options.repetition_penalty != 1.0:
            self._seen = torch.zeros(logits_RV.shape, dtype=torch.bool, device=logits_RV.device)
            for number, tokens in enumerate(rows):
                self._seen[number, list(tokens)] = True

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""
        if self._seen is not None:
            self._seen = self._seen[list(rows)]

    def __call__(self, logits_RV: Tensor, draws: Sequence[Callable[[], float]]) -> tuple[list[int], list[float]]:
        """The token of each row, and its log-probability under the model as it is.

        `draws` give each row's next random number in [0, 1), where one is needed.
        """
        exact_RV = logits_RV.float()
        logs_RV = exact_RV.log_softmax(-1)
        adjusted_RV = self._adjusted(exact_RV)
        if self._options.temperature == 0:
            chosen_R = adjusted_RV.argmax(-1)
        else:
            draws_R = torch.tensor([draw() for draw in draws], dtype=torch.float64, device=logits_RV.device)
            chosen_R = sampled(adjusted_RV / self._options.temperature, draws_R, self._options)
        if self._seen is not None:
            self._seen[torch.arange(len(chosen_R), device=chosen_R.device), chosen_R] = True
        return chosen_R.tolist(), logs_RV.gather(1, chosen_R[:, None])[:, 0].tolist()

    def _adjusted(self, logits_RV: Tensor) -> Tensor:
        if len(self._banned):
            logits_RV = logits_RV.index_fill(1, self._banned, -torch.inf)
        penalty = self._options.repetition_penalty
        if self._seen is None:
            return logits_RV
        punished = torch.where(logits_RV > 0, logits_RV / penalty, logits_RV * penalty)
        return torch.where(self._seen, punished, logits_RV)


def sampled(logits_RV: Tensor, draws_R: Tensor, options: Options) -> Tensor:
    """The token [R] of each row that its draw in [0, 1) falls on, of those that `options` leave.

    `top_k`, then `top_p`, then `min_p` cut tokens off, each of the probabilities that the one before left; the
    likeliest token always stays. Tokens lie side by side, likeliest first; in their own order where none is cut off.
    """
    chances_RV, tokens_RV = _left(logits_RV.double(), options)
    reached_RV = chances_RV.cumsum(-1)
    places_R1 = torch.searchsorted(reached_RV, draws_R[:, None] * reached_RV[:, -1:], right=True)
    # Rounding may leave a draw just behind the last token that is possible.
    possible_RV = torch.where(chances_RV > 0, torch.arange(chances_RV.size(-1), device=chances_RV.device), 0)
    places_R1 = places_R1.minimum(possible_RV.amax(-1, keepdim=True))
    return (places_R1 if tokens_RV is None else tokens_RV.gather(1, places_R1))[:, 0]


def _left(logits_RV: Tensor, options: Options) -> tuple[Tensor, Tensor | None]:
    """Chances, 0 for what is cut off, and whose they are (None: they are in order)."""
    size = logits_RV.size(-1)
    top = min(options.top_k or size, size)
    if top == size and options.top_p >= 1 and options.min_p <= 0:
        return logits_RV.softmax(-1), None  # to sort a large vocabulary takes as long as a small model's step
    ordered_RV, tokens_RV = logits_RV.topk(top, dim=-1)
    chances_RV = ordered_RV.softmax(-1)
    if options.top_p < 1:
        # A token stays where those before it have not reached top_p.
        chances_RV = chances_RV.masked_fill(chances_RV.cumsum(-1) - chances_RV >= options.top_p, 0.0)
    if options.min_p > 0:
        chances_RV = chances_RV.masked_fill(chances_RV < options.min_p * chances_RV[:, :1], 0.0)
    return chances_RV, tokens_RV

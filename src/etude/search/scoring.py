"""The probability of given text.

Legend: T time, V vocabulary, E width of what logits are made of.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from etude.model.recurrent import Recurrent, State
from etude.search.next_logits import device_of, window_of

STRETCH = 1024
"""Tokens at a time where a text is read as one."""


@torch.no_grad()
def score(model: nn.Module, tokens: Sequence[int]) -> list[float]:
    """The log-probability in nats of each of `tokens` but the first, given those before it.

    A text longer than the model's window is read in stretches of it that overlap by half, so that every token but
    those of the first stretch has at least half a window before it. A recurrent model reads it as one.
    """
    if isinstance(model, Recurrent):
        return _score_carried(model, tokens)
    total = len(tokens) - 1
    window = window_of(model)
    found: list[float] = []
    while len(found) < total:
        start = max(0, len(found) - window // 2) if found else 0
        stretch = torch.tensor([tokens[start : start + window + 1]], device=device_of(model))
        begin = len(found) - start
        found += _of_targets(model(stretch[:, :-1])[0, begin:], stretch[0, begin + 1 :])
    return found


def _score_carried(model: Recurrent, tokens: Sequence[int]) -> list[float]:
    state: State | None = None
    found: list[float] = []
    for start in range(0, len(tokens) - 1, STRETCH):
        stretch = torch.tensor([tokens[start : start + STRETCH + 1]], device=device_of(model))
        hidden_1TE, state = model.hidden(stretch[:, :-1], state)
        found += _of_targets(hidden_1TE[0] @ model.output_weight.T, stretch[0, 1:])
    return found


def _of_targets(logits_TV: Tensor, targets_T: Tensor) -> list[float]:
    logs_TV = logits_TV.float().log_softmax(-1)
    return logs_TV.gather(1, targets_T[:, None])[:, 0].tolist()

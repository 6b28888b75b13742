"""Texts of many lengths, answered in batches of similar ones and handed back in their order.

Shapes: B texts, S the longest of them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from etude.data.files.lines import is_blank
from etude.data.tokens.tokenizers import EOS, PAD, Tokenizer
from etude.tasks.sharing import Places, consecutive

A = TypeVar("A")
Tokens = Sequence[int]


def by_length(
    texts: Sequence[Tokens], batch_size: int, answer: Callable[[list[Tokens]], Sequence[A]], nothing: A
) -> list[A]:
    """Answer texts, `batch_size` of similar length at once, the longest first; `nothing` where there are no tokens."""
    found = [nothing] * len(texts)
    for places in batches_by_length(texts, batch_size):
        for place, one in zip(places, answer([texts[place] for place in places]), strict=True):
            found[place] = one
    return found


def batches_by_length(texts: Sequence[Tokens], batch_size: int) -> list[Places]:
    """The places of texts of similar length, `batch_size` at once, the longest first; none of one without tokens."""
    order = sorted((place for place, tokens in enumerate(texts) if tokens), key=lambda place: -len(texts[place]))
    return consecutive(order, batch_size)


def encoded(tokenizer: Tokenizer, lines: Iterable[str]) -> list[list[int]]:
    """The tokens of lines without their ends; none of one that is blank."""
    return tokenizer.encode_batch(["" if is_blank(line) else line.rstrip("\r\n") for line in lines])


def padded(texts: Iterable[Tokens]) -> Tensor:
    """The tokens of several texts, the end of each and padding, [B, S]."""
    ended = [torch.tensor([*tokens, EOS]) for tokens in texts]
    return nn.utils.rnn.pad_sequence(ended, batch_first=True, padding_value=PAD)

"""Greedy search of a transducer, and what all its searches share: their network, exact probabilities and best ways.

Legend: B sequences, T frames, L labels, U labels and one, V classes, E width, N candidates, R rows that go on.
"""

from collections.abc import Sequence
from typing import Protocol, final

import torch
from torch import Tensor

from etude.model.exact import exact
from etude.model.frames.transducer import Predictor
from etude.model.losses.transducer import Joint, Transducer, transducer_costs
from etude.search.ctc import Label, Prefix, Transcript, padded
from etude.search.readable import readable

NODES = 1 << 15
"""Nodes of lattices at a time: what the joint network's logits are made for at once."""
IMPOSSIBLE = -1e9
"""Stands for the log-probability of what cannot be, where sums of it are subtracted."""


class Head(Protocol):
    """A transducer without its encoder, such as `etude.model.frames.transducer.TransducerHead`."""

    @property
    def blank(self) -> int:
        """The class of the blank."""
        ...

    @property
    def predictor(self) -> Predictor:
        """Sums up what was said."""
        ...

    @property
    def joint(self) -> Joint:
        """Makes the logits."""
        ...


@torch.no_grad()
def greedy(head: Head, encoded_BTE: Tensor, lengths_B: Tensor, *, most: int = 10) -> list[Transcript]:
    """The most probable class at each step, of equal ones the lowest: a blank goes to the next frame.

    After `most` labels a frame is over without a blank. A label has the frame that it was found at; a transcript's
    score is the exact log-probability of its labels, over all ways. A sequence with a frame, or logits, that are not
    numbers counts as one without frames. Raises ValueError where `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"The most labels of a frame must be at least 1, but are {most}.")
    lengths_B = readable(encoded_BTE, lengths_B)
    walk = _Walk(head, encoded_BTE, lengths_B, most)
    while len(walk.rows):
        walk.step()
    labels = walk.labels()
    lengths_B = lengths_B.masked_fill(walk.broken, 0)
    texts = [tuple(one.label for one in found) for found in labels]
    costs = transducer_costs(*lattices(head, encoded_BTE, texts), lengths_B, _sizes(texts, lengths_B)).tolist()
    return [Transcript(found, -cost) for found, cost in zip(labels, costs, strict=True)]


@final
class _Walk:
    """Every sequence at its own frame, so that none waits for what others say."""

    def __init__(self, head: Head, encoded_BTE: Tensor, lengths_B: Tensor, most: int) -> None:
        self._head, self._encoded, self._lengths, self._most = head, encoded_BTE, lengths_B, most
        self.rows = (lengths_B > 0).nonzero()[:, 0]
        """Sequences that go on [R]."""
        self.broken = torch.zeros_like(lengths_B, dtype=torch.bool)
        """Sequences [B] whose logits are not numbers."""
        self._frame_B, self._said_here_B = torch.zeros_like(lengths_B), torch.zeros_like(lengths_B)
        self._said_BE, self._state = head.predictor.start(len(lengths_B), encoded_BTE.device)
        self._found: list[tuple[Tensor, ...]] = []

    def step(self) -> None:
        """One label or one frame of each sequence that goes on."""
        rows = self.rows
        frames = self._frame_B[rows]
        logs_RV = log_probabilities(self._head.joint, self._encoded[rows, frames], self._said_BE[rows])
        best_R = logs_RV.argmax(1)  # argmax promises the first of equal ones
        broken_R = logs_RV.isnan().any(1)
        says_R = (best_R != self._head.blank) & ~broken_R
        self.broken[rows] = broken_R
        self._say(rows[says_R], best_R[says_R], logs_RV[says_R])
        self._said_here_B[rows] += says_R
        over_R = ~says_R | (self._said_here_B[rows] >= self._most)
        self._said_here_B[rows[over_R]] = 0
        self._frame_B[rows] += over_R
        self.rows = rows[(self._frame_B[rows] < self._lengths[rows]) & ~broken_R]

    def _say(self, rows: Tensor, labels: Tensor, logs: Tensor) -> None:
        if not len(rows):
            return
        self._found.append((rows, labels, self._frame_B[rows], logs.gather(1, labels[:, None])[:, 0].exp()))
        said, state = self._head.predictor.step(labels, tuple(part[rows] for part in self._state))
        self._said_BE = self._said_BE.index_copy(0, rows, said)
        pairs = zip(self._state, state, strict=True)
        self._state = tuple(whole.index_copy(0, rows, part) for whole, part in pairs)

    def labels(self) -> list[tuple[Label, ...]]:
        """What each sequence says; nothing where it is broken."""
        found: list[list[Label]] = [[] for _ in self._lengths]
        broken = self.broken.tolist()
        for step in self._found:
            for row, label, frame, share in zip(*(part.tolist() for part in step), strict=True):
                if not broken[row]:
                    found[row].append(Label(label, frame, frame + 1, share))
        return list(map(tuple, found))


def log_probabilities(joint: Joint, encoded_RE: Tensor, said_RE: Tensor) -> Tensor:
    """The log-probabilities [R, V] of one frame and what was said each."""
    return exact(joint(encoded_RE[:, None], said_RE[:, None])[:, 0, 0]).log_softmax(1)


def lattices(head: Head, encoded_NTE: Tensor, texts: Sequence[Prefix]) -> tuple[Tensor, Tensor]:
    """The log-probabilities of the blank and of the next label, at each node of each text [N, T, U], in float64."""
    targets_NL, sizes_N = padded(texts, encoded_NTE.device)
    frames = max(1, NODES // max(1, len(texts) * (targets_NL.size(1) + 1)))
    said_NUE = head.predictor(targets_NL)
    return Transducer(head.blank).moves(head.joint, encoded_NTE, said_NUE, targets_NL, sizes_N, frames=frames)


def _sizes(texts: Sequence[Prefix], like: Tensor) -> Tensor:
    return torch.tensor(list(map(len, texts)), dtype=torch.int64, device=like.device)

"""Greedy and beam search of a transducer, and the exact probability and best way of what they find.

Legend: B sequences, T frames, L labels, U labels and one, V classes, E width, N candidates, R rows that are
asked for at once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

import torch
from torch import Tensor

from etude.model.exact import exact
from etude.model.frames.transducer import Predictor
from etude.model.losses.transducer import Joint, Transducer, transducer_costs
from etude.search.beam import best_first
from etude.search.ctc import Label, Transcript, added, best_by, padded
from etude.search.fusion import Fusion, Gains, Prefix, gains_of
from etude.search.readable import readable

NODES = 1 << 15
"""Nodes of lattices at a time: what the joint network's logits are made for at once."""
IMPOSSIBLE = -1e9
"""Stands for the log-probability of what cannot be, where sums of it are subtracted."""

Costs = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""The negative log-probability of each sequence's labels, by the moves of its lattice and both lengths."""


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
def greedy(
    head: Head, encoded_BTE: Tensor, lengths_B: Tensor, *, most: int = 10, costs: Costs = transducer_costs
) -> list[Transcript]:
    """The most probable class at each step, of equal ones the lowest: a blank goes to the next frame.

    After `most` labels a frame is over without a blank. A label has the frame that it was found at; a transcript's
    score is the exact log-probability of its labels, over all ways, as `costs` has it: with `rna_costs`, for which
    `most` is 1, over those with one label in a frame at most. A sequence with a frame, or logits, that are not numbers
    counts as one without frames. Raises ValueError where `most` is below 1.
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
    found_B = costs(*lattices(head, encoded_BTE, texts), lengths_B, _sizes(texts, lengths_B)).tolist()
    return [_transcript(found, cost) for found, cost in zip(labels, found_B, strict=True)]


def _transcript(labels: tuple[Label, ...], cost: float) -> Transcript:
    """What costs so much; nothing where some of the logits on the way are not numbers."""
    return Transcript((), 0.0) if math.isnan(cost) else Transcript(labels, -cost)


@torch.no_grad()
def beam(
    head: Head,
    encoded_BTE: Tensor,
    lengths_B: Tensor,
    *,
    width: int,
    classes: int = 40,
    most: int = 10,
    fusion: Fusion | None = None,
) -> list[list[Transcript]]:
    """The `width` most probable label sequences of each sequence, best first, by a beam that goes frame by frame.

    At each frame the `width` best prefixes say up to `most` labels more, of the `classes` most probable ones each,
    and ways to the same prefix are summed (Graves 2012, section 2.4, with a limit of labels as Saon et al. 2020).
    What is found, and what `greedy` finds, is then ranked by its exact log-probability and what `fusion` adds, equal
    ones by their labels; so without fusion the best is never below the greedy one. A label's frame is that of the
    best way. Networks are asked for all sequences at once; the rest is Python, width x classes steps a frame or more.
    Takes what `greedy` takes.
    """
    firsts = greedy(head, encoded_BTE, lengths_B, most=most)
    lengths = readable(encoded_BTE, lengths_B).tolist()
    network = _Network(head, encoded_BTE, classes)
    beams = [_Beam(number, width, gains_of(fusion)) for number in range(len(lengths))]
    for time in range(max(lengths, default=0)):
        network.say(time, [one for one in beams if time < lengths[one.number] and one.live], most)
    return [
        _ranked(head, encoded_BTE[one.number, :frames], one, {first.tokens, *one.live})[:width]
        for one, frames, first in zip(beams, lengths, firsts, strict=True)
    ]


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


# -- a beam ----------------------------------------------------------------------------------------------------------


@final
@dataclass(slots=True)
class _Beam:
    """The prefixes of one sequence, with the log-probability of all ways to each that were looked at."""

    number: int
    width: int
    gains: Gains
    live: dict[Prefix, float] = field(default_factory=lambda: {(): 0.0})
    """After the last frame."""
    level: dict[Prefix, float] = field(default_factory=dict)
    """Within a frame: those that as many labels were said of, and that no blank has ended."""
    broken: bool = False
    """Whether its logits are not numbers; then nothing is live."""
    _longer: dict[Prefix, float] = field(default_factory=dict)
    _over: dict[Prefix, float] = field(default_factory=dict)

    def begin(self) -> None:
        """Come to a frame."""
        self.level, self._longer, self._over = self.live, {}, {}
        self.gains.forget()

    def take(self, prefix: Prefix, blank: float, ways: Sequence[tuple[int, float]]) -> None:
        """Go on from a prefix of this level: by a blank, and by labels, with these log-probabilities."""
        mass = self.level[prefix]
        self._over[prefix] = added(self._over.get(prefix, -math.inf), mass + blank)
        for label, log in ways:
            self._longer[*prefix, label] = mass + log

    def deepen(self) -> None:
        """Come to the next level; what is already below the last of a full beam is left."""
        over = sorted((mass + self.gains(prefix) for prefix, mass in self._over.items()), reverse=True)
        floor = -math.inf if len(over) < self.width else over[self.width - 1]
        if self._longer:
            self.gains.prepare(list(self.level))
        self.level = self._best(self._longer, floor)
        self._longer = {}

    def end(self) -> None:
        """Leave the frame."""
        self.live = {} if self.broken else self._best(self._over, -math.inf)

    def _best(self, found: dict[Prefix, float], floor: float) -> dict[Prefix, float]:
        """The best from `floor` on, of equal ones those with the lower labels; none that is impossible."""
        ranked = sorted((-mass - self.gains(prefix), prefix) for prefix, mass in found.items())
        return {prefix: found[prefix] for score, prefix in ranked[: self.width] if score <= -floor and score < math.inf}


Key = tuple[int, Prefix]


@final
class _Network:
    """Asks predictor and joint network for many prefixes of many sequences at once."""

    def __init__(self, head: Head, encoded_BTE: Tensor, classes: int) -> None:
        self._head, self._encoded, self._classes = head, encoded_BTE, classes
        self._said, self._state = head.predictor.start(len(encoded_BTE), encoded_BTE.device)
        self._rows: dict[Key, int] = {(number, ()): number for number in range(len(encoded_BTE))}

    def say(self, time: int, beams: Sequence[_Beam], most: int) -> None:
        """Lead these beams through a frame; one whose logits are not numbers is left empty."""
        asked: dict[Key, None] = {}
        for one in beams:
            one.begin()
        for depth in range(most + 1):
            going = [one for one in beams if one.level]
            if not going:
                break
            keys = [(one, prefix) for one in going for prefix in one.level]
            self._take(time, keys, says=depth < most)
            asked |= dict.fromkeys((one.number, prefix) for one, prefix in keys)
            for one in going:
                one.deepen()
        for one in beams:
            one.end()
        self._keep([*asked])

    def _take(self, time: int, keys: Sequence[tuple[_Beam, Prefix]], *, says: bool) -> None:
        rows = self._rows_of([(one.number, prefix) for one, prefix in keys])
        numbers = torch.tensor([one.number for one, _ in keys], device=rows.device)
        logs_RV = log_probabilities(self._head.joint, self._encoded[numbers, time], self._said[rows])
        broken, blanks = logs_RV.isnan().any(1).tolist(), logs_RV[:, self._head.blank].tolist()
        ways = self._ways(logs_RV) if says else [[]] * len(keys)
        for (one, prefix), blank, way, bad in zip(keys, blanks, ways, broken, strict=True):
            one.broken |= bad
            one.take(prefix, blank, way)

    def _ways(self, logs_RV: Tensor) -> list[list[tuple[int, float]]]:
        """The most probable labels of each row that are possible, with their log-probabilities."""
        logs_RV[:, self._head.blank] = -math.inf
        logs, labels = (part.tolist() for part in best_first(logs_RV, self._classes))
        pairs = (zip(*both, strict=True) for both in zip(labels, logs, strict=True))
        return [[(label, log) for label, log in row if log > -math.inf] for row in pairs]

    def _rows_of(self, keys: Sequence[Key]) -> Tensor:
        """Where what was said stands; predictors take a step for what is new."""
        new = [key for key in keys if key not in self._rows]
        device = self._said.device
        if new:
            parents = torch.tensor([self._rows[number, prefix[:-1]] for number, prefix in new], device=device)
            labels = torch.tensor([prefix[-1] for _, prefix in new], device=device)
            said, state = self._head.predictor.step(labels, tuple(part[parents] for part in self._state))
            self._rows.update((key, row) for row, key in enumerate(new, len(self._said)))
            self._said = torch.cat((self._said, said))
            self._state = tuple(torch.cat(both) for both in zip(self._state, state, strict=True))
        return torch.tensor([self._rows[key] for key in keys], dtype=torch.int64, device=device)

    def _keep(self, keys: Sequence[Key]) -> None:
        """Forget all others."""
        rows = self._rows_of(keys)
        self._said, self._state = self._said[rows], tuple(part[rows] for part in self._state)
        self._rows = {key: row for row, key in enumerate(keys)}


# -- what was found --------------------------------------------------------------------------------------------------


def _ranked(head: Head, encoded_TE: Tensor, one: _Beam, found: set[Prefix]) -> list[Transcript]:
    """These texts by their exact log-probability and what fusion adds, best first; equal ones by their labels."""
    texts = sorted(found)
    if not len(encoded_TE) or one.broken:
        return best_by(one.gains, [Transcript((), 0.0)])
    blank_NTU, label_NTU = lattices(head, encoded_TE.expand(len(texts), -1, -1), texts)
    lengths_N = torch.full((len(texts),), len(encoded_TE), device=encoded_TE.device)
    costs = transducer_costs(blank_NTU, label_NTU, lengths_N, _sizes(texts, encoded_TE)).tolist()
    ways = best_ways(blank_NTU, label_NTU, texts)
    shares = label_NTU.exp().tolist()
    transcripts = [
        _transcript(_labels(text, way, share), cost)
        for text, cost, way, share in zip(texts, costs, ways, shares, strict=True)
    ]
    return best_by(one.gains, transcripts)


def _labels(text: Prefix, frames: Sequence[int], shares: Sequence[Sequence[float]]) -> tuple[Label, ...]:
    """The labels, each with its frame and its probability there."""
    places = enumerate(zip(text, frames, strict=True))
    return tuple(Label(label, frame, frame + 1, shares[frame][at]) for at, (label, frame) in places)


def best_ways(blank_NTU: Tensor, label_NTU: Tensor, texts: Sequence[Prefix]) -> list[list[int]]:
    """The frame of each label of each text on the most probable way through its lattice; of equal ones a later one.

    Of the frames at which a label may be said, the best so far is a running maximum, once the blanks that follow are
    taken out: so all frames are looked at at once, and a step is one label.
    """
    passed_NTU = blank_NTU.clamp(min=IMPOSSIBLE).cumsum(1).roll(1, 1)
    passed_NTU[:, 0] = 0.0
    reached_NT, choices = passed_NTU[..., 0], []
    for at in range(1, blank_NTU.size(2)):
        said_NT = reached_NT + label_NTU[..., at - 1].clamp(min=IMPOSSIBLE)
        best_NT, choice_NT = (said_NT - passed_NTU[..., at]).cummax(1)
        reached_NT = best_NT + passed_NTU[..., at]
        choices.append(choice_NT.tolist())
    return [_traced([choice[row] for choice in choices[: len(text)]]) for row, text in enumerate(texts)]


def _traced(choices: Sequence[Sequence[int]]) -> list[int]:
    """From the last frame back."""
    frames, frame = [], -1
    for choice in reversed(choices):
        frame = choice[frame]
        frames.append(frame)
    return frames[::-1]


def _sizes(texts: Sequence[Prefix], like: Tensor) -> Tensor:
    return torch.tensor(list(map(len, texts)), dtype=torch.int64, device=like.device)

"""Heads of a recogniser: what each makes of encoded frames, how wrong it is, and what it finds.

Legend: B sequences, T frames after subsampling, M width of the encoder, L labels, V classes, the blank included.
"""

from dataclasses import dataclass
from math import nan
from typing import Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.base.schedules.values import ScheduledValue
from etude.data.tokens.tokenizers import BOS, EOS, PAD
from etude.model.exact import exact
from etude.model.frames.attention import AttentionConfig, AttentionHead
from etude.model.frames.transducer import TransducerConfig, TransducerHead
from etude.model.layers.growing import GrowthParts, classes, of_linear
from etude.model.layers.linear import Linear
from etude.model.loss import Loss
from etude.model.losses import CrossEntropy
from etude.model.losses.ctc import Ctc, infeasible
from etude.model.losses.transducer import Transducer, frames_within, joint_bytes
from etude.search import attention, ctc, joint, transducer
from etude.search.ctc import Label, Transcript
from etude.search.fusion import Fusion
from etude.search.hypotheses import Hypothesis
from etude.search.streaming import CtcStream, LabelStream, TransducerStream


@dataclass(frozen=True)
class Searching:
    """How a head searches."""

    width: int = 1
    """Of the beam; 1 is greedy."""
    fusion: Fusion | None = None
    symbols_a_frame: int = 10
    """Most labels that a transducer says in one frame."""
    ctc_weight: float = 0.3
    """Share of CTC where attention searches beside it."""

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest is taken at each place."""
        return self.width == 1 and self.fusion is None


class Labels(Protocol):
    """What a loss needs of a batch."""

    @property
    def targets(self) -> Tensor:
        """[B, L], padded at the end."""

    @property
    def target_lengths(self) -> Tensor:
        """[B]."""

    @property
    def frame_targets(self) -> Tensor | None:
        """[B, T]: the class of each encoded frame, -1 where there is none; None where nothing is aligned."""


class Head(Protocol):
    """A part of the model that has a loss and a search of its own."""

    @property
    def timed(self) -> bool:
        """Whether what is found has frames."""
        return True

    def loss(self, encoded_BTM: Tensor, lengths_B: Tensor, labels: Labels) -> Loss:
        """How improbable the labels are, in nats, summed over what counts."""

    def left_out(self, lengths_B: Tensor, labels: Labels) -> Tensor:
        """Which sequences the loss cannot count [B]."""
        del labels
        return lengths_B == 0

    def search(self, encoded_BTM: Tensor, lengths_B: Tensor, how: Searching) -> list[list[Transcript]]:
        """The best transcripts of each sequence, best first."""

    def stream(self, how: Searching, device: torch.device) -> LabelStream:
        """Greedy search in frames as they come. Raises ConfigError where it needs all of them."""
        del how, device
        raise ConfigError(
            "Attention looks at a whole recording, so that audio cannot come as a stream: loss.type must be ctc or "
            "transducer, or one of them the first of loss.heads."
        )


@final
class CtcHead(nn.Module, Head):
    """A linear layer over frames, and connectionist temporal classification; without a width the frames are logits."""

    def __init__(self, width: int | None, classes: int, blank: int) -> None:
        super().__init__()
        self.blank = blank
        self.output: nn.Module = nn.Identity() if width is None else Linear(width, classes)
        self._loss = Ctc(blank)

    def growth_parts(self) -> GrowthParts:
        """What comes out are classes."""
        rows = classes(self.output.out_features) if isinstance(self.output, Linear) else None
        return of_linear("output", self.output, rows, None)

    def growth_inputs(self) -> list[str]:
        """The one matrix, where there is one."""
        return ["output.weight"] if isinstance(self.output, Linear) else []

    def loss(self, encoded_BTM: Tensor, lengths_B: Tensor, labels: Labels) -> Loss:
        """The negative log-probability of the labels; those that do not fit contribute nothing."""
        return self._loss(self.output(encoded_BTM), lengths_B, labels.targets, labels.target_lengths)

    def left_out(self, lengths_B: Tensor, labels: Labels) -> Tensor:
        """Which sequences have too few frames for their labels."""
        return infeasible(lengths_B, labels.targets, labels.target_lengths)

    def logs(self, encoded_BTM: Tensor) -> Tensor:
        """Log-probabilities [B, T, V] in float32."""
        return exact(self.output(encoded_BTM)).log_softmax(-1)

    def search(self, encoded_BTM: Tensor, lengths_B: Tensor, how: Searching) -> list[list[Transcript]]:
        """Greedy, or prefix search with a beam."""
        logs_BTV = self.logs(encoded_BTM)
        if how.is_greedy:
            return [[one] for one in ctc.greedy(logs_BTV, lengths_B, blank=self.blank)]
        return ctc.beam(logs_BTV, lengths_B, width=how.width, blank=self.blank, fusion=how.fusion)

    def stream(self, how: Searching, device: torch.device) -> LabelStream:
        """Greedy search in frames as they come."""
        del how, device
        return CtcStream(self.logs, self.blank)


@final
class TransductionHead(nn.Module, Head):
    """A transducer; where logits of the joint network would take more than `most_bytes` they are made in pieces."""

    def __init__(self, config: TransducerConfig, width: int, classes: int, blank: int, most_bytes: int) -> None:
        super().__init__()
        self.network = TransducerHead(config, width, classes, blank)
        self._classes, self._most = classes, most_bytes
        self._loss = Transducer(blank)

    def growth_inputs(self) -> list[str]:
        """What takes frames."""
        return ["network.joint.frame.weight"]

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rate of dropout, where it is a schedule."""
        return self.network.scheduled_values()

    def loss(self, encoded_BTM: Tensor, lengths_B: Tensor, labels: Labels) -> Loss:
        """The negative log-probability of the labels."""
        targets_BL, counts_B = labels.targets, labels.target_lengths
        sequences, frames, most = len(encoded_BTM), encoded_BTM.size(1), targets_BL.size(1)
        if 2 * joint_bytes(sequences, frames, most, self._classes) <= self._most:
            return self._loss(self.network(encoded_BTM, targets_BL), lengths_B, targets_BL, counts_B)
        return self._loss.over(
            self.network.joint,
            encoded_BTM,
            self.network.predictor(targets_BL),
            lengths_B,
            targets_BL,
            counts_B,
            frames=frames_within(self._most, sequences, most, self._classes),
        )

    def search(self, encoded_BTM: Tensor, lengths_B: Tensor, how: Searching) -> list[list[Transcript]]:
        """Greedy, or a beam that goes frame by frame."""
        most = how.symbols_a_frame
        if how.is_greedy:
            return [[one] for one in transducer.greedy(self.network, encoded_BTM, lengths_B, most=most)]
        return transducer.beam(self.network, encoded_BTM, lengths_B, width=how.width, most=most, fusion=how.fusion)

    def stream(self, how: Searching, device: torch.device) -> LabelStream:
        """Greedy search in frames as they come."""
        return TransducerStream(self.network, how.symbols_a_frame, device)


@final
class AttendingHead(nn.Module, Head):
    """A decoder that attends to the frames; with CTC beside it, both search together."""

    timed = False

    def __init__(self, config: AttentionConfig, width: int, classes: int, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.network = AttentionHead(config, width, classes)
        self.beside: list[CtcHead] = []
        """The head of CTC, where there is one; a list, so that it is no part of this module."""
        self._smoothed = CrossEntropy(ignore_index=PAD, label_smoothing=label_smoothing)
        self._plain = CrossEntropy(ignore_index=PAD)

    def growth_inputs(self) -> list[str]:
        """What takes frames."""
        return [f"network.{name}" for name in self.network.growth_inputs()]

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rates of dropout, where they are schedules."""
        return self.network.scheduled_values()

    def loss(self, encoded_BTM: Tensor, lengths_B: Tensor, labels: Labels) -> Loss:
        """Cross entropy of each label and of the end, given the true ones before; smoothed in training alone."""
        given_BL, wanted_BL = shifted(labels.targets, labels.target_lengths)
        wanted_BL = wanted_BL.masked_fill((lengths_B == 0)[:, None], PAD)
        hidden_BLM = self.network.hidden(encoded_BTM, lengths_B, given_BL)
        loss = self._smoothed if self.training else self._plain
        return loss.from_hidden(hidden_BLM, self.network.output_weight, wanted_BL)

    def search(self, encoded_BTM: Tensor, lengths_B: Tensor, how: Searching) -> list[list[Transcript]]:
        """Greedy, or a beam, together with CTC and what is fused."""
        if how.is_greedy:
            return [[_untimed(one)] for one in attention.greedy(self.network, encoded_BTM, lengths_B)]
        logs_BTV = self.beside[0].logs(encoded_BTM) if self.beside and how.ctc_weight else None
        weight = 0.0 if logs_BTV is None else how.ctc_weight
        options = joint.JointOptions(how.width, weight, fusion=how.fusion)
        found = joint.beam(self.network, encoded_BTM, lengths_B, options, logs_BTV)
        return [[_untimed(one) for one in best] for best in found]


def shifted(targets_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """What a decoder is given, beginning with bos, and what it is to say, ending with eos: [B, L + 1] each."""
    beyond_BL = torch.arange(targets_BL.size(1), device=targets_BL.device) >= lengths_B[:, None]
    labels_BL = targets_BL.masked_fill(beyond_BL, PAD)
    wanted_BL = F.pad(labels_BL, (0, 1), value=PAD).scatter(1, lengths_B[:, None], EOS)
    return F.pad(labels_BL, (1, 0), value=BOS), wanted_BL


def _untimed(found: Hypothesis) -> Transcript:
    return Transcript(tuple(Label(token, 0, 0, nan) for token in found.tokens), found.score)

"""Heads that learn from an alignment: a class for each encoded frame, or a transducer along its aligned path.

Legend: B sequences, T frames after subsampling, M width of the encoder, V classes, that of what is no label included.
"""

from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from etude.base.schedules.values import ScheduledValue
from etude.model.alignment import NOWHERE
from etude.model.exact import exact
from etude.model.frames.transducer import TransducerConfig, TransducerHead
from etude.model.layers.growing import GrowthParts, classes, of_linear
from etude.model.layers.linear import Linear
from etude.model.loss import Loss
from etude.model.losses.framewise import Framewise
from etude.model.losses.transducer import rna_costs
from etude.model.rates import Rate, initial, is_constant
from etude.search import ctc, transducer
from etude.search.ctc import Transcript
from etude.search.streaming import CtcStream, LabelStream, TransducerStream
from etude.tasks.speech_recognition.heads import Head, Labels, Searching


@final
class FramewiseHead(nn.Module, Head):
    """A linear layer over frames, and the cross entropy of each frame's class in an alignment.

    `blank` is the class of what is no label: CTC's blank, or silence.
    """

    def __init__(self, width: int, classes: int, blank: int, label_smoothing: Rate = 0.0) -> None:
        super().__init__()
        self.blank = blank
        self.output = Linear(width, classes)
        self._smoothing = label_smoothing
        self._loss = Framewise(initial(label_smoothing))

    def growth_parts(self) -> GrowthParts:
        """What comes out are classes."""
        return of_linear("output", self.output, classes(self.output.out_features), None)

    def growth_inputs(self) -> list[str]:
        """The one matrix."""
        return ["output.weight"]

    def scheduled_values(self) -> list[ScheduledValue]:
        """The label smoothing, where the config gives it as a schedule."""
        return _scheduled(self._smoothing, self._loss)

    def loss(self, encoded_BTM: Tensor, lengths_B: Tensor, labels: Labels) -> Loss:
        """The cross entropy in nats, summed over the frames that have a class; in evaluation without smoothing."""
        del lengths_B
        loss = self._loss if self.training else self._loss.plain()
        return loss(self.output(encoded_BTM), _classes(encoded_BTM, labels))

    def left_out(self, lengths_B: Tensor, labels: Labels) -> Tensor:
        """Which sequences have no frame with a class."""
        return _unaligned(lengths_B, labels)

    def logs(self, encoded_BTM: Tensor) -> Tensor:
        """Log-probabilities [B, T, V] in float32."""
        return exact(self.output(encoded_BTM)).log_softmax(-1)

    def search(self, encoded_BTM: Tensor, lengths_B: Tensor, how: Searching) -> list[list[Transcript]]:
        """The best class of each frame, of which repeats are merged and what is no label is dropped, as CTC's are.

        So two equal labels are found only with such a frame between them. There is no beam.
        """
        del how
        return [[one] for one in ctc.greedy(self.logs(encoded_BTM), lengths_B, blank=self.blank)]

    def stream(self, how: Searching, device: torch.device) -> LabelStream:
        """The same in frames as they come."""
        del how, device
        return CtcStream(self.logs, self.blank)


@final
class PathHead(nn.Module, Head):
    """A transducer that learns its aligned path alone (Zeyer et al. 2020): a blank or one label in each frame.

    At each frame the state of the predictor after the labels before it is joined with the frame, and the cross entropy
    of the frame's class is taken: logits are [B, T, V], and there is no lattice. The parameters are those of
    `TransductionHead`, which may go on from them.
    """

    def __init__(
        self, config: TransducerConfig, width: int, classes: int, blank: int, label_smoothing: Rate = 0.0
    ) -> None:
        super().__init__()
        self.network = TransducerHead(config, width, classes, blank)
        self._smoothing = label_smoothing
        self._loss = Framewise(initial(label_smoothing))

    def growth_inputs(self) -> list[str]:
        """What takes frames."""
        return ["network.joint.frame.weight"]

    def scheduled_values(self) -> list[ScheduledValue]:
        """The rate of dropout and the label smoothing, where they are schedules."""
        return [*self.network.scheduled_values(), *_scheduled(self._smoothing, self._loss)]

    def loss(self, encoded_BTM: Tensor, lengths_B: Tensor, labels: Labels) -> Loss:
        """The cross entropy in nats, summed over the frames that have a class; in evaluation without smoothing."""
        del lengths_B
        loss = self._loss if self.training else self._loss.plain()
        said_BUE = self.network.predictor(labels.targets)
        classes_BT = _classes(encoded_BTM, labels)
        return loss.along(self.network.joint, encoded_BTM, said_BUE, classes_BT, blank=self.network.blank)

    def left_out(self, lengths_B: Tensor, labels: Labels) -> Tensor:
        """Which sequences have no frame with a class."""
        return _unaligned(lengths_B, labels)

    def search(self, encoded_BTM: Tensor, lengths_B: Tensor, how: Searching) -> list[list[Transcript]]:
        """Greedy, with at most one label in a frame, as it was learned. There is no beam."""
        del how
        found = transducer.greedy(self.network, encoded_BTM, lengths_B, most=1, costs=rna_costs)
        return [[one] for one in found]

    def stream(self, how: Searching, device: torch.device) -> LabelStream:
        """The same in frames as they come."""
        del how
        return TransducerStream(self.network, 1, device)


def _scheduled(smoothing: Rate, loss: Framewise) -> list[ScheduledValue]:
    if is_constant(smoothing):
        return []
    return [ScheduledValue("loss.label_smoothing", smoothing, partial(setattr, loss, "label_smoothing"))]


def _unaligned(lengths_B: Tensor, labels: Labels) -> Tensor:
    """Which sequences have no frame with a class [B]."""
    if labels.frame_targets is None:
        return torch.ones_like(lengths_B, dtype=torch.bool)
    return (labels.frame_targets == NOWHERE).all(1)


def _classes(encoded_BTM: Tensor, labels: Labels) -> Tensor:
    """The class of each frame [B, T]; of none where nothing is aligned."""
    if labels.frame_targets is None:
        return torch.full(encoded_BTM.shape[:2], NOWHERE, device=encoded_BTM.device)
    return labels.frame_targets

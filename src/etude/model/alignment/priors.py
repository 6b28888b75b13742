"""How often each class is: counted from alignments, or averaged from what a model gives.

Legend: B sequences, T frames, V classes.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from etude.model.alignment.result import NOWHERE, Alignment, beyond
from etude.model.exact import exact


@final
@dataclass(frozen=True, eq=False)
class LabelCounts:
    """The frames of each class; those of parts of the data are added.

    >>> counts = LabelCounts(torch.tensor([6.0, 2.0])) + LabelCounts(torch.tensor([0.0, 0.0]))
    >>> counts.logs().exp().tolist()
    [0.75, 0.25]
    """

    frames: Tensor
    """[V]: float64, on the CPU; parts of frames where posteriors were averaged."""

    @classmethod
    def of(cls, alignment: Alignment, classes: int) -> "LabelCounts":
        """Those of an alignment, blanks and silence included: frames that are of no class are not counted."""
        found = alignment.classes[alignment.classes != NOWHERE].cpu()
        return cls(torch.bincount(found, minlength=classes).double())

    @classmethod
    def averaged(cls, logs_BTV: Tensor, lengths_B: Tensor) -> "LabelCounts":
        """The sums of the posteriors that these log-probabilities are, over the frames of each sequence."""
        outside_BT1 = beyond(logs_BTV.size(1), lengths_B)[..., None]
        shares_BTV = exact(logs_BTV).exp().masked_fill(outside_BT1, 0.0)
        return cls(shares_BTV.sum(1).cpu().double().sum(0))

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        return LabelCounts(self.frames + other.frames)

    def logs(self, floor: float = 1.0) -> Tensor:
        """The log-probability of each class [V], float64, none of them -inf.

        A class that has fewer frames than `floor` counts as one of so many; without any frames, all are equal. Raises
        ValueError for a floor that is not above 0.
        """
        if not floor > 0:
            raise ValueError(f"floor must be positive, but is {floor}.")
        raised_V = self.frames.clamp(min=floor)
        return (raised_V / raised_V.sum()).log()

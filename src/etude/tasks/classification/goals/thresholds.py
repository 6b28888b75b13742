"""From which probability on a label is predicted: as the config says, or as a validation finds it.

Legend: K labels.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from etude.metrics.thresholds import HALF
from etude.train.watch.callback import RunView


class Thresholds(nn.Module):
    """Thresholds [K] that stay as they are given, and are no part of the weights."""

    values: Tensor
    late = False
    """Whether predictions of a validation in training are known at its end alone."""
    choosing = False
    """Whether the pass that is running is such a validation."""

    def __init__(self, values_K: Tensor, *, kept: bool = False) -> None:
        super().__init__()
        self.register_buffer("values", values_K, persistent=kept)

    @property
    def in_force(self) -> Tensor:
        """Those that predictions are made by now, [K]."""
        return self.values

    def choose(self, found_K: Tensor) -> None:
        """Predict by these from here on; what is given stays."""


@final
class ChosenThresholds(Thresholds):
    """Thresholds that each validation of a training run chooses; they are kept with the weights.

    Beside those of the last validation stand those of the last one that was due: a run that goes on behind its end,
    where a validation is not, begins with these, as one that did not end there.
    """

    due: Tensor
    late = True

    def __init__(self, labels: int) -> None:
        super().__init__(torch.full((labels,), HALF), kept=True)
        self.register_buffer("due", torch.full((labels,), HALF))
        self._found: Tensor | None = None

    @property
    def in_force(self) -> Tensor:
        """Those that the pass has chosen, once it has; else those that are kept."""
        return self.values if self._found is None else self._found

    def choose(self, found_K: Tensor) -> None:
        """Predict by these from here on. They are kept once the pass has ended: during it, weights may be averages."""
        self._found = found_K.to(self.values.device)

    def on_step_start(self) -> None:
        """Go on with the thresholds of the last validation that was due."""
        self.values.copy_(self.due)

    def on_validation_start(self, run: RunView) -> None:
        """Choose in this pass, if it is one of training and not of weights that are there."""
        self._found, self.choosing = None, run.weights_step is None

    def on_validation_end(self, run: RunView, metrics: Mapping[str, float]) -> None:
        """Keep what was chosen."""
        del metrics
        found, self._found, self.choosing = self._found, None, False
        if found is not None:
            self.values.copy_(found)
            if run.validation_due:
                self.due.copy_(found)

"""How far a run has come."""

from typing import NamedTuple


class Progress(NamedTuple):
    """How far a run has come: a frozen value, made anew after every step.

    Every count is of what is done: 0 before the first step. An epoch ends together with its last step, so after
    that step `epoch` has grown by one and `epoch_done` is 0 again.
    """

    step: int = 0
    """Optimizer updates taken."""
    batch: int = 0
    """Batches consumed."""
    epoch: int = 0
    """Epochs completed."""
    samples: int = 0
    """Samples consumed, all ranks together."""
    tokens: int = 0
    """Targets that the loss has counted (no padding), all ranks together."""
    seconds: float = 0.0
    """Training time over all resumes."""
    epoch_done: int = 0
    """How much of the running epoch is consumed, in the units of `epoch_total`."""
    epoch_total: int = 0
    """What one epoch holds (batches, or samples where batches cannot be counted ahead); 0 where unknown."""
    batch_in_epoch: int = 0
    """Batches of the running epoch consumed."""

    @property
    def epochs(self) -> float:
        """Epochs completed, with the fraction of the running one: 2.25 is a quarter into the third."""
        return self.epoch + (self.epoch_done / self.epoch_total if self.epoch_total else 0.0)

"""`[loss]`: which loss, its further terms and weights."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from etude.base.config.components import Imported
from etude.base.config.section import Section
from etude.model.losses.penalties import TermConfig
from etude.model.rates import Rate, Weight

CROSS_ENTROPY, Z_LOSS = "cross_entropy", "z_loss"
"""The names of the terms of a cross entropy with a z-loss."""
TAKEN = ("loss", "epoch_loss", CROSS_ENTROPY, Z_LOSS, "learning_rate", "grad_norm", "batch_size", "padding")
"""Names under which something else is logged."""


def _is_a_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise ValueError("must be a name of letters, digits and underscores")
    if name in TAKEN:
        raise ValueError(f"must be another name: {name} is logged already")
    return name


class LossSection(Section):
    """What every `[loss]` may have beside its own keys."""

    type: str
    """Its name or, of the user's own, its import path."""
    terms: dict[Annotated[str, AfterValidator(_is_a_name)], TermConfig] = Field(default_factory=dict)
    """Further terms by name, `[loss.terms.NAME]`: l2, l1, or a function of the task by import path."""
    weights: dict[str, Weight] = Field(default_factory=dict)
    """Weights by name, which replace those of the terms that the task's step returns."""

    @model_validator(mode="after")
    def _weights_are_of_the_step(self) -> Self:
        for name in self.weights:
            if name in self.terms:
                raise ValueError(f"weights.{name} must be given as terms.{name}.weight, where that term stands")
        return self


class LossConfig(LossSection):
    """`type = "cross_entropy"`: of the true token, in nats."""

    type: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Rate = 0.0
    """Share of each target's mass spread over the whole vocabulary, in training only."""
    z_loss: Weight = 0.0
    """Weight of the squared log-partition, averaged over targets, which keeps logits small; PaLM took 1e-4."""


class MeanSquaredErrorConfig(LossSection):
    """`type = "mse"`: squared error, averaged over all elements."""

    type: Literal["mse"] = "mse"


class ImportedLoss(LossSection, Imported):
    """A custom loss, by import path, and its own arguments."""

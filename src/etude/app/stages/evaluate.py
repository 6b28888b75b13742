"""The stage that evaluates: the metrics of a split by the weights of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from etude.app.runs.run import Run
from etude.app.stages.names import OF, Weights
from etude.app.stages.node import Made
from etude.app.stages.stage import Artifact, Artifacts, hashed
from etude.app.stages.told import Told
from etude.base.config.command import Override
from etude.base.config.section import Section
from etude.base.files import write_json
from etude.base.says import Say


class EvaluateKeys(Section):
    """A stage with `do = "evaluate"`."""

    model: str
    """Whose weights: a stage (`ctc`, `ctc/best`, `ctc/last`), or the folder of a run."""
    split: Literal["train", "val", "test"] = "test"
    """What they are measured on."""
    batch_size: int | None = Field(None, ge=1)
    """Samples computed together."""


@dataclass(frozen=True)
class Evaluate:
    """Writes the metrics of a split, and what is predicted for it."""

    name: str
    keys: EvaluateKeys
    weights: Weights
    changes: Sequence[Override] = ()
    """What it changes in the config of the run."""

    def inputs(self) -> Sequence[str]:
        """The stage whose weights they are."""
        return self.weights.takes()

    def identity(self, inputs: Artifacts) -> str:
        """A hash of its keys, and of what it takes."""
        told: dict[str, Any] = self.keys.model_dump(exclude={OF[0], "batch_size"})
        told["model"] = self.weights.told()
        told["changes"] = [(one.key, one.value) for one in self.changes]
        return hashed("evaluate", told, inputs)

    def run(self, folder: Path, inputs: Artifacts, say: Say) -> Artifact:
        """Measure, and write `SPLIT.json`."""
        size = self.keys.batch_size
        more = [] if size is None else [Override(("train", "eval_batch_size"), size, "batch_size")]
        run = Run(self.weights.run, overrides=[*self.changes, *more], say=say)
        device = run.loaded.config.train.device
        metrics = run.measure(self.keys.split, folder, weights=self.weights.which, device=device)
        write_json(folder / f"{self.keys.split}.json", {name: _told(value) for name, value in metrics.items()})
        return Artifact(self.name, folder, self.identity(inputs), metrics=metrics)


def _told(value: float) -> float | None:
    """A number as JSON holds it: null for one that is not finite."""
    return value if math.isfinite(value) else None


def evaluate(told: Told) -> Made:
    """A stage that evaluates."""
    keys = told.keys(EvaluateKeys)
    weights = told.names.weights(told.entry, OF[0], keys.model, told.where(OF[0]))
    references = {} if weights.reference is None else {OF[0]: weights.reference}
    written = {"do": "evaluate", **keys.model_dump(exclude_unset=True)}
    written |= {} if weights.reference is None else {OF[0]: str(weights.reference)}
    return Made(
        Evaluate(told.name, keys, weights, told.changes(EvaluateKeys)),
        references,
        used=told.of_model(weights, EvaluateKeys),
        written=written,
        splits=(keys.split,),
    )

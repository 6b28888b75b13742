"""The stage that averages: the mean of the weights of several checkpoints of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from etude.app.average import average as write_average
from etude.app.stages.names import AVERAGED, OF, Weights
from etude.app.stages.node import Made
from etude.app.stages.stage import Artifact, Artifacts, hashed
from etude.app.stages.told import Told
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.says import Say


class AverageKeys(Section):
    """A stage with `do = "average"`."""

    model: str | None = None
    """Whose checkpoints: a stage that trains, or the folder of a run."""
    of: str | None = None
    """The same as `model`."""
    last: int | None = Field(None, ge=1)
    """The newest of its checkpoints; `train.keep_last` says how many a run keeps."""
    best: int | None = Field(None, ge=1)
    """The best N by the monitored metric; `train.keep_best` says how many a run keeps."""
    checkpoints: list[str] = Field(default_factory=list)
    """Some of them: steps, best, last."""


@dataclass(frozen=True)
class Average:
    """Writes the mean of the weights of checkpoints."""

    name: str
    keys: AverageKeys
    weights: Weights

    def inputs(self) -> Sequence[str]:
        """The stage whose checkpoints they are."""
        return self.weights.takes()

    def identity(self, inputs: Artifacts) -> str:
        """A hash of its keys, and of what it takes."""
        told: dict[str, Any] = self.keys.model_dump(exclude=set(OF))
        told["model"] = self.weights.told()
        return hashed("average", told, inputs)

    def run(self, folder: Path, inputs: Artifacts, say: Say) -> Artifact:
        """Write the mean, unless it is there."""
        place = folder / AVERAGED
        if not place.exists():
            keys = self.keys
            _, said = write_average(
                self.weights.run, last=keys.last, best=keys.best, checkpoints=keys.checkpoints, output=place, say=say
            )
            say(f"Written: {said}")
        return Artifact(self.name, place, self.identity(inputs))


def average(told: Told) -> Made:
    """A stage that averages. Raises ConfigError where it names no checkpoints."""
    keys = told.keys(AverageKeys, configs=False)
    given = [key for key in OF if getattr(keys, key) is not None]
    if len(given) != 1:
        raise ConfigError(told.entry.said(f"one of model and of must name whose checkpoints ({told.entry.origin})."))
    if len(list(filter(None, (keys.last, keys.best, keys.checkpoints)))) != 1:
        raise ConfigError(told.entry.said(f"one of last, best and checkpoints must say which ({told.entry.origin})."))
    key = given[0]
    weights = told.names.weights(told.entry, key, str(getattr(keys, key)), told.where(key))
    references = {} if weights.reference is None else {key: weights.reference}
    written = {
        "do": "average",
        **keys.model_dump(exclude_unset=True),
        **{one: str(ref) for one, ref in references.items()},
    }
    return Made(Average(told.name, keys, weights), references, written=written)

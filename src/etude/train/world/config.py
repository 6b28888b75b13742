"""The `[distributed]` section: how several processes train one run."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from etude.base.config.fields import DurationField, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.durations import Duration


class DistributedConfig(Section):
    """How many processes train the run together, and what they tell each other."""

    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Ranks that `etude train` starts on this machine; under torchrun, srun or mpirun those started there count."""
    strategy: Literal["ddp", "fsdp", "none"] = "ddp"
    """ddp: each rank holds the whole model; fsdp: weights, gradients and optimizer state are sharded over the ranks;
    none: several ranks are refused."""
    reduce: Literal["every step", "local"] = "every step"
    """every step: gradients are summed over all ranks; local: each rank steps by its own, and weights are averaged
    every `average_every` (local SGD)."""
    average_every: DurationField = Duration(50, "steps")
    """With reduce = "local": average the weights of all ranks this often, and at the end of an epoch; validations,
    saves and the end of the run wait for it."""
    checkpoint_activations: bool = False
    """Keep no activations inside the model's layers, but compute them again in the backward pass; also of one rank."""
    check_every: Annotated[Switch[DurationField], means("none")] = Duration(1000, "steps")
    """Compare the weights of all ranks this often; a rank whose weights differ ends the run."""
    timeout: Annotated[DurationField, means("none")] = Duration(600, "seconds")
    """A rank that the others have waited for, or have not heard of, for so long ends the run (exit code 6)."""

    @model_validator(mode="after")
    def _timeout_is_time(self) -> "DistributedConfig":
        if self.timeout.unit != "seconds":
            raise ValueError('timeout must be in seconds, minutes or hours, as "10 minutes"')
        return self

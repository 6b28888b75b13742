"""`[sweep]`: runs of one config with other values of some keys. `etude sweep` reads it; training passes it over."""

import re
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from etude.base.config.fields import Switch
from etude.base.config.loading import Loaded
from etude.base.config.section import Section

Method = Literal["grid", "random", "quasi_random", "tpe", "cma_es"]
Goal = Literal["min", "max"]
OnFailure = Literal["continue", "stop", "stop if alike"]
Count = Annotated[int, Field(ge=1)]
Root = TypeVar("Root", bound=Section)


def _several(given: object) -> Any:
    """Read one condition as a list of one."""
    return [given] if isinstance(given, str) else given


class SweepConfig(Section):
    """Which keys take which values, how they are chosen, and what the runs are judged by."""

    keys: dict[str, Any] = Field(default_factory=dict)
    """Keys of the config, each with a list of values or a range: `{ min = 1e-5, max = 1e-2, log = true }`."""
    tables: list[dict[str, Any]] = Field(default_factory=list)
    """Tables of keys that change together, each combined with the values of `keys`; `name` names one."""
    where: Annotated[list[str], BeforeValidator(_several, str | list[str])] = Field(default_factory=list)
    """Conditions that a combination must meet: expressions over keys, or functions by import path."""
    method: Method = "grid"
    """grid runs every combination; random, quasi_random, tpe and cma_es draw them."""
    trials: Switch[Count] = None
    """How many combinations are drawn; a grid has as many as it has."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Seed from which combinations are drawn."""
    metric: Switch[str] = None
    """What runs are judged by, at its best validation; default: train.monitor."""
    stage: Switch[str] = None
    """Of a config with stages: the one whose metric it is; default: the last that trains."""
    goal: Switch[Goal] = None
    """Whether less or more of it is better; default: train.mode, or as its name tells."""
    prune: Switch[Literal["median", "hyperband"]] = None
    """End runs early that do worse than others did; Optuna decides at each validation."""
    prune_after: Annotated[int, Field(ge=0)] = 5
    """Runs that must be done before the median prunes any."""
    prune_from: Count = 1
    """The first validation of a run at which it can be pruned."""
    on_failure: OnFailure = "continue"
    """What a failed run ends: nothing but itself, the sweep, or the sweep once three failed with the same error."""
    state: Switch[str] = None
    """URL of a PostgreSQL database that keeps the state; default: sweep.sqlite in the folder of the sweep."""
    dead_after: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """Seconds without a sign of life after which another machine's run is taken over."""

    @field_validator("state")
    @classmethod
    def _is_a_database(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"postgres(ql)?://", url):
            raise ValueError('must be the URL of a PostgreSQL database, as in "postgresql://host/name"')
        if url is not None and urlsplit(url).password:
            raise ValueError("must hold no password: set PGPASSWORD, or write it into ~/.pgpass")
        return url


def without_sweep(loaded: Loaded[Root]) -> Loaded[Root]:
    """The config as one run has it."""
    data = {key: value for key, value in loaded.data.items() if key != "sweep"}
    return replace(loaded, config=loaded.config.model_copy(update={"sweep": SweepConfig()}), data=data)

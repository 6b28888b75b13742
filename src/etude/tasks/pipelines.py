"""The tables of a pipeline in a config, as an editor completes them; the kinds of stages have further keys."""

from typing import Any

from pydantic import ConfigDict, Field

from etude.base.config.json_schema import SECTIONS
from etude.base.config.section import Section


class StageTable(Section):
    """`[[stage]]`: a stage of a pipeline; each kind has keys of its own, and changes sections of the config."""

    model_config = ConfigDict(extra="allow", json_schema_extra={SECTIONS: True})

    name: str
    """What other stages call it, and its folder in that of the run."""
    do: str = "train"
    """train, align, average, evaluate, or a function by import path."""
    inputs: list[str] = Field(default_factory=list)
    """Of a function: the stages whose artifacts it takes."""
    again: dict[str, Any] = Field(default_factory=dict)
    """Of a stage that is repeated: what changes in the rounds after the first."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Changes of sections whose name the stage needs for a key of its own, as `config.model`."""


class RepeatTable(Section):
    """`[[repeat]]`: stages that are run several times, one round after the other."""

    from_: str = Field(alias="from")
    """The first stage of a round."""
    to: str
    """The last, in the order of the file."""
    times: int = Field(ge=1)
    """How many rounds there are; the stages of round 2 are called `NAME-2`."""


def tables() -> dict[str, Any]:
    """The fields of both lists of tables, for the class that the JSON Schema is made of."""
    return {
        "stage": (list[StageTable], Field(default_factory=list, description="The stages of a pipeline.")),
        "repeat": (list[RepeatTable], Field(default_factory=list, description="Stages that are repeated.")),
    }

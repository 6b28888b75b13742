"""Where first weights come from that were trained before: the tables of `init.from`."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from etude.base.config.fields import PathField
from etude.base.config.section import Section


class InitSource(Section):
    """A table of `init.from`: weights of another model, which take the place of first ones."""

    checkpoint: PathField
    """A run (its best checkpoint), a checkpoint (`RUN/best` is `RUN/checkpoints/best`), what `etude average` or
    `etude export` wrote, a file in safetensors, or a state dict that `torch.save` wrote."""
    match: str | Annotated[list[str], Field(min_length=1)] = "*"
    """What to load, by name in this model: one pattern, or a list."""
    rename: dict[str, str] = Field(default_factory=dict)
    """What parameters of the checkpoint are called in this model: "old.*" = "new.*"; the last pattern that means a
    name counts, and each `*` stands for the same in both."""
    required: bool = True
    """Whether all that `match` means must be there; else what is not keeps its first values."""
    grow: bool = False
    """Whether tensors may be wider than those of the checkpoint, a run's, whose values come where growth has them."""

    @field_validator("rename")
    @classmethod
    def _as_many_parts(cls, rename: dict[str, str]) -> dict[str, str]:
        for old, new in rename.items():
            if old.count("*") != new.count("*"):
                raise ValueError(f'"{old}" = "{new}" must have as many * on both sides')
        return rename

    @property
    def patterns(self) -> list[str]:
        """The patterns of `match`."""
        return [self.match] if isinstance(self.match, str) else self.match


def _tables(given: object) -> Any:
    """Read a path alone as a table of it, and one table as a list."""
    match given:
        case str():
            return [{"checkpoint": given}]
        case Mapping():
            return [given]
    return given


InitSources = Annotated[list[InitSource], BeforeValidator(_tables, str | InitSource | list[InitSource])]
"""Where weights come from: tables, or the path of one checkpoint from which all is loaded."""

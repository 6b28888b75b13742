"""The `[run]` section: what a run is called, where it lies, what it draws from, and which run it goes on from."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from etude.base.config.fields import PathField, RequeueSignals
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.randomness import seed_of
from etude.base.signals import BEFORE_THE_END


class RunConfig(Section):
    """The run's name, its folder, and the seed of all its randomness."""

    name: Annotated[str, means("none", place=True)] = ""
    """Name of the run, and of its folder in `dir`; default: the stem of the config file."""
    dir: Annotated[PathField, means("none", place=True)] = Path("runs")
    """Folder of the runs."""
    seed: Annotated[int, Field(ge=0, lt=2**63), means(shared="epoch")] = 1
    """Seed from which everything random is computed."""
    requeue_signals: Annotated[RequeueSignals, means("none")] = BEFORE_THE_END
    """Signals after which the run saves and exits with 75, which asks a cluster to run the same command again."""
    stage: Annotated[str | None, means(shared="never", why="another stage draws otherwise")] = None
    """The stage of a pipeline that the run is, which its randomness depends on beside the seed; a pipeline sets it."""
    continue_training: Annotated[bool, means("none")] = False
    """Begin a new folder where the longest run beside it stands that is the same but for its length."""
    remove_continued: Annotated[bool, means("none")] = False
    """Remove that run once this one has gone further."""

    @property
    def drawn_from(self) -> int:
        """The seed of what is drawn without the stage's name: the run's own, or one of its stage."""
        return self.seed if self.stage is None else seed_of(self.seed, "stage", self.stage)

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if name in {".", ".."} or any(sign in name for sign in "/\\\0\n"):
            raise ValueError("must be the name of one folder, without slashes")
        return name

"""Weights & Biases: the scalars of a run as one of its runs, offline unless the user wants it otherwise."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.callbacks.named_run import Artifacts, NamedRun
from etude.callbacks.rows import sweep_of

MODE = "WANDB_MODE"


class WandbConfig(Section):
    """Weights & Biases, as a logger."""

    type: Literal["wandb"] = "wandb"
    project: str = "etude"
    """The project that the run belongs to."""
    entity: Switch[str] = None
    """Owner of the project."""
    run_name: Switch[str] = None
    """Name of the run there; default: the name of the run folder."""
    mode: Switch[Literal["online", "offline", "disabled"]] = None
    """Default: WANDB_MODE, else offline: files in the run folder, for `wandb sync`."""
    artifacts: Artifacts
    """Files of the run folder that are kept with it at the end, by patterns such as `outputs/*`."""

    def build(self, folder: Path | None) -> "WandbLogger":
        """Make the logger. Raises ConfigError without a run folder."""
        return WandbLogger(self, folder)


@final
class WandbLogger(NamedRun):
    """A run of Weights & Biases, with `step` as the axis."""

    def __init__(self, config: WandbConfig, folder: Path | None) -> None:
        super().__init__(folder, "wandb", config.artifacts)
        self._config = config
        self._run: Any = None

    def _begin(self) -> None:
        import wandb

        name = self.run_id
        if not name:  # written before it is used: a run that is killed in between is found again
            name = self.run_id = uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            name=self.title(self._config.run_name),
            id=name,
            group=sweep_of(self.folder) or None,
            resume="allow",
            dir=str(self.folder),
            mode=self._config.mode or os.environ.get(MODE) or "offline",
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _describe(self, told: Mapping[str, bool | float | str]) -> None:
        self._run.config.update(dict(told), allow_val_change=True)

    def _keep(self, path: Path) -> None:
        self._run.save(str(path), base_path=str(self.folder), policy="now")

    def _send(self, step: int, values: Mapping[str, float]) -> None:
        # Its own step may never go back, which that of a run that was killed and goes on does.
        self._run.log({"step": step, **values})

    def _end(self, error: BaseException | None) -> None:
        self._run.finish(exit_code=0 if error is None else 1)

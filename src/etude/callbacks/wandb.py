"""Weights & Biases: the scalars of a run as one of its runs, offline unless the user wants it otherwise."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.base.files import make_folder, write_text
from etude.callbacks.scalars import folder_for, remembered, scalars
from etude.train.watch.callback import RunView

FOLDER, RUN_ID = "wandb", "run-id.txt"
MODE = "WANDB_MODE"


class WandbConfig(Section):
    """Weights & Biases, as a logger."""

    type: Literal["wandb"] = "wandb"
    project: str = "etude"
    """The project that the run belongs to."""
    entity: Switch[str] = None
    """Whose project it is."""
    run_name: Switch[str] = None
    """What the run is called there; the name of the run folder unless given."""
    mode: Switch[Literal["online", "offline", "disabled"]] = None
    """Unless given here or in WANDB_MODE, offline: files in the run folder, for `wandb sync`."""

    def build(self, folder: Path | None) -> "WandbLogger":
        """Make the logger."""
        return WandbLogger(self, folder_for(folder, "wandb"))


class WandbLogger:
    """Logs every number of a row, with `step` as the axis; nothing is begun before the first row."""

    def __init__(self, config: WandbConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._run: Any = None
        self._exit_code = 0

    def log(self, row: Mapping[str, Any]) -> None:
        """Log one row."""
        if self._run is None:
            self._open()
        # Its own step may never go back, which that of a run that was killed and goes on does.
        self._run.log({"step": int(row["step"]), **scalars(row)})

    def on_exception(self, run: RunView, error: BaseException) -> None:
        """Remember that the run did not end well."""
        del run, error
        self._exit_code = 1

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish(exit_code=self._exit_code)
            self._run = None

    def _open(self) -> None:
        import wandb

        place = self._folder / FOLDER
        make_folder(place)
        name = remembered(place / RUN_ID)
        if not name:
            name = uuid.uuid4().hex[:12]
            write_text(place / RUN_ID, f"{name}\n")
        self._run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            name=self._config.run_name or self._folder.absolute().name,
            id=name,
            resume="allow",
            dir=str(self._folder),
            mode=self._config.mode or os.environ.get(MODE) or "offline",
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

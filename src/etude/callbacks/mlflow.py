"""MLflow: the scalars of a run as an MLflow run, the same one however often the run is continued."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.base.files import make_folder, write_text
from etude.callbacks.scalars import folder_for, remembered, scalars
from etude.train.watch.callback import RunView

FOLDER, RUN_ID = "mlflow", "run-id.txt"
URI = "MLFLOW_TRACKING_URI"
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A server that is down must not hold training up for minutes, as MLflow's own settings would."""
UNNAMEABLE = re.compile(r"[^\w\-. :/]")
"""What MLflow takes in no name, and a pattern of parameters may have: it is logged as an underscore."""


class MlflowConfig(Section):
    """MLflow, as a logger."""

    type: Literal["mlflow"] = "mlflow"
    tracking_uri: Switch[str] = None
    """Where runs are kept; unless given here or in MLFLOW_TRACKING_URI, a database in the run folder."""
    experiment: str = "etude"
    """The experiment that the run belongs to; made where it is not there."""
    run_name: Switch[str] = None
    """What MLflow calls the run; the name of the run folder unless given."""

    def build(self, folder: Path | None) -> "MlflowLogger":
        """Make the logger."""
        return MlflowLogger(self, folder_for(folder, "mlflow"))


class MlflowLogger:
    """Logs every number of a row against its step; nothing is asked of MLflow before the first row."""

    def __init__(self, config: MlflowConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._client: Any = None
        self._run = ""
        self._status = "FINISHED"

    def log(self, row: Mapping[str, Any]) -> None:
        """Log one row."""
        from mlflow.entities import Metric

        if self._client is None:
            self._open()
        now, step = int(time.time() * 1000), int(row["step"])
        metrics = [Metric(UNNAMEABLE.sub("_", name), value, now, step) for name, value in scalars(row).items()]
        self._client.log_batch(self._run, metrics=metrics)

    def on_exception(self, run: RunView, error: BaseException) -> None:
        """Remember that the run did not end well."""
        del run
        self._status = "KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "FAILED"

    def close(self) -> None:
        """Tell MLflow that the run has ended."""
        if self._client is not None:
            self._client.set_terminated(self._run, self._status)

    def _open(self) -> None:
        from mlflow import MlflowClient

        for name, value in IMPATIENT.items():
            os.environ.setdefault(name, value)
        uri = self._config.tracking_uri or os.environ.get(URI)
        place = self._folder / FOLDER
        make_folder(place)
        client = MlflowClient(tracking_uri=uri or f"sqlite:///{(place / 'mlflow.db').absolute()}")
        self._run = remembered(place / RUN_ID)
        if not (self._run and self._is_there(client)):
            self._run = self._begin(client, None if uri else place)
            write_text(place / RUN_ID, f"{self._run}\n")
        self._client = client

    def _is_there(self, client: Any) -> bool:
        """Whether the run of an earlier process can go on; it was perhaps kept somewhere else."""
        from mlflow.exceptions import MlflowException

        try:
            client.get_run(self._run)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        client.update_run(self._run, status="RUNNING")
        return True

    def _begin(self, client: Any, place: Path | None) -> str:
        found = client.get_experiment_by_name(self._config.experiment)
        artifacts = None if place is None else (place / "artifacts").absolute().as_uri()
        experiment = (
            found.experiment_id
            if found is not None
            else client.create_experiment(self._config.experiment, artifact_location=artifacts)
        )
        run = client.create_run(experiment, run_name=self._config.run_name or self._folder.absolute().name)
        return str(run.info.run_id)

"""MLflow: the scalars of a run as an MLflow run, the same one however often the run is continued."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.callbacks.named_run import Artifacts, NamedRun
from etude.callbacks.rows import sweep_of

URI = "MLFLOW_TRACKING_URI"
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A server that is down must not hold training up for minutes, as MLflow's own settings would."""
UNNAMEABLE = re.compile(r"[^\w\-. :/]")
"""What MLflow takes in no name, and a pattern of parameters may have: it is logged as an underscore."""


LONGEST, AT_ONCE = 500, 100
"""Characters of a parameter, and parameters of a batch, that every store of MLflow takes."""
SWEEP_TAG = "etude.sweep"


class MlflowConfig(Section):
    """MLflow, as a logger."""

    type: Literal["mlflow"] = "mlflow"
    tracking_uri: Switch[str] = None
    """Where MLflow keeps runs; default: MLFLOW_TRACKING_URI, else a database in the run folder."""
    experiment: str = "etude"
    """The experiment that the run belongs to; created if it does not exist."""
    run_name: Switch[str] = None
    """Name of the run in MLflow; default: the name of the run folder."""
    artifacts: Artifacts
    """Files of the run folder that are logged at the end, by patterns such as `outputs/*`."""

    def build(self, folder: Path | None) -> "MlflowLogger":
        """Make the logger. Raises ConfigError without a run folder."""
        return MlflowLogger(self, folder)


@final
class MlflowLogger(NamedRun):
    """An MLflow run, the same one however often this run is continued."""

    def __init__(self, config: MlflowConfig, folder: Path | None) -> None:
        super().__init__(folder, "mlflow", config.artifacts)
        self._config = config
        self._client: Any = None
        self._run = ""

    def _begin(self) -> None:
        from mlflow import MlflowClient

        for name, value in IMPATIENT.items():
            os.environ.setdefault(name, value)
        uri = self._config.tracking_uri or os.environ.get(URI)
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{(self.place / 'mlflow.db').absolute()}")
        self._run = self.run_id
        if not (self._run and self._goes_on()):
            artifacts = None if uri else (self.place / "artifacts").absolute().as_uri()
            self._run = self.run_id = self._made(artifacts)

    def _goes_on(self) -> bool:
        """Go on with the run of an earlier process, if it is there; it was perhaps kept somewhere else."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(self._run)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        self._client.update_run(self._run, status="RUNNING")
        return True

    def _made(self, artifacts: str | None) -> str:
        """The name of a new run, of an experiment that is made where it is not there."""
        name = self._config.experiment
        found = self._client.get_experiment_by_name(name)
        if found is None:
            experiment = self._client.create_experiment(name, artifact_location=artifacts)
        else:
            experiment = found.experiment_id
        run = self._client.create_run(experiment, run_name=self.title(self._config.run_name))
        return str(run.info.run_id)

    def _describe(self, told: Mapping[str, bool | float | str]) -> None:
        """Log the config, and the sweep as a tag; what an earlier process has logged cannot be another in MLflow."""
        from mlflow.entities import Param, RunTag

        known = self._client.get_run(self._run).data.params
        named = {UNNAMEABLE.sub("_", name): str(value)[:LONGEST] for name, value in told.items()}
        params = [Param(name, value) for name, value in named.items() if name not in known]
        for begin in range(0, len(params), AT_ONCE):
            self._client.log_batch(self._run, params=params[begin : begin + AT_ONCE])
        if sweep := sweep_of(self.folder):
            self._client.log_batch(self._run, tags=[RunTag(SWEEP_TAG, sweep)])

    def _keep(self, path: Path) -> None:
        inside = path.relative_to(self.folder).parent.as_posix()
        self._client.log_artifact(self._run, str(path), None if inside == "." else inside)

    def _send(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(UNNAMEABLE.sub("_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def _end(self, error: BaseException | None) -> None:
        self._client.set_terminated(self._run, _status(error))


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "FAILED"

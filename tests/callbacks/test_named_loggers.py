"""Loggers by name: MLflow and Weights & Biases, against stand-ins that write down what they are told."""

import json
import os
import sys

import pytest
import torch
from torch.utils.data import TensorDataset

import etude
from etude.app.python.loggers import read_loggers
from etude.base.errors import ConfigError
from etude.callbacks import config as module
from etude.callbacks.config import LogConfig, build_loggers
from etude.callbacks.mlflow import IMPATIENT
from etude.train.watch.record import Record

QUIET = {"device": "cpu", "say": lambda _: None, "progress": False, "log_every": "1 step"}

MLFLOW = {
    "__init__": """
import json, os, random, re, uuid
from types import SimpleNamespace as Named
from .exceptions import MlflowException

class MlflowClient:
    def __init__(self, tracking_uri):
        if tracking_uri.startswith("down"):
            raise MlflowException("connection refused")
        self.path = tracking_uri.removeprefix("sqlite:///").replace("file:", "") + ".json"
        self.db = {"experiments": {}, "runs": {}}
        if os.path.exists(self.path):
            with open(self.path) as file:
                self.db = json.load(file)
    def save(self):
        with open(self.path, "w") as file:
            json.dump(self.db, file)
    def get_experiment_by_name(self, name):
        return Named(experiment_id=self.db["experiments"][name]) if name in self.db["experiments"] else None
    def create_experiment(self, name, artifact_location=None):
        self.db["experiments"][name] = "7"
        return "7"
    def create_run(self, experiment_id, run_name):
        random.random()
        run = uuid.uuid4().hex
        begun = {"experiment": experiment_id, "name": run_name, "status": "RUNNING", "metrics": []}
        self.db["runs"][run] = {**begun, "params": {}, "tags": {}, "artifacts": []}
        self.save()
        return Named(info=Named(run_id=run))
    def get_run(self, run):
        if run not in self.db["runs"]:
            raise MlflowException("no such run", "RESOURCE_DOES_NOT_EXIST")
        return Named(data=Named(params=self.db["runs"][run]["params"]))
    def update_run(self, run, status):
        self.db["runs"][run]["status"] = status
    def log_artifact(self, run, path, inside):
        self.db["runs"][run]["artifacts"].append([os.path.basename(path), inside])
    def log_batch(self, run, metrics=(), params=(), tags=()):
        known = self.db["runs"][run]
        for p in params:
            if len(params) > 100 or known["params"].setdefault(p.key, p.value) != p.value:
                raise MlflowException(f"Changing param values is not allowed: {p.key}")
        known["tags"] |= {t.key: t.value for t in tags}
        for m in [*metrics, *params]:
            if not re.fullmatch(r"[/\\w.\\- :]*", m.key):
                raise MlflowException(f"Invalid value {m.key} for metric name")
        self.db["runs"][run]["metrics"] += [[m.key, m.value, m.step] for m in metrics]
        self.save()
    def set_terminated(self, run, status):
        self.db["runs"][run]["status"] = status
        self.save()
""",
    "entities": """
class Metric:
    def __init__(self, key, value, timestamp, step):
        self.key, self.value, self.timestamp, self.step = key, value, timestamp, step

class Param:
    def __init__(self, key, value):
        self.key, self.value = key, value

class RunTag(Param):
    pass
""",
    "exceptions": """
class MlflowException(Exception):
    def __init__(self, message, error_code=None):
        super().__init__(message)
        self.error_code = error_code
""",
}
WANDB = {
    "__init__": """
import json
STARTED = []
class Settings(dict):
    def __init__(self, **given):
        super().__init__(given)
class Config(dict):
    def update(self, given, allow_val_change):
        assert allow_val_change
        super().update(given)
class Run:
    def __init__(self, given):
        self.given, self.rows, self.axes, self.exit_code = given, [], {}, None
        self.config, self.saved = Config(), []
    def save(self, path, base_path, policy):
        self.saved.append((path.removeprefix(base_path + "/"), policy))
    def define_metric(self, name, step_metric=None):
        self.axes[name] = step_metric
    def log(self, row):
        self.rows.append(row)
    def finish(self, exit_code):
        self.exit_code = exit_code
def init(**given):
    STARTED.append(Run(given))
    return STARTED[-1]
""",
}


@pytest.fixture
def stand_in(tmp_path_factory, monkeypatch):
    """Put a package of this name, made of these files, where it is imported from."""
    place = tmp_path_factory.mktemp("packages")
    monkeypatch.syspath_prepend(place)
    before = {name: part for name, part in sys.modules.items() if name.partition(".")[0] in {"mlflow", "wandb"}}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in IMPATIENT.items():
        monkeypatch.setenv(name, value)

    def put(name, files):
        (place / name).mkdir()
        for file, text in files.items():
            (place / name / f"{file}.py").write_text(text)

    yield put
    for name in [name for name in sys.modules if name.partition(".")[0] in {"mlflow", "wandb"}]:
        del sys.modules[name]


@pytest.fixture
def mlflow(stand_in):
    stand_in("mlflow", MLFLOW)


@pytest.fixture
def wandb(stand_in):
    stand_in("wandb", WANDB)
    import wandb

    return wandb


def fit(folder, logger, until="3 steps", task=None, **options):
    data = TensorDataset(torch.ones(6, 4), torch.ones(6, 1))
    torch.manual_seed(1)
    model = task or torch.nn.Linear(4, 1)
    options = {"batch_size": 2, "run_dir": folder, "loggers": [logger], **QUIET, **options}
    return etude.fit(model, data, data, loss=torch.nn.functional.mse_loss, max_duration=until, **options)


def mlflow_runs(folder):
    return list(json.loads((folder / "mlflow/mlflow.db.json").read_text())["runs"].values())


def test_mlflow_gets_what_is_named_by_a_pattern_of_parameters(mlflow, tmp_path):
    said = []
    freeze = {"*bias": {"schedule": "piecewise", "points": [["0 steps", 1], ["1 step", 0]]}}
    fit(tmp_path / "mine", "mlflow", freeze=freeze, say=said.append)

    assert [sentence for sentence in said if "logger" in sentence] == []
    (run,) = mlflow_runs(tmp_path / "mine")
    assert [metric for metric in run["metrics"] if "freeze" in metric[0]][:2] == [
        ["train/freeze/_bias", 1.0, 1],
        ["train/freeze/_bias", 0.0, 2],
    ]


def test_mlflow_gets_every_number_against_its_step_in_the_run_folder(mlflow, tmp_path):
    result = fit(tmp_path / "mine", "mlflow")

    (run,) = mlflow_runs(tmp_path / "mine")
    expected = [
        [name, value, row["step"]]
        for row in result.history
        for name, value in row.items()
        if name != "step" and value is not None
    ]
    assert run["metrics"] == expected
    assert (run["name"], run["status"]) == ("mine", "FINISHED")


def test_a_run_that_goes_on_is_the_same_mlflow_run(mlflow, tmp_path):
    fit(tmp_path, "mlflow")

    fit(tmp_path, "mlflow", until="5 steps")

    (run,) = mlflow_runs(tmp_path)
    losses = [step for name, _, step in run["metrics"] if name == "train/loss"]
    assert losses == [1, 2, 3, 4, 5]


def test_an_mlflow_run_that_was_lost_begins_anew(mlflow, tmp_path):
    fit(tmp_path, "mlflow")
    (tmp_path / "mlflow/mlflow.db.json").unlink()

    fit(tmp_path, "mlflow", until="5 steps")

    assert len(mlflow_runs(tmp_path)) == 1


def test_mlflow_is_told_that_a_run_failed(mlflow, tmp_path):
    class Ends:
        def on_step_end(self, run):
            if run.progress.step == 2:
                raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fit(tmp_path, "mlflow", callbacks=[Ends()])

    assert mlflow_runs(tmp_path)[0]["status"] == "FAILED"


def test_mlflow_gets_the_config_once_the_sweep_as_a_tag_and_files_at_the_end(mlflow, tmp_path):
    (tmp_path / "sweep.toml").touch()
    logger = {"type": "mlflow", "artifacts": ["metrics.*", "checkpoints/best/manifest.json", "nothing/*"]}
    fit(tmp_path / "mine", logger, save_every="1 epoch")

    fit(tmp_path / "mine", logger, until="5 steps", save_every="1 epoch")

    (run,) = mlflow_runs(tmp_path / "mine")
    assert run["params"]["train.batch_size"] == "2"
    assert run["params"]["train.max_duration"] == "3 steps"  # MLflow lets no parameter change
    assert run["tags"] == {"etude.sweep": tmp_path.name}
    assert run["artifacts"][-2:] == [["metrics.jsonl", None], ["manifest.json", "checkpoints/best"]]


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../*", ""])
def test_files_from_outside_of_the_run_folder_are_no_artifacts(pattern):
    with pytest.raises(ConfigError, match="must name files in the run folder"):
        build_loggers(read_loggers([{"type": "mlflow", "artifacts": [pattern]}])[0], None)


def test_the_options_of_mlflow_reach_it(mlflow, tmp_path):
    uri = f"{tmp_path}/elsewhere"
    table = {"type": "mlflow", "tracking_uri": uri, "experiment": "numbers", "run_name": "first"}

    fit(tmp_path / "run", table)

    kept = json.loads((tmp_path / "elsewhere.json").read_text())
    assert list(kept["experiments"]) == ["numbers"]
    assert [run["name"] for run in kept["runs"].values()] == ["first"]


def test_the_address_in_the_environment_counts(mlflow, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{tmp_path}/by-environment")

    fit(tmp_path / "run", "mlflow")

    assert (tmp_path / "by-environment.json").exists()


def test_a_server_that_is_down_is_one_warning_and_training_goes_on(mlflow, tmp_path):
    said = []

    result = fit(tmp_path, {"type": "mlflow", "tracking_uri": "down://host"}, say=said.append)

    assert result.progress.step == 3
    assert [s for s in said if "MlflowLogger" in s] == [
        "The logger MlflowLogger failed and is dropped: connection refused"
    ]
    assert all(os.environ[name] for name in IMPATIENT)


def test_wandb_gets_rows_with_their_step_as_axis_offline(wandb, tmp_path):
    result = fit(tmp_path / "mine", "wandb")

    (run,) = wandb.STARTED
    assert [row["step"] for row in run.rows] == [row["step"] for row in result.history]
    assert run.rows[0]["train/loss"] == result.history[0]["train/loss"]
    assert run.given.items() >= {"mode": "offline", "project": "etude", "name": "mine", "resume": "allow"}.items()
    assert run.axes == {"step": None, "*": "step"}
    assert run.exit_code == 0


def test_wandb_gets_the_config_the_sweep_as_a_group_and_files_at_the_end(wandb, tmp_path):
    (tmp_path / "sweep.toml").touch()

    fit(tmp_path / "trial/stage", {"type": "wandb", "artifacts": ["metrics.*"]})

    (run,) = wandb.STARTED
    assert run.given["group"] == tmp_path.name
    assert run.config["train.batch_size"] == 2
    assert run.config["optimizer.betas"] == "[0.9, 0.999]"
    assert run.saved == [("metrics.jsonl", "now")]


def test_a_run_that_goes_on_is_the_same_run_of_wandb(wandb, tmp_path):
    for until in ("3 steps", "5 steps"):
        fit(tmp_path, "wandb", until=until)

    first, second = wandb.STARTED
    assert first.given["id"] == second.given["id"]


def test_the_mode_is_the_users(wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    fit(tmp_path / "a", "wandb")
    fit(tmp_path / "b", {"type": "wandb", "mode": "online", "project": "numbers", "entity": "us", "run_name": "b1"})

    by_environment, by_option = wandb.STARTED
    assert by_environment.given["mode"] == "disabled"
    assert by_option.given.items() >= {"mode": "online", "project": "numbers", "entity": "us", "name": "b1"}.items()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_one_that_is_not_installed_is_refused_before_training(name, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "is_installed", lambda _: False)

    with pytest.raises(ConfigError, match=rf"log\.loggers\[0\] is {name}, which is not installed.*etude\[{name}\]"):
        build_loggers(LogConfig(loggers=[{"type": name}]), tmp_path)


def test_one_that_is_named_needs_a_run_folder(mlflow):
    with pytest.raises(ConfigError, match="needs a run folder"):
        fit(None, "mlflow")


@pytest.mark.parametrize(
    ("logger", "told"),
    [
        ("mlflw", 'did you mean "mlflow"'),
        (object(), "but one is a object"),
        (Record, "but one is the class Record"),
        ({"type": "mlflow", "uri": "x"}, "uri"),
    ],
)
def test_what_is_no_logger_is_refused_when_the_trainer_is_made(logger, told):
    with pytest.raises(ConfigError, match=told):
        etude.Trainer(loggers=[logger], **QUIET)


def test_a_logger_that_cannot_be_closed_ends_no_run(tmp_path):
    said = []

    class Stuck:
        def log(self, row):
            pass

        def close(self):
            raise OSError("stuck")

    result = fit(tmp_path, Stuck(), say=said.append)

    assert result.progress.step == 3
    assert "The logger Stuck could not be closed: stuck" in said

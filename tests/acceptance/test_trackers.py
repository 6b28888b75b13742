"""MLflow and Weights & Biases as they are, installed for the test where they are not: what they tell of a run."""

import json
import os
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

CHECKOUT = Path(__file__).parents[2]
TRAIN = """
import sys, etude, torch
from torch.utils.data import TensorDataset
logger, until = eval(sys.argv[1]), sys.argv[2]
data = TensorDataset(torch.ones(6, 4), torch.ones(6, 1))
torch.manual_seed(1)
etude.fit(torch.nn.Linear(4, 1), data, data, loss=torch.nn.functional.mse_loss, max_duration=until, loggers=[logger],
    run_dir="swept/first", batch_size=2, device="cpu", progress=False, log_every="1 step", freeze={"0": ["weight*"]}
    if "frozen" in sys.argv else [])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Gives the Python of an environment in which a package can be imported, beside the libraries of this one."""

    def install(*wanted):
        home = Path(os.environ.get("ETUDE_TRACKERS") or tmp_path_factory.mktemp("trackers")) / wanted[0][:6].strip(
            "><="
        )
        python = home / "bin/python"
        if not python.exists():
            venv.create(home, with_pip=False)
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python, "install"]
            done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{wanted[0]} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
            (libraries,) = (home / "lib").glob("python*/site-packages")
            # Behind its own, of which some are of other versions than MLflow takes.
            (libraries / "shared.pth").write_text("".join(f"{place}\n" for place in site.getsitepackages()))
        return python

    return install


@pytest.fixture(scope="module")
def mlflow(installed):
    return installed("mlflow>=3")


@pytest.fixture(scope="module")
def wandb(installed):
    return installed("wandb>=0.17")


def child(python, script, *words, folder):
    """What a script says that is run by this Python."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "WANDB"))}
    source = os.pathsep.join([str(CHECKOUT / "src"), *filter(None, [kept.get("PYTHONPATH")])])
    done = subprocess.run(
        [python, "-c", script, *words],
        cwd=folder,
        env={**kept, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def rows(folder):
    return [json.loads(line) for line in (folder / "swept/first/metrics.jsonl").read_text().splitlines()]


READ_MLFLOW = """
import json
from mlflow import MlflowClient
client = MlflowClient(tracking_uri="sqlite:///swept/first/mlflow/mlflow.db")
experiment = client.get_experiment_by_name("etude")
runs = client.search_runs([experiment.experiment_id])
history = {
    name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
    for run in runs
    for name in run.data.metrics
}
print(json.dumps([
    {"name": run.info.run_name, "status": run.info.status, "params": run.data.params, "tags": run.data.tags,
     "artifacts": [one.path for one in client.list_artifacts(run.info.run_id)], "metrics": history}
    for run in runs
]))
"""


def test_mlflow_tells_of_a_run_and_of_its_sweep(mlflow, tmp_path):
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept/sweep.toml").touch()
    logger = repr({"type": "mlflow", "artifacts": ["config.toml", "metrics.*"]})
    child(mlflow, TRAIN, logger, "3 steps", folder=tmp_path)
    child(mlflow, TRAIN, logger, "5 steps", folder=tmp_path)

    (told,) = json.loads(child(mlflow, READ_MLFLOW, folder=tmp_path).splitlines()[-1])

    assert (told["name"], told["status"], told["tags"]["etude.sweep"]) == ("first", "FINISHED", "swept")
    logged = [(row["step"], row["train/loss"]) for row in rows(tmp_path) if row.get("train/loss") is not None]
    assert dict(told["metrics"]["train/loss"]) == pytest.approx(dict(logged))
    assert told["params"]["train.batch_size"] == "2"
    assert told["params"]["optimizer.betas"] == "[0.9, 0.999]"
    assert set(told["artifacts"]) >= {"metrics.jsonl"}


def test_an_mlflow_server_that_is_down_hurts_no_run(mlflow, tmp_path):
    logger = repr({"type": "mlflow", "tracking_uri": "http://127.0.0.1:9"})

    said = child(mlflow, TRAIN, logger, "3 steps", folder=tmp_path)

    assert [row["step"] for row in rows(tmp_path) if "train/loss" in row][-1] == 3
    assert "mlflow" in said.lower()


READ_WANDB = """
import glob, json, struct
from wandb.proto import wandb_internal_pb2 as proto

def records(data):
    # A log of LevelDB: blocks of 32 KiB, in each records of checksum, length, kind (1 whole, 2 first, 4 last).
    place, held = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        held += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield held
            held = b""

def value(one):
    return {one.key or ".".join(one.nested_key): json.loads(one.value_json)}

found = []
for path in sorted(glob.glob("swept/first/wandb/offline-run-*/*.wandb")):
    told = {"rows": [], "config": {}, "files": [], "exit": None}
    for data in records(open(path, "rb").read()):
        record = proto.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            told["rows"].append({key: part for one in record.history.item for key, part in value(one).items()})
        elif record.HasField("run"):
            told |= {"id": record.run.run_id, "name": record.run.display_name, "group": record.run.run_group}
        elif record.HasField("config"):
            told["config"] |= {key: part for one in record.config.update for key, part in value(one).items()}
        elif record.HasField("files"):
            told["files"] += [one.path for one in record.files.files]
        elif record.HasField("exit"):
            told["exit"] = record.exit.exit_code
    found.append(told)
print(json.dumps(found))
"""


def test_wandb_tells_of_a_run_and_of_its_sweep_offline(wandb, tmp_path):
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept/sweep.toml").touch()
    logger = repr({"type": "wandb", "artifacts": ["config.toml", "metrics.*"]})
    child(wandb, TRAIN, logger, "3 steps", folder=tmp_path)
    child(wandb, TRAIN, logger, "5 steps", folder=tmp_path)

    first, second = json.loads(child(wandb, READ_WANDB, folder=tmp_path).splitlines()[-1])

    assert (first["name"], first["group"], first["exit"]) == ("first", "swept", 0)
    assert first["id"] == second["id"]
    every = [*first["rows"], *second["rows"]]
    told = [(row["step"], row["train/loss"]) for row in every if "train/loss" in row]
    logged = [(row["step"], row["train/loss"]) for row in rows(tmp_path) if row.get("train/loss") is not None]
    assert dict(told) == pytest.approx(dict(logged))
    assert first["config"]["train.batch_size"] == 2
    assert "metrics.jsonl" in first["files"]

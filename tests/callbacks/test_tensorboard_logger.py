"""TensorBoard's files: what its own reader finds in them, also after kills and resumes."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from etude.base.config.components import Imported
from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.callbacks import config as module
from etude.callbacks.config import LogConfig, build_loggers
from etude.callbacks.tensorboard import TensorBoardLogger
from etude.train.watch.callback import RunView
from etude.train.watch.record import Record


def row(step, **scalars):
    return {"step": step, "epoch": step / 10, "tokens": step * 100} | {f"train/{k}": v for k, v in scalars.items()}


def points(folder, tag):
    read = EventAccumulator(str(folder))
    read.Reload()
    return [(one.step, one.value) for one in read.Scalars(tag)]


@pytest.fixture
def run(tmp_path):
    """Log some steps as one process of a run does, and do not close what it wrote; the record's size at each step."""
    left = []

    def run(steps, *, cut):
        record = Record(tmp_path, [TensorBoardLogger(tmp_path / "tensorboard")])
        left.append(record)
        record.open(cut=cut)
        sizes = {}
        for step in steps:
            record.write(row(step, loss=step / 2))
            sizes[step] = record.size()
        return sizes

    yield run
    for record in left:
        record.close()


def test_every_number_stands_against_its_step(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.log(row(5, loss=1.5, grad_norm=None))
    logger.log(row(10, loss=0.5, name="text"))
    logger.close()

    assert points(tmp_path, "train/loss") == [(5, 1.5), (10, 0.5)]
    assert [value for _, value in points(tmp_path, "epoch")] == [0.5, 1.0]


def test_a_point_is_readable_at_once_though_the_process_be_killed_next(tmp_path):
    logger = TensorBoardLogger(tmp_path)

    logger.log(row(5, loss=1.5))

    assert points(tmp_path, "train/loss") == [(5, 1.5)]
    logger.close()


@pytest.mark.parametrize("kept", range(4))
def test_a_resumed_run_has_every_point_once(kept, run, tmp_path):
    sizes = run(range(1, 5), cut=0)  # killed behind step 4

    run(range(kept + 1, 7), cut=sizes.get(kept, 0))

    assert points(tmp_path / "tensorboard", "train/loss") == [(step, step / 2) for step in range(1, 7)]


def test_a_resume_that_logs_at_other_steps_takes_back_all_behind_its_checkpoint(run, tmp_path):
    sizes = run((2, 4, 6), cut=0)

    run((7,), cut=sizes[2])

    assert points(tmp_path / "tensorboard", "train/loss") == [(2, 1.0), (7, 3.5)]


def test_nothing_is_written_before_the_first_row(tmp_path):
    TensorBoardLogger(tmp_path / "tensorboard").close()

    assert not list(tmp_path.iterdir())


def test_auto_is_on_where_tensorboard_is_installed_and_silent_where_it_is_not(tmp_path, monkeypatch):
    assert len(build_loggers(LogConfig(), tmp_path)) == 1
    assert build_loggers(LogConfig(tensorboard=False), tmp_path) == []
    monkeypatch.setattr(module, "is_installed", lambda _: False)

    assert build_loggers(LogConfig(), tmp_path) == []
    with pytest.raises(ConfigError, match=r"etude\[tensorboard\]"):
        build_loggers(LogConfig(tensorboard=True), tmp_path)


def test_a_folder_called_tensorboard_is_no_installation(tmp_path, monkeypatch):
    (tmp_path / "a_bare_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    assert not module.is_installed("a_bare_folder")
    assert not module.is_installed("nothing_of_that_name")


LOGGER = """
import json
class Mine:
    def __init__(self, folder, name="mine.txt"):
        self.path = folder / name
    def log(self, row):
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\\n")
class Not:
    pass
"""


def test_a_logger_of_ones_own_gets_the_run_folder_and_its_arguments(tmp_path):
    (tmp_path / "mine.py").write_text(LOGGER)
    entry = Imported.model_validate({"type": f"{tmp_path}/mine.py:Mine", "name": "rows.txt"})

    (logger,) = build_loggers(LogConfig(tensorboard=False, loggers=[entry]), tmp_path)
    logger.log(row(3, loss=1.0))

    assert json.loads((tmp_path / "rows.txt").read_text()) == row(3, loss=1.0)


def test_a_logger_that_cannot_log_is_refused_by_name(tmp_path):
    (tmp_path / "mine.py").write_text(LOGGER)
    entry = Imported.model_validate({"type": f"{tmp_path}/mine.py:Not"})

    with pytest.raises(ConfigError, match=r"log\.loggers\[0\] .* must have a method log\(row\)"):
        build_loggers(LogConfig(tensorboard=False, loggers=[entry]), tmp_path)


def test_the_config_stands_there_as_hyper_parameters_under_the_sweep_and_the_run(tmp_path):
    from tensorboard.plugins.hparams import metadata

    (tmp_path / "sweep.toml").touch()
    logger = TensorBoardLogger(tmp_path / "trial/tensorboard")
    config = {
        "optimizer": {"learning_rate": 0.5, "betas": [0.9, 0.99]},
        "task": {"type": "own"},
        "on": True,
        "no": None,
    }
    logger.on_fit_start(RunView(Progress(), None, config))
    logger.log(row(1, loss=1.0))
    logger.close()

    read = EventAccumulator(str(tmp_path / "trial/tensorboard"))
    read.Reload()
    (content,) = read.PluginTagToContent("hparams").values()
    told = metadata.parse_session_start_info_plugin_data(content)
    assert told.group_name == f"{tmp_path.name}/trial"
    found = {name: getattr(value, value.WhichOneof("kind")) for name, value in told.hparams.items()}
    assert found == {"optimizer.learning_rate": 0.5, "optimizer.betas": "[0.9, 0.99]", "task.type": "own", "on": True}

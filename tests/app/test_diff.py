"""Where two runs part, and what differed there."""

import hashlib
import json
import shutil

import pytest
import torch
from forks import fork, parent, quiet, rows, written
from safetensors.torch import load_file, save_file

import etude
from etude.__main__ import main
from etude.app.running import train_run
from etude.app.runs.diff import compare_runs


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run whose checkpoints are all kept."""
    return parent(tmp_path_factory.mktemp("straight"), **{"train.keep_last": 9})


@pytest.fixture(scope="module")
def forked(straight):
    """A fork of it with another rate from step 6 on."""
    return fork(straight, "6 steps", "--optimizer.learning_rate=0.002", "--run.name=forked")


@pytest.fixture
def changed(straight, tmp_path):
    """A copy of the run, to be changed by hand."""
    return shutil.copytree(straight, tmp_path / "copy", symlinks=True)


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def row_changed(run, step, **values):
    record = run / "metrics.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    for row in lines:
        if row["step"] == step and "train/loss" in row:
            row.update(values)
    record.write_text("".join(json.dumps(row) + "\n" for row in lines))


def test_a_run_does_not_part_from_itself(straight):
    found = compare_runs(straight, straight)

    assert (found.parts_at, found.equal_to, found.cause) == (None, 18, None)
    assert found.saved == [3, 4, 6, 8, 9, 12, 15, 16, 18]


def test_a_fork_parts_from_its_parent_right_after_its_step(straight, forked):
    found = compare_runs(straight, forked)

    assert [change[0] for change in found.config] == ["optimizer.learning_rate"]
    assert (found.equal_to, found.parts_at, found.cause) == (6, 7, "config")
    assert found.rows.values[0] == ("train/learning_rate", 0.01, 0.002)


def test_the_first_checkpoint_that_differs_is_told_with_how_far_its_weights_are_apart(straight, forked):
    found = compare_runs(straight, forked).weights

    step = min(step for step in compare_runs(straight, forked).saved if step > 6)
    one, other = (
        load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors") for run in (straight, forked)
    )
    expected = {name: float((value - other[name]).abs().max()) for name, value in one.items()}
    assert found.step == step
    assert dict(found.weights) == pytest.approx({name: far for name, far in expected.items() if far})
    assert found.optimizer > 0


def test_runs_of_other_logging_are_compared_where_both_logged(straight, tmp_path):
    other = parent(tmp_path, **{"train.log_every": "4 steps"})

    found = compare_runs(straight, other)

    assert found.parts_at is None
    assert found.equal_to == 18
    assert found.logged == len({row["step"] for row in rows(other)})


def test_two_runs_of_another_seed_part_at_the_first_step(straight, tmp_path):
    found = compare_runs(straight, parent(tmp_path, **{"run.seed": 2}))

    assert (found.equal_to, found.parts_at, found.cause) == (None, 1, "config")


def test_a_value_of_the_clock_is_no_difference(straight, changed):
    row_changed(
        changed, 5, **{"time/step": 99.0, "train/tokens_per_second": 1.0, "peak_memory": 5, "wait_seconds": 3.0}
    )

    assert compare_runs(straight, changed).parts_at is None


def test_with_equal_configs_the_data_is_named(straight, changed):
    row_changed(changed, 5, **{"train/loss": 0.0})
    rewrite(changed / "data.json", lambda data: data.update(train="f" * 64))

    found = compare_runs(straight, changed)

    assert [name for name, _, _ in found.data] == ["train"]
    assert (found.equal_to, found.parts_at, found.cause) == (4, 5, "data")


def test_a_key_that_changes_no_number_is_no_cause(straight, changed):
    row_changed(changed, 5, **{"train/loss": 0.0})
    rewrite(changed / "data.json", lambda data: data.update(train="f" * 64))
    config = changed / "config.toml"
    config.write_text(config.read_text().replace("keep_last = 9", "keep_last = 8"))

    found = compare_runs(straight, changed)

    assert ([change[0] for change in found.config], found.cause) == (["train.keep_last"], "data")


def test_with_equal_data_the_code_is_named(straight, changed):
    row_changed(changed, 5, **{"train/loss": 0.0})
    (changed / "code").mkdir()
    (changed / "code" / "sha256.json").write_text('{"net.py": "aa"}')

    found = compare_runs(straight, changed)

    assert (found.code, found.cause) == ([("net.py", None, "aa")], "code")


def test_with_nothing_else_the_arithmetic_is_named(straight, changed):
    row_changed(changed, 5, **{"train/loss": 0.0})
    rewrite(changed / "environment.json", lambda told: told["hardware"].update(threads=77))

    found = compare_runs(straight, changed)

    assert [name for name, _, _ in found.environment] == ["hardware.threads"]
    assert found.cause == "arithmetic"


def test_a_tokenizer_that_differs_is_data(straight, changed):
    path = next((changed / "tokenizers").glob("*.json"))
    path.write_bytes(path.read_bytes() + b" ")

    assert [name for name, _, _ in compare_runs(straight, changed).data] == [f"tokenizers/{path.name}"]


def test_a_damaged_checkpoint_is_left_out_and_told_of(straight, changed):
    (changed / "checkpoints" / "step-00000012" / "model.safetensors").write_bytes(b"")

    found = compare_runs(straight, changed)

    assert 12 not in found.saved
    assert any("cut short" in note for note in found.notes)


def test_runs_without_a_step_in_common_are_told_of(straight, tmp_path, capsys):
    loaded = written(tmp_path, **{"train.max_duration": "2 steps", "train.log_every": "2 steps"})
    train_run(loaded, say=quiet)
    short = loaded.config.folder
    (short / "metrics.jsonl").unlink()

    assert main(["diff", str(straight), str(short)]) == 0
    assert "nothing to compare" in capsys.readouterr().out


def test_what_a_run_remembers_is_compared_too(straight, tmp_path):
    other = parent(tmp_path, **{"train.keep_last": 9, "train.min_delta": 10.0})

    found = compare_runs(straight, other)

    assert found.parts_at is None
    step, names = found.state
    assert step in found.saved
    assert any(name.startswith("part stopping.") for name in names)


def test_what_a_run_remembers_in_tensors_is_compared_too(straight, changed):
    place = changed / "checkpoints" / "step-00000012"
    kept = load_file(place / "state.safetensors")
    name = next(iter(kept))
    save_file({**kept, name: kept[name].flip(0)}, place / "state.safetensors")
    content = (place / "state.safetensors").read_bytes()
    digest = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite(place / "manifest.json", lambda manifest: manifest["files"].update({"state.safetensors": digest}))

    found = compare_runs(straight, changed)

    assert (found.parts_at, found.state) == (None, (12, [name]))


class Sums(etude.Task):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = torch.nn.Linear(3, 1)

    def training_step(self, batch):
        (inputs,) = batch
        return (self.net(inputs) - inputs.sum(1, keepdim=True)).square().mean()


def test_runs_of_a_trainer_are_compared(tmp_path):
    data = torch.utils.data.TensorDataset(torch.randn(12, 3, generator=torch.Generator().manual_seed(1)))
    for name, rate in (("one", 0.1), ("same", 0.1), ("other", 0.2)):
        options = {"run_dir": tmp_path / name, "say": quiet, "progress": False, "device": "cpu", "loggers": []}
        trainer = etude.Trainer(
            max_duration="2 epochs", batch_size=4, log_every="1 step", learning_rate=rate, **options
        )
        trainer.fit(Sums(), data)

    same, other = (compare_runs(tmp_path / "one", tmp_path / name) for name in ("same", "other"))

    assert (same.parts_at, same.equal_to) == (None, 6)
    assert (other.parts_at, other.cause) == (1, "config")


# -- the shell -----------------------------------------------------------------------------------------------------


def test_the_shell_tells_config_step_values_and_cause(straight, forked, capsys):
    assert main(["diff", str(straight), str(forked)]) == 0

    told = capsys.readouterr().out.splitlines()
    assert "  optimizer.learning_rate: a 0.01, b 0.002" in told
    assert any(
        line.startswith("Steps: the first difference is at step 7; equal to step 6 (18 logged steps and")
        for line in told
    )
    assert "  train/learning_rate: a 0.01, b 0.002" in told
    assert told[-1] == "Likely because of the config: optimizer.learning_rate."


def test_the_shell_tells_of_equal_runs(straight, capsys):
    assert main(["diff", str(straight), str(straight)]) == 0

    assert capsys.readouterr().out.splitlines()[-1].startswith("Steps: equal to step 18, the last that both runs have")


def test_json_is_one_object_with_every_difference(straight, forked, capsys):
    assert main(["diff", str(straight), str(forked), "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert (told["equal_to"], told["parts_at"], told["cause"]) == (6, 7, "config")
    assert told["config"] == [{"name": "optimizer.learning_rate", "a": 0.01, "b": 0.002}]
    assert told["metrics"]["step"] == 7
    assert len(told["weights"]["parameters"]) <= told["weights"]["of"]


def test_a_folder_that_is_no_run_is_an_error_of_storage(straight, tmp_path, capsys):
    assert main(["diff", str(straight), str(tmp_path)]) == 5
    assert "is not a run folder" in capsys.readouterr().err


def test_nothing_is_written(straight, forked):
    before = {path: path.stat().st_mtime_ns for run in (straight, forked) for path in run.rglob("*")}

    compare_runs(straight, forked)

    assert {path: path.stat().st_mtime_ns for run in (straight, forked) for path in run.rglob("*")} == before


def test_a_missing_record_is_no_error(straight, changed):
    (changed / "metrics.jsonl").unlink()

    found = compare_runs(straight, changed)

    assert (found.logged, found.equal_to) == (0, 18)

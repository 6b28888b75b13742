"""What a fork may change, what it refuses, and what then begins anew."""

import json

import pytest
import torch
from forks import STEPS, about, bits, fork, parent, quiet, rows, written
from safetensors.torch import load_file

from etude.__main__ import main
from etude.app.results.summary import FINISHED, summary
from etude.app.running import train_run
from etude.base.errors import ConfigError, RefusedError, StorageError


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A parent with a momentum and a plateau."""
    plateau = {"schedule": "plateau", "peak": 0.05, "patience": 1, "min_delta": 10.0}
    return parent(tmp_path_factory.mktemp("parent"), **{"optimizer.learning_rate": plateau})


def taken(run, at, tmp_path, *changes):
    said = []
    made = fork(run, at, f"--run.dir={tmp_path}", *changes, say=said.append)
    return made, said


REFUSED = {
    "--model.d_model=16": r"model\.d_model was 8 and would be 16, but the weights of the parent do not fit",
    "--tokenizer.type=char": r"tokenizer\.type was \"word\" and would be \"char\", but the weights belong",
    "--optimizer.type=sgd": r"optimizer\.type was \"adamw\" and would be \"sgd\", but an optimizer cannot use",
    "--optimizer.amsgrad=true": r"optimizer\.amsgrad was false and would be true",
    "--init.weights={'decoder.*' = 'orthogonal'}": r"init\.weights.* would be .*only before the first step",
    "--train.batch_size=4": r"train\.batch_size was 6 and would be 4, .* give --at in whole epochs instead of 8 steps",
    "--data.max_length=9": r"data\.max_length was false and would be 9, but an epoch keeps the data",
    "--run.seed=2": r"run\.seed was 1 and would be 2, but an epoch keeps the data",
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_change_that_cannot_be_taken_is_refused_and_leaves_nothing(change, straight, tmp_path):
    with pytest.raises(RefusedError, match=REFUSED[change]):
        fork(straight, "8 steps", f"--run.dir={tmp_path}", change)

    assert [path.name for path in tmp_path.iterdir() if path.name != ".cache"] == []


@pytest.mark.parametrize("change", ["--train.batch_size=4", "--run.seed=2"])
def test_what_makes_the_batches_changes_at_an_epochs_end(change, straight, tmp_path):
    made, _ = taken(straight, "1 epoch", tmp_path, change)

    assert rows(made, 6) == rows(straight, 6)
    later = [
        [row["train/loss"] for row in rows(run) if row["step"] > 6 and "train/loss" in row] for run in (made, straight)
    ]
    assert later[0] != later[1]
    assert len(later[0]) == (18 if "batch_size" in change else 12)


def test_other_training_data_is_taken_at_an_epochs_end_and_told_of(straight, tmp_path):
    lines = (straight.parent.parent / "train.tsv").read_text().splitlines()
    (tmp_path / "other.tsv").write_text("\n".join([lines[0], *lines[:0:-1][:18]]) + "\n")

    made, said = taken(straight, "1 epoch", tmp_path / "runs", f"--data.train={tmp_path / 'other.tsv'}")

    assert any("data.train holds other samples" in sentence for sentence in said)
    assert [row["samples"] for row in rows(made) if "samples" in row][-1] == 36 + 2 * 18


def test_a_fixed_rate_takes_the_place_of_a_plateau_that_has_fallen(straight, tmp_path):
    made, _ = taken(straight, "8 steps", tmp_path, "--optimizer.learning_rate=0.05")

    rates = [row["train/learning_rate"] for row in rows(made) if "train/loss" in row]
    assert rates[7] < 0.05
    assert set(rates[8:]) == {0.05}


def test_options_of_the_optimizer_are_those_of_the_forks_config(straight, tmp_path):
    made, _ = taken(straight, "8 steps", tmp_path, "--optimizer.betas=[0.5, 0.6]", "--optimizer.weight_decay=0.3")

    groups = bits(made)["state"]["optimizers"]["0"]["groups"]
    assert {tuple(group["betas"]["$tuple"]) for group in groups} == {(0.5, 0.6)}
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}
    moments = load_file(made / "checkpoints" / "last" / "optimizer.safetensors")
    assert {float(value) for name, value in moments.items() if name.endswith("/step")} == {float(STEPS)}


def test_a_frozen_parameter_stays_and_the_rest_goes_on(straight, tmp_path):
    made, _ = taken(straight, "8 steps", tmp_path, '--train.freeze=["model.decoder.*"]')

    at_fork = fork(straight, "8 steps", f"--run.dir={tmp_path / 'at'}", train=False)
    before, after = (load_file(run / "checkpoints" / "last" / "model.safetensors") for run in (at_fork, made))
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert {name for name in before if name.startswith("model.decoder.")} <= same
    assert len(same) < len(before)


def test_a_thawed_parameter_is_trained_from_the_fork_on(tmp_path):
    frozen = parent(tmp_path, **{"train.freeze": ["model.decoder.*"]})

    made = fork(frozen, "8 steps", "--train.freeze=[]")

    before, after = (load_file(run / "checkpoints" / "last" / "model.safetensors") for run in (frozen, made))
    assert all(not torch.equal(before[name], after[name]) for name in before if "decoder.0.feedforward" in name)


def test_a_plateau_that_is_added_begins_anew_and_is_told_of(tmp_path):
    fixed = parent(tmp_path)

    made, said = taken(fixed, "8 steps", tmp_path, "--optimizer.learning_rate={schedule='plateau', peak=0.02}")

    name = "schedule 0 0 lr"
    assert name in about(made)["begun_anew"]
    assert any("start empty at the fork" in sentence and name in sentence for sentence in said)
    assert [row["train/learning_rate"] for row in rows(made) if "train/loss" in row][8] == 0.02


def test_an_average_that_is_added_begins_at_the_weights_of_the_fork(straight, tmp_path):
    made = fork(straight, "8 steps", f"--run.dir={tmp_path}", "--train.ema_decay=0.9", train=False)

    place = made / "checkpoints" / "last"
    weights, averaged = (load_file(place / name) for name in ("model.safetensors", "ema.safetensors"))
    assert "average of the weights" in about(made)["begun_anew"]
    assert all(torch.equal(value, averaged[name]) for name, value in weights.items())


def test_another_monitor_begins_its_count_of_the_best_anew(straight, tmp_path):
    made = fork(straight, "8 steps", f"--run.dir={tmp_path}", "--train.monitor=val/perplexity", train=False)

    assert "stopping" in about(made)["begun_anew"]
    assert bits(made)["state"]["part stopping"]["best"] is None


def test_validations_of_the_set_that_was_fitted_are_no_best_of_a_fork_that_has_the_whole(tmp_path):
    fitted = parent(tmp_path, **{"train.overfit": 1})

    made = fork(fitted, "1 epoch", "--train.overfit=false", train=False)

    assert "stopping" in about(made)["begun_anew"]


def test_patience_counts_the_parents_validations_too(straight, tmp_path):
    made, _ = taken(straight, "8 steps", tmp_path, "--train.patience=1", "--train.min_delta=10.0")

    assert bits(made)["state"]["ended"]["says"].startswith("early stopping")
    assert rows(made)[-1]["step"] == 9


def test_other_validation_data_is_taken_at_any_step_and_begins_the_count_of_the_best_anew(straight, tmp_path):
    lines = (straight.parent.parent / "train.tsv").read_text().splitlines()
    (tmp_path / "other.tsv").write_text("\n".join(lines[:5]) + "\n")

    made, _ = taken(straight, "8 steps", tmp_path, f"--data.val={tmp_path / 'other.tsv'}", "--data.workers=0")

    assert about(made)["begun_anew"] == ["stopping"]
    assert rows(made)[-1]["val/loss"] != rows(straight)[-1]["val/loss"]


def test_a_longer_fork_of_the_end_goes_on(straight, tmp_path):
    made, _ = taken(straight, "18 steps", tmp_path, "--train.max_duration=20 steps")

    assert rows(made)[-1]["step"] == 20
    assert rows(made, 18) == rows(straight, 18)


STOPS = """
import etude


class StopsAtEight(etude.Callback):
    def on_step_end(self, run, outcome):
        return etude.Stop("enough") if run.progress.step == 8 else None
"""


def test_a_changed_fork_of_a_run_that_a_callback_ended_goes_on_and_an_unchanged_one_has_ended(tmp_path):
    (tmp_path / "stops.py").write_text(STOPS)
    run = parent(tmp_path, callbacks=[f"{tmp_path / 'stops.py'}:StopsAtEight"])

    changed, same = (fork(run, "8 steps", *words) for words in (["--train.clip_grad=1.0"], []))

    assert rows(changed)[-1]["step"] == STEPS
    assert rows(same) == rows(run)
    assert bits(same) == bits(run)


def test_an_unchanged_fork_of_the_very_end_has_ended_as_its_parent_has(tmp_path):
    run = parent(tmp_path, **{"train.max_duration": "17 steps", "train.log_every": "5 steps"})
    with (run / "metrics.jsonl").open("a") as record:
        record.write('{"step": 17, "epoch": 2.8, "tokens": 9, "test/loss": 1.0}\n')

    made = fork(run, "17 steps")

    assert rows(made) == rows(run)[:-1]
    assert bits(made) == bits(run)


# -- names, moments and mistakes -----------------------------------------------------------------------------------


def test_a_fork_is_named_after_its_parent_and_moment_and_overwrites_nothing(straight, tmp_path):
    names = [
        fork(straight, at, f"--run.dir={tmp_path}", *changes, train=False).name
        for at, *changes in (
            ("8 steps",),
            ("8 steps",),
            ("8 steps", "--train.clip_grad=1.0"),
            ("8 steps", "--train.clip_grad=1.0"),
            ("0.5 epochs",),
            ("50 %",),
            ("8 steps", "--run.name=mine"),
        )
    ]

    again = "parent-fork-8-2"
    assert names == [
        "parent-fork-8",
        "parent-fork-8",
        again,
        again,
        "parent-fork-0.5-epochs",
        "parent-fork-50-percent",
        "mine",
    ]


def test_a_name_that_is_taken_is_refused(straight):
    with pytest.raises(RefusedError, match="exists, and is not this fork"):
        fork(straight, "8 steps", "--run.name=parent")


MOMENTS = {
    "8": (ConfigError, "--at must be a number with its unit"),
    "3 minutes": (ConfigError, "--at must not be a time"),
    "0 steps": (ConfigError, "--at must be more than 0"),
    "20 steps": (RefusedError, r"ended at step 18 \(max_duration reached: 3 epochs\), before 20 steps"),
    "4 epochs": (RefusedError, "ends at 3 epochs, before 4 epochs"),
}


@pytest.mark.parametrize("at", MOMENTS)
def test_a_moment_that_cannot_be_is_told_of(at, straight, tmp_path):
    kind, said = MOMENTS[at]

    with pytest.raises(kind, match=said):
        fork(straight, at, f"--run.dir={tmp_path}")


def test_the_first_of_several_ends_is_told_of(tmp_path):
    run = parent(tmp_path, **{"train.max_duration": ["9 epochs", "2 epochs"]})

    with pytest.raises(RefusedError, match="ends at 2 epochs, before 3 epochs"):
        fork(run, "3 epochs")


def test_a_damaged_file_of_the_parent_is_told_of_and_nothing_is_left(tmp_path):
    run = parent(tmp_path)
    (run / "data.json").write_text("[")

    with pytest.raises(StorageError, match=r"data\.json is damaged"):
        fork(run, "8 steps")

    assert [place.name for place in run.parent.iterdir() if place.name != ".cache"] == ["parent"]


def test_a_folder_that_is_no_run_is_told_of(tmp_path):
    with pytest.raises(StorageError, match="is not a run folder"):
        fork(tmp_path, "1 step")


def test_a_run_from_python_is_told_of(tmp_path):
    (tmp_path / "config.toml").write_text("[train]\nbatch_size = 8\n")

    with pytest.raises(ConfigError, match="was trained from Python"):
        fork(tmp_path, "1 step")


def test_a_parent_that_has_not_come_so_far_is_trained_on_by_the_fork(tmp_path):
    whole = parent(tmp_path)
    short = written(tmp_path, **{"run.name": "short", "train.max_duration": "7 steps", "optimizer.learning_rate": 0.01})
    train_run(short, say=quiet)
    state = short.config.folder / "checkpoints" / "last" / "state.json"
    unsound = json.loads(state.read_text())
    said = []
    with pytest.raises(RefusedError, match="ends at 7 steps, before 8 steps"):
        fork(short.config.folder, "8 steps")
    # The same run, stopped where it was meant to go on: its config tells another end.
    config = short.config.folder / "config.toml"
    config.write_text(config.read_text().replace('"7 steps"', '"3 epochs"'))
    manifest = state.with_name("manifest.json")
    unsound["ended"] = {"reason": "interrupted by SIGTERM", "until": ["3 epochs"]}
    _rewrite(state, manifest, unsound)

    made = fork(short.config.folder, "10 steps", say=said.append)

    assert any("has only reached step 7 so far" in sentence for sentence in said)
    assert rows(made) == rows(whole)
    assert bits(made)["model.safetensors"] == bits(whole)["model.safetensors"]


def _rewrite(state, manifest, content):
    import hashlib

    state.write_text(json.dumps(content))
    listed = json.loads(manifest.read_text())
    listed["files"]["state.json"] = {
        "bytes": state.stat().st_size,
        "sha256": hashlib.sha256(state.read_bytes()).hexdigest(),
    }
    manifest.write_text(json.dumps(listed))


def test_steps_that_need_data_which_has_changed_are_not_taken_again(tmp_path):
    run = parent(tmp_path)
    lines = (tmp_path / "train.tsv").read_text().splitlines()
    (tmp_path / "train.tsv").write_text("\n".join(lines[:-3]) + "\n")

    with pytest.raises(RefusedError, match=r"The content of data\.train .* has changed since"):
        fork(run, "5 steps")

    assert not (run.parent / "parent-fork-5").exists()


def test_steps_that_could_not_be_repeated_are_told_of(tmp_path):
    run = parent(tmp_path)
    record = run / "metrics.jsonl"
    lines = record.read_text().splitlines()
    lines[2] = lines[2].replace('"train/loss": ', '"train/loss": 1')
    record.write_text("\n".join(lines) + "\n")
    said = []

    made = fork(run, "5 steps", say=said.append, train=False)

    assert about(made)["repeated"] is False
    assert any("recomputed steps differ: at step 3 train/loss is" in sentence for sentence in said)


# -- the shell -----------------------------------------------------------------------------------------------------


def test_the_shell_makes_a_fork_and_trains_it_on(straight, tmp_path, capsys):
    words = ["fork", str(straight), "--at", "8 steps", "--run.dir", str(tmp_path), "--train.clip_grad", "1.0"]

    codes = [main([*words, "--no-train"]), main(words), main(words)]

    told = capsys.readouterr().err
    made = summary(tmp_path / "parent-fork-8")
    assert codes == [0, 0, 0]
    assert (made.state, made.step) == (FINISHED, STEPS)
    assert told.count("The fork trains with its own config from step 8 on.") == 1
    assert "Nothing to do: the run is finished" in told


def test_the_shell_refuses_in_one_line_and_with_its_code(straight, tmp_path, capsys):
    words = ["fork", str(straight), "--at", "8 steps", "--run.dir", str(tmp_path), "--optimizer.type", "sgd"]

    assert main(words) == 7
    last = capsys.readouterr().err.strip().split("\n")[-1]
    assert last.startswith("etude: optimizer.type was")

"""What a trainer gives back, keeps, writes and continues."""

import json
from pathlib import Path

import pytest
import torch
from python_face import QUIET, Line, batches, fit, line, net, steps_with, trainer
from torch.utils.data import DataLoader

import etude
from etude.base.errors import ConfigError, RefusedError

CLOCK = ("_seconds", "_per_second", "_memory")


def timeless(rows):
    return [{k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith(CLOCK)} for row in rows]


def read(folder):
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("max_duratoin", "did you mean max_duration"),
        ("max_epochs", "train.max_duration"),
        ("gradient_clip_val", "train.clip_grad"),
        ("accumulate_grad_batches", "train.accumulate"),
        ("overfit_batches", "train.overfit"),
        ("lr", "did you mean learning_rate"),
        ("optimiser", "did you mean optimizer"),
        ("callback", "did you mean callbacks"),
        ("zzz", "max_duration"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_name(name, said):
    with pytest.raises(ConfigError, match=said):
        etude.Trainer(**{name: 3})
    with pytest.raises(ConfigError, match=said):
        etude.fit(net(), line(), loss=torch.nn.functional.mse_loss, **{name: 3})


def test_wrong_values_are_refused_all_at_once_and_none_switches_off():
    with pytest.raises(ConfigError) as caught:
        etude.Trainer(max_duration=10, clip_grad=-1.0, limit_val=1.5, patience=0, precision="float8")

    assert len(caught.value.problems) == 5
    assert "epochs, steps, batches" in str(caught.value)
    for option in ("clip_grad", "patience", "min_duration", "ema_decay", "overfit", "mode", "eval_batch_size"):
        etude.Trainer(**{option: None})
    with pytest.raises(ConfigError, match="resume"):
        etude.Trainer(resume="perhaps")
    with pytest.raises(ConfigError, match="share of the run"):
        fit(max_duration="5 %")


def test_without_a_run_folder_nothing_is_written_and_the_best_weights_are_kept_in_memory(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    before = sorted(tmp_path.rglob("*"))
    task, run = Line(), trainer(learning_rate=lambda progress: 0.1 if progress.step < 6 else 5.0)

    result = run.fit(task, line(), line(8), test=line(8))
    run.test()
    run.predict(task, line(8))

    assert sorted(tmp_path.rglob("*")) == before
    assert result.best is None
    assert result.last is None
    assert result.best_step == 6
    last = state(task)
    result.load_best(task)
    assert not same(last, state(task))


def test_the_result_tells_how_the_run_ended(tmp_path):
    result = trainer(run_dir=tmp_path, loggers=[]).fit(Line(), line(), line(8))

    assert result.reason == "max_duration reached: 2 epochs"
    assert result.progress[:5] == (12, 12, 2, 48, 48)
    assert result.metrics == {k: v for k, v in result.history[-1].items() if k.startswith("val/")}
    assert result.last == tmp_path / "checkpoints" / result.last.name
    assert result.last.name == "step-00000012"
    assert result.best.is_dir()
    assert result.history == read(tmp_path)


def test_test_uses_the_best_weights_and_says_so_and_the_task_keeps_its_last(tmp_path):
    for folder in (None, tmp_path):
        said = []
        task = Line()
        run = trainer(learning_rate=lambda progress: 0.1 if progress.step < 6 else 5.0, run_dir=folder, loggers=[])
        run._say = said.append
        result = run.fit(task, line(), line(8), test=line(8))
        last, best = state(task), Line()
        result.load_best(best)

        tested = run.test()
        at_last = run.test(weights="last")

        assert tested["test/loss"] == run.validate(best, line(8))["val/loss"]
        assert at_last["test/loss"] == run.validate(task, line(8))["val/loss"] > tested["test/loss"]
        assert same(state(task), last)
        assert any("holds the last weights (step 12)" in text and "best (step 6)" in text for text in said)
        assert any("best weights (step 6)" in text for text in said)
        assert any("last weights (step 12)" in text for text in said)
        assert result.history[-2]["test/loss"] == tested["test/loss"]
        assert result.history[-2]["step"] == 6
        assert result.history[-1]["step"] == 12
    assert read(tmp_path) == result.history
    with pytest.raises(ConfigError, match='"best" or "last"'):
        run.test(weights="first")
    with pytest.raises(ConfigError, match="needs a task and data"):
        trainer().test()


def test_load_best_fits_a_task_and_the_plain_module_alike(tmp_path):
    for folder in (None, tmp_path):
        model = net()
        result = fit(line(), line(8), model, run_dir=folder, loggers=[], learning_rate=0.2)
        plain = net(seed=7)

        assert result.load_best(plain) is plain

        error = (plain(line(8).tensors[0]) - line(8).tensors[1]).square().mean()
        best = min(row["val/loss"] for row in result.history if "val/loss" in row)
        assert float(error.detach()) == pytest.approx(best, rel=1e-5)


def test_averaged_weights_are_what_is_validated_kept_as_best_and_tested(tmp_path):
    for folder in (None, tmp_path):
        task = Line()
        run = trainer(ema_decay=0.9, learning_rate=0.3, max_duration="6 steps", run_dir=folder, loggers=[])
        average = None

        class Following(etude.Callback):
            def on_step_end(self, run, outcome):
                nonlocal average
                k = run.progress.step
                d = min(0.9, (1 + k) / (10 + k))
                now = torch.cat([p.detach().flatten() for p in run.task.parameters()])
                start = self.start if average is None else average
                average = d * start + (1 - d) * now

        watching = Following()
        watching.start = torch.cat([p.detach().flatten() for p in task.parameters()])
        run._callbacks = [watching]

        result = run.fit(task, line(), line(8))

        raw, averaged = state(task), Line()
        result.load_best(averaged)
        kept = torch.cat([p.detach().flatten() for p in averaged.parameters()])
        assert torch.allclose(kept, average, atol=1e-6)
        assert not same(raw, state(averaged))
        assert run.validate(averaged, line(8))["val/loss"] == pytest.approx(result.metrics["val/loss"], rel=1e-6)
        assert run.test(data=line(8))["test/loss"] == pytest.approx(result.metrics["val/loss"], rel=1e-6)
    assert (result.best / "ema.safetensors").exists()
    from safetensors.torch import load_file

    assert same(raw, load_file(result.last / "model.safetensors"))


def test_predictions_come_in_the_order_of_the_data_and_leave_the_task_as_it_was():
    task = Line().train()
    loader = DataLoader(line(10), batch_size=4, shuffle=True)

    found = trainer().predict(task, loader)

    assert [len(part) for part in found] == [4, 4, 2]
    assert torch.allclose(torch.cat(found), task.net(line(10).tensors[0]).detach(), atol=1e-6)
    assert not any(part.requires_grad for part in found)
    assert task.training
    assert [len(part) for part in trainer(eval_batch_size=5).predict(task, line(10))] == [5, 5]


def test_saved_weights_are_those_the_task_holds(tmp_path):
    task, run = Line(width=5), trainer(learning_rate=0.3)
    run.fit(task, line(), line(8))

    place = run.save(tmp_path / "out")

    again = Line.load(place, device="cpu")
    assert again.hparams == {"width": 5}
    assert same(state(task), state(again))


def test_the_same_script_run_again_goes_on_and_ends_as_one_that_was_never_stopped(tmp_path):
    for part, durations in (("straight", ["4 epochs"]), ("cut", ["3 steps", "2 epochs", "4 epochs"])):
        for duration in durations:
            task = Line()
            result = trainer(
                run_dir=tmp_path / part, max_duration=duration, eval_every="0.5 epochs", clip_grad=1.0, loggers=[]
            ).fit(task, line(), line(8))
        assert result.progress.step == 24

    assert timeless(read(tmp_path / "cut")) == timeless(read(tmp_path / "straight"))
    files = [tmp_path / part / "checkpoints" / "last" / "model.safetensors" for part in ("cut", "straight")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_run_started_again_gives_its_result_and_its_weights(tmp_path):
    first = trainer(run_dir=tmp_path, loggers=[]).fit(Line(), line(), line(8))
    task, run = Line(), trainer(run_dir=tmp_path, loggers=[])

    again = run.fit(task, line(), line(8))

    assert again.history == first.history
    assert again.metrics == first.metrics
    assert (again.best, again.last, again.reason, again.best_step) == (
        first.best,
        first.last,
        first.reason,
        first.best_step,
    )
    assert same(state(task), state(Line.load(first.last)))
    assert run.test(data=line(8))["test/loss"] == pytest.approx(
        min(r["val/loss"] for r in first.history if "val/loss" in r)
    )


def test_resume_must_and_never_are_held_and_other_options_are_another_run(tmp_path):
    def run(**options):
        return trainer(**{"run_dir": tmp_path, "loggers": [], **options}).fit(Line(), line(), line(8))

    with pytest.raises(RefusedError, match="nothing to resume"):
        run(resume="must")
    run()
    with pytest.raises(RefusedError, match="already holds a run"):
        run(resume="never")
    with pytest.raises(RefusedError, match=r"train\.clip_grad was false and is 1\.0"):
        run(clip_grad=1.0)
    said = []
    assert run(resume="must", max_duration="3 epochs", say=said.append).progress.epoch == 3
    assert any('max_duration is now "3 epochs"' in text for text in said)


def test_the_run_folder_holds_options_environment_metrics_and_checkpoints(tmp_path):
    import tomllib

    trainer(run_dir=tmp_path, clip_grad=2.0, optimizer="sgd", seed=3, loggers=["tensorboard"]).fit(
        Line(), line(), line(8)
    )

    config = tomllib.loads((tmp_path / "config.toml").read_text())
    assert (config["train"]["clip_grad"], config["optimizer"]["type"], config["run"]["seed"]) == (2.0, "sgd", 3)
    assert "torch" in json.loads((tmp_path / "environment.json").read_text())["versions"]
    assert str((tmp_path / "checkpoints" / "last").readlink()) == "step-00000012"
    assert list((tmp_path / "tensorboard").iterdir())


def test_loggers_get_every_row_and_unknown_names_are_refused(tmp_path):
    class Sink:
        def __init__(self):
            self.rows = []

        def log(self, row):
            self.rows.append(dict(row))

    sink = Sink()

    result = trainer(loggers=[sink]).fit(Line(), line(), line(8))

    assert sink.rows == result.history
    with pytest.raises(ConfigError, match="tensorbord"):
        trainer(loggers=["tensorbord"], run_dir=tmp_path).fit(Line(), line())


def test_progress_is_plain_lines_when_piped_and_nothing_when_switched_off(capfd):
    options = {key: value for key, value in QUIET.items() if key != "progress"}
    for shown in (True, False):
        etude.Trainer(max_duration="1 epoch", progress=shown, **options).fit(Line(), line(), line(8))
        written = "".join(capfd.readouterr())
        assert bool(written) is shown
        assert "\x1b" not in written


def test_a_run_without_validation_keeps_the_last_as_best_and_says_that_patience_is_idle():
    said = []
    task = Line()

    result = trainer(patience=1, say=said.append).fit(task, line())

    assert result.metrics == {}
    assert same(state(result.load_best(Line())), state(task))
    assert any("patience" in text for text in said)


def test_a_task_goes_through_fit_too_and_brings_its_own_loss():
    assert etude.fit(Line(), batches(), max_duration="1 epoch", **QUIET).progress.epoch == 1
    with pytest.raises(ConfigError, match="knows its loss"):
        etude.fit(Line(), batches(), loss=torch.nn.functional.mse_loss, **QUIET)


def test_scripts_may_give_paths_as_text(tmp_path):
    result = trainer(run_dir=str(tmp_path / "a" / "b"), loggers=[]).fit(Line(), line(), line(8))

    assert isinstance(result.best, Path)
    assert steps_with(result, "val/loss") == [6, 12]


def test_resuming_asks_for_a_folder():
    with pytest.raises(ConfigError, match='resume="must" needs a run_dir'):
        trainer(resume="must")


def test_a_device_may_be_torchs_own():
    assert trainer(device=torch.device("cpu")).config.device == "cpu"

"""Runs whose config changes with their epochs: they grow, end in the same bits however they were cut, and are used."""

import json

import pytest
import torch
from growing import DEEPER, GROWING, files, losses, rows, run, stripped, write_place

import etude
from etude.__main__ import main
from etude.app.runs.run import Run
from etude.base.errors import ConfigError
from etude.tasks.config import load_config
from etude.train.memory.checkpoint import read_weights


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_place(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "cuts",
    [[5], [4, 5, 9, 10, 12], *(pytest.param([cut], marks=pytest.mark.acceptance) for cut in (3, 6, 10, 11))],
)
def test_a_growing_run_that_was_cut_ends_in_the_bits_of_an_unbroken_one(cuts, place):
    more = {"train.ema_decay": 0.9, "growth.rewarm": "2 steps", "train.parameter_noise": 0.01}
    straight = run(place, "straight", **GROWING, **more)

    cut = run(place, "cut", cuts, **GROWING, **more)

    assert files(cut) == files(straight)
    assert stripped(rows(cut)) == stripped(rows(straight))


def test_the_first_epochs_are_those_of_the_small_network_and_the_new_one_has_its_full_size(place):
    small = run(place, "small", **{"train.max_duration": "1 epoch"})

    grown = run(place, "grown", **GROWING)

    assert losses(grown)[:5] == losses(small)
    weights = read_weights(grown / "checkpoints/last")
    assert weights["model.source_embedding.weight"].shape[1] == 12
    assert {name.split(".")[2] for name in weights if name.startswith("model.encoder.")} == {"0", "1", "2"}


def test_depth_whose_new_layers_begin_at_zero_changes_no_validation(place):
    given = {"model.encoder_layers": DEEPER, "growth.new_weights": "zeros_out", "train.save_every": "1 epoch"}
    run(place, "grown", **given, **{"optimizer.learning_rate": 1e-9})

    found = losses(place / "runs/grown", "val/loss")

    assert len(found) == 4
    assert found == pytest.approx([found[0]] * 4, rel=1e-5)


def test_a_schedule_that_changes_nothing_builds_nothing_anew(place):
    fixed = run(place, "fixed")

    grown = run(
        place, "grown", **{"model.encoder_layers": '{ schedule = "stairs", values = [1, 1, 1], every = "1 epoch" }'}
    )

    assert files(grown) == files(fixed)
    assert json.loads((grown / "growth.json").read_text()) == {"changes": []}


def test_the_report_names_what_was_copied_grown_and_new(place):
    folder = run(place, "grown", **GROWING)

    told = json.loads((folder / "growth.json").read_text())["changes"]

    assert [change["epoch"] for change in told] == [1, 2]
    kinds = {line["name"]: line["kind"] for line in told[0]["tensors"]}
    assert kinds["model.encoder.0.attention.projection.weight"] == "copied"
    assert kinds["model.encoder.1.attention.projection.weight"] == "new"
    wider = {line["name"]: line["kind"] for line in told[1]["tensors"]}
    assert wider["model.encoder.0.attention.projection.weight"] == "grown"
    assert "At epoch 2 the model comes to have" in (place / "said").read_text()


def test_each_checkpoint_is_used_with_the_network_that_it_is_of(place):
    folder = run(place, "grown", **GROWING)

    widths = {step: Run(folder).load(step).model.source_embedding.weight.shape[1] for step in (4, 8, 12, 20)}

    assert widths == {4: 8, 8: 8, 12: 12, 20: 12}
    assert len(Run(folder).predict(["red dog", "old"], weights=4, beam_size=2)) == 2
    assert etude.train("small.toml", {"run.name": "grown", **parsed(GROWING)}).progress.step == 20


def parsed(given):
    import tomllib

    return {key: tomllib.loads(f"x = {value}")["x"] for key, value in given.items()}


def test_the_composed_config_of_a_run_that_grows_runs_as_it_is(place):
    folder = run(place, "grown", **GROWING)

    again = load_config(folder / "config.toml")

    assert again.data["model"]["encoder_layers"] == {"schedule": "stairs", "values": [1, 2, 3], "every": "1 epoch"}
    assert [one.config.model.encoder_layers for one in again.later] == [2, 3]


def test_rates_rise_again_after_a_growth(place):
    folder = run(place, "grown", **GROWING, **{"growth.rewarm": "4 steps"})

    rates = losses(folder, "train/learning_rate")

    assert rates[:5] == [0.01] * 5
    assert rates[5:9] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates[10:14] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])


def test_an_optimizer_goes_on_or_begins_anew(place):
    kept = run(place, "kept", **GROWING)
    reset = run(place, "reset", **GROWING, **{"growth.optimizer_state": "reset"})

    def steps(folder, name):
        state = json.loads((folder / "checkpoints/last/state.json").read_text())["optimizers"]["0"]["state"]
        return state[name]

    assert losses(kept)[:6] == losses(reset)[:6]
    assert losses(kept)[6] != losses(reset)[6]


# -- what a model is made of, by a function of the epoch ---------------------------------------------------------------


def test_a_function_of_the_epoch_makes_the_model(place):
    folder = run(place, "built", model='{ type = "parts.py:build_model" }')
    cut = run(place, "cut", [9, 11, 14], model='{ type = "parts.py:build_model" }')

    told = json.loads((folder / "growth.json").read_text())["changes"]

    assert [change["epoch"] for change in told] == [2]
    assert "model.layers.1.weight" in read_weights(folder / "checkpoints/last")
    assert files(cut) == files(folder)


# -- what else may change ----------------------------------------------------------------------------------------------


def test_the_loss_may_change_and_the_best_is_looked_for_anew(place):
    smoothed = (
        '{ schedule = "stairs", values = [{ label_smoothing = 0.9 }, { type = "cross_entropy" }], every = "2 epochs" }'
    )

    folder = run(place, "changed", loss=smoothed)
    cut = run(place, "cut", [9, 12], loss=smoothed)

    assert "the best validation is looked for anew" in (place / "said").read_text()
    plain = run(place, "plain", loss="{ label_smoothing = 0.9 }")
    assert losses(plain)[:10] == losses(folder)[:10]
    assert losses(folder)[10] < losses(plain)[10]
    assert files(cut) == files(folder)


def test_the_task_may_be_another_at_first(place):
    types = '{ type = "parts.py:Recites" }, { type = "translation", metrics = [] }'
    task = f'{{ schedule = "stairs", values = [{types}], every = "1 epoch" }}'

    folder = run(place, "task", task=task)
    cut = run(place, "cut", [5, 7], task=task)

    assert len(losses(folder)) == 20
    assert files(cut) == files(folder)
    assert Run(folder).predict(["red"])


def test_the_data_may_be_others_at_first(place):
    train = '{ schedule = "stairs", values = ["few.tsv", "pairs.tsv"], every = "1 epoch" }'

    folder = run(place, "data", **{"data.train": train})
    cut = run(place, "cut", [2, 3], **{"data.train": train})

    assert [row["step"] for row in rows(folder) if "val/loss" in row] == [2, 7, 12, 17]
    assert files(cut) == files(folder)
    written = load_config(folder / "config.toml").data["data"]["train"]["values"]
    assert written == [str(place / "few.tsv"), str(place / "pairs.tsv")]


def test_a_pattern_may_freeze_what_comes_later(place):
    folder = run(place, "frozen", **{"model.encoder_layers": DEEPER, "train.freeze": '["model.encoder.2.*"]'})

    before, after = (read_weights(folder / f"checkpoints/step-000000{step}") for step in (12, 20))

    frozen = [name for name in after if name.startswith("model.encoder.2.")]
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)


# -- what cannot be is said before anything is trained -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model.encoder_layers": '{ schedule = "cosine", peak = 3 }'}, 'encoder_layers.schedule must be "stairs"'),
        ({"model.encoder_layers": '{ schedule = "stairs", values = [1, 2], every = "5 steps" }'}, "whole epochs"),
        ({"model.encoder_layers": '{ schedule = "stairs", values = [1, -1], every = "1 epoch" }'}, "From epoch 1 on"),
        ({"model.d_model": '{ schedule = "stairs", values = [8, 4], every = "1 epoch" }'}, "At epoch 1"),
        ({"model.d_model": '{ schedule = "stairs", values = [8, 4], every = "1 epoch" }'}, "allow_shrink"),
        ({"model.d_model": '{ schedule = "stairs", values = [8], evry = "1 epoch" }'}, "did you mean every"),
        ({"model.d_model": '{ schedule = "stairs", values = [8], evry = "1 epoch" }'}, "on the command line"),
        ({"train.batch_size": '{ schedule = "stairs", values = ["a"], every = "1 epoch" }'}, "batch_size"),
        ({"train.clip_grad": '{ schedule = "stairs", values = [1.0], every = "1 epoch" }'}, "train.clip_grad"),
        (
            {"task.type": '{ schedule = "stairs", values = ["translation", "language_model"], every = "1 epoch" }'},
            "epoch 1",
        ),
        ({"train.freeze": '["model.encoder.7.*"]', "model.encoder_layers": DEEPER}, "matches no parameter"),
        (
            {"tokenizer.type": '{ schedule = "stairs", values = ["byte", "char"], every = "1 epoch" }'},
            "tokenizer.type cannot follow a schedule: a run keeps the tokens that it begins with",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(given, told, place):
    with pytest.raises(ConfigError, match=told.replace(".", "[.]")):
        run(place, "refused", **given)

    assert not (place / "runs/refused/checkpoints").exists()


def test_plan_and_check_tell_how_a_run_grows(place, capsys):
    flags = [word for key, value in GROWING.items() for word in (f"--{key}", value)]

    assert main(["plan", "small.toml", *flags]) == 0
    assert "At epoch 2 the model comes to have 10,472 parameters" in capsys.readouterr().out
    assert main(["check", "small.toml", *flags]) == 0
    assert "At epoch 1 the model comes to have 5,888 parameters" in capsys.readouterr().out

"""Words of other tools, wherever they are met: each is answered with a line of Etude's that holds."""

import importlib.util
import re
from pathlib import Path

import pytest
from python_face import line, net, trainer
from torch import nn

import etude
from etude.__main__ import main
from etude.app.convert.slangmod import LEFT_OUT
from etude.base.config.json_schema import schema
from etude.base.config.other_words import words
from etude.base.errors import ConfigError
from etude.tasks.config import any_config, load_config

ROOT = Path(__file__).parent.parent.parent
CONFIG = '[task]\ntype = "translation"\n[data]\ntrain = "x.tsv"\n'


@pytest.fixture(scope="module")
def is_known():
    """Whether a config of this version may hold a dotted key."""
    spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "docs" / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    root = schema(any_config())
    return lambda key: reference.is_known(key, root)


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """What the shell says to a command line that it refuses."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(CONFIG)

    def told(*flags):
        assert main(["show", "run.toml", *flags]) == 2
        return capsys.readouterr().err.removeprefix("etude: ").rstrip("\n")

    return told


def test_a_hint_names_keys_of_this_version_or_says_later(is_known):
    for word in words():
        missing = [key for key in word.etude if not is_known(key)]
        assert (
            bool(missing) == (word.later and word.tool != "RETURNN")
            or word.etude == ("build_model",)
            or (bool(missing) == word.later)
        ), word


def test_the_flags_that_slangmods_sections_are_told_are_keys(is_known):
    flags = [key for told in LEFT_OUT.values() for key in re.findall(r"--([a-z_]+\.[a-z_]+)", told)]

    assert "tokenizer.vocab_size" in flags
    assert [key for key in flags if not is_known(key)] == []


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--epochs", "3"], '--train.max_duration "3 epochs"'),
        (["--lr", "3e-4"], "--optimizer.learning_rate 3e-4"),
        (["--lr=3e-4"], "--optimizer.learning_rate 3e-4"),
        (["--batch-size", "8"], "--train.batch_size 8"),
        (["--max_iters=300"], '--train.max_duration "300 steps"'),
        (["--seed", "7"], "--run.seed 7"),
        (["--beam-size", "8"], "--task.beam_size 8"),
        (["--grad-clip", "1.0"], "--train.clip_grad 1.0"),
        (["--num_workers"], "--data.workers VALUE"),
        (["train.batch_size=8"], "--train.batch_size 8"),
        (["+trainer.max_epochs=3"], '--train.max_duration "3 epochs"'),
        (["optimizer.lr=0.1"], "--optimizer.learning_rate 0.1"),
        (["model.heads=8"], "--model.heads 8"),
        (["seed=7"], "--run.seed 7"),
    ],
)
def test_the_command_line_answers_with_etudes_line(flags, line, told):
    assert told(*flags).endswith((f"; Etude calls this {line}.", f"; write {line}."))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--frobnicate", "1"], "--frobnicate is not a flag of etude show; etude show --help lists them."),
        (["--zone", "1"], "--zone is not a flag of etude show; etude show --help lists them."),
        (["--hlep"], "--hlep is not a flag of etude show; did you mean --help?"),
        (["foo=1"], '"foo=1" is one word too many for etude show; etude show --help shows how.'),
        (
            ["--optimizer.clip_grad", "0"],
            (
                "optimizer.clip_grad is not a key of [optimizer]; Etude calls this train.clip_grad "
                "(in the place of --optimizer.clip_grad on the command line)."
            ),
        ),
    ],
)
def test_what_is_no_word_is_not_guessed(flags, said, told):
    assert told(*flags) == said


@pytest.mark.parametrize(
    ("section", "key", "said"),
    [
        ("train", "epochs = 3", 'train.max_duration = "3 epochs"'),
        ("train", "lr = 1e-3", "optimizer.learning_rate"),
        ("train", "grad_clip = 1.0", "train.clip_grad"),
        ("train", "early_stopping = 3", "train.patience"),
        ("train", "num_workers = 2", "data.workers"),
        ("train", "max_iters = 100", 'train.max_duration = "100 steps"'),
        ("train", "gpus = 1", "train.device"),
        ("train", "use_amp = true", "train.precision"),
        ("data", "src = 'en'", "data.source"),
        ("data", "tgt = 'de'", "data.target"),
    ],
)
def test_a_config_answers_with_etudes_key(section, key, said, tmp_path):
    text = f"{CONFIG}{key}\n" if section == "data" else f"{CONFIG}[{section}]\n{key}\n"
    (tmp_path / "run.toml").write_text(text)

    with pytest.raises(ConfigError, match=re.escape(f"Etude calls this {said}")):
        load_config(tmp_path / "run.toml")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("progress_bar", False, "Etude calls this progress."),
        ("max_epochs", 3, 'Etude calls this max_duration (train.max_duration in a config) = "3 epochs".'),
        ("gradient_clip_val", 1.0, "Etude calls this clip_grad (train.clip_grad in a config)."),
        ("use_tensorboard", True, "Etude calls this loggers."),
        ("warmup_steps", 3, 'Etude calls this learning_rate = "3 steps".'),
        ("n_heads", 3, "Etude calls this model.heads in a config, and sets it in the model here."),
        ("lr", 1e-3, "did you mean learning_rate?"),
        ("experiment_name", "x", "Etude calls this run_dir."),
    ],
)
def test_the_trainer_answers_with_its_own_options(name, value, said):
    with pytest.raises(ConfigError, match=re.escape(f"{name} is not an option of the trainer; {said}")):
        etude.Trainer(**{name: value})


@pytest.mark.parametrize("key", ["peak = 3e-3", 'warmup = "3 steps"'])
def test_a_key_of_the_default_schedule_changes_that_alone(key, tmp_path):
    (tmp_path / "run.toml").write_text(f"{CONFIG}[optimizer.learning_rate]\n{key}\n")
    name, _, value = key.partition(" = ")

    in_file = load_config(tmp_path / "run.toml").data["optimizer"]["learning_rate"]
    (tmp_path / "plain.toml").write_text(CONFIG)
    default = load_config(tmp_path / "plain.toml").data["optimizer"]["learning_rate"]
    flagged = load_config(tmp_path / "plain.toml", [f"--optimizer.learning_rate.{name}", value])
    later = load_config(tmp_path / "run.toml", ["--optimizer.learning_rate.end", "1e-5"])

    assert default["schedule"] == "cosine"
    assert in_file == default | {name: in_file[name]} != default
    assert flagged.data["optimizer"]["learning_rate"] == in_file
    assert later.data["optimizer"]["learning_rate"] == in_file | {"end": 1e-5}
    assert str(flagged.origin(f"optimizer.learning_rate.{name}")).startswith("--optimizer.learning_rate")
    assert str(flagged.origin("optimizer.learning_rate.end")) == "default"


def test_a_schedule_of_ones_own_takes_nothing_from_the_default(tmp_path):
    (tmp_path / "run.toml").write_text(CONFIG)

    rate = load_config(tmp_path / "run.toml", ["--optimizer.learning_rate", "0.1"])
    own = '{ schedule = "linear", peak = 0.1, over = "1 epoch" }'
    linear = load_config(tmp_path / "run.toml", ["--optimizer.learning_rate", own]).data["optimizer"]["learning_rate"]

    assert rate.config.optimizer.learning_rate == 0.1
    assert "wave" not in linear
    (tmp_path / "number.toml").write_text(f"{CONFIG}[optimizer]\nlearning_rate = 0.1\n")
    with pytest.raises(ConfigError, match="must name its schedule"):
        load_config(tmp_path / "number.toml", ["--optimizer.learning_rate.peak", "0.2"])


@pytest.mark.parametrize("name", ["AdamW", "ADAMW", "Sgd", "Adam"])
def test_an_optimizer_is_known_in_any_case(name, tmp_path):
    (tmp_path / "run.toml").write_text(CONFIG)

    assert load_config(tmp_path / "run.toml", ["--optimizer.type", name]).data["optimizer"]["type"] == name.lower()
    assert trainer(optimizer=name)._loaded.data["optimizer"]["type"] == name.lower()


# -- methods of other tools -----------------------------------------------------------------------------------------


class Foreign:
    def cb_on_train_begin(self, trainer):
        pass


def test_a_method_that_another_tool_calls_is_refused_in_a_callback_and_in_a_part():
    said = r"Foreign\w*.cb_on_train_begin is not an event; did you mean on_fit_start\?"

    class ForeignModel(nn.Module):
        cb_on_train_begin = Foreign.cb_on_train_begin

        def forward(self, inputs):
            return inputs

    with pytest.raises(ConfigError, match=said):
        trainer(callbacks=[Foreign()])
    with pytest.raises(ConfigError, match=said):
        etude.fit(
            nn.Sequential(net(), ForeignModel()),
            line(),
            loss=nn.functional.mse_loss,
            say=lambda _: None,
            progress=False,
            device="cpu",
        )
    with pytest.raises(ConfigError, match=r"cb_on_frobnicate is not an event; there are on_fit_start"):
        trainer(callbacks=[type("Own", (), {"cb_on_frobnicate": lambda self: None})()])

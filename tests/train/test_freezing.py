"""Parameters that are frozen for good, or as long as a schedule says."""

import pytest
import torch
from laws import assert_a_cut_changes_nothing
from small_runs import loaders
from torch import nn

import etude
from etude.base.errors import ConfigError

QUIET = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False, "log_every": "1 step"}


class Stacked(etude.Task):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.encoder = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.head = nn.Linear(4, 1)

    def training_step(self, batch):
        hidden = batch[0]
        for layer in self.encoder:
            hidden = layer(hidden).tanh()
        return (self.head(hidden) - batch[1]).square().mean()


class Watching(etude.Callback):
    """The weights after every step."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, run, outcome):
        self.seen.append({name: p.detach().clone() for name, p in run.task.named_parameters()})


def moved(watching, start, name):
    """At which steps (from 1) a parameter changed."""
    states = [start, *(state[name] for state in watching.seen)]
    return [step for step in range(1, len(states)) if not torch.equal(states[step], states[step - 1])]


def fit(folder=None, callbacks=(), **options):
    task = Stacked()
    options = {"max_duration": "8 steps", "learning_rate": 0.05, "run_dir": folder, **QUIET, **options}
    if folder is not None:
        options["loggers"] = []
    return task, etude.Trainer(callbacks=list(callbacks), **options).fit(task, *loaders())


THAW = {
    "encoder.0.*": {"schedule": "stairs", "values": [True, False], "at": ["0 steps", "5 steps"]},
    "encoder.*": {"schedule": "stairs", "values": [1, 0], "every": "3 steps"},
    "head.bias": True,
}


def test_layers_thaw_one_by_one_and_what_is_frozen_does_not_move():
    watching, start = Watching(), dict(Stacked().named_parameters())

    _, result = fit(callbacks=[watching], freeze=THAW, optimizer={"type": "adamw", "weight_decay": 0.1})

    assert moved(watching, start["encoder.1.weight"], "encoder.1.weight") == [4, 5, 6, 7, 8]
    assert moved(watching, start["encoder.0.weight"], "encoder.0.weight") == [6, 7, 8]
    assert moved(watching, start["head.weight"], "head.weight") == list(range(1, 9))
    assert moved(watching, start["head.bias"], "head.bias") == []
    rows = [row for row in result.history if "train/loss" in row]
    assert [row["train/freeze/encoder.*"] for row in rows] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert "train/freeze/head.bias" not in rows[0]


def test_a_group_may_be_frozen_by_schedule():
    watching, start = Watching(), dict(Stacked().named_parameters())
    stairs = {"schedule": "stairs", "values": [False, True, False], "every": "2 steps"}

    fit(callbacks=[watching], optimizer={"type": "sgd", "groups": [{"match": "head.*", "freeze": stairs}]})

    assert moved(watching, start["head.weight"], "head.weight") == [1, 2, 5, 6, 7, 8]
    assert moved(watching, start["encoder.0.weight"], "encoder.0.weight") == list(range(1, 9))


def test_frozen_parameters_count_in_no_norm():
    _, free = fit(max_duration="1 step")
    _, held = fit(max_duration="1 step", freeze={"encoder.*": {"schedule": "constant", "peak": 1.0}})

    assert held.history[0]["train/grad_norm"] < free.history[0]["train/grad_norm"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_a_run_that_thaws_and_is_cut_ends_as_the_unbroken_one(optimizer, tmp_path):
    def make(folder, callbacks):
        return fit(folder, callbacks, freeze=THAW, optimizer=optimizer, save_every="2 steps", ema_decay=0.9)[1]

    straight = assert_a_cut_changes_nothing(tmp_path, make, [3, 6])
    assert_a_cut_changes_nothing(tmp_path, make, [5], straight)


def test_mistakes_about_freezing_are_said_in_a_sentence():
    for freeze, said in [
        (
            {"decoder.*": {"schedule": "constant", "peak": 1.0}},
            r"train.freeze has the pattern 'decoder.\*', which matches",
        ),
        ({"encoder.*": {"schedule": "constant", "peak": 3.0}}, r"at most 1"),
        ({"encoder.*": "yes"}, r"freeze"),
        ({"*": {"schedule": "constant", "peak": 1.0}}, r"Every parameter of the optimizer '0' is frozen at step 1"),
        (["decoder.*"], r"matches no parameter"),
    ]:
        with pytest.raises(ConfigError, match=said):
            fit(freeze=freeze)


def test_a_composed_config_with_a_frozen_pattern_reads_back(tmp_path):
    from etude.tasks.config import load_config

    (tmp_path / "a.toml").write_text(
        """
task.type = "translation"
data = { train = "a.tsv" }
[[optimizer.groups]]
match = "encoder.*"
freeze = { schedule = "stairs", values = [true, false], every = "3 epochs" }
[train.freeze]
"decoder.*" = { schedule = "stairs", values = [true, false], at = ["0 steps", "2 epochs"] }
"encoder.*" = true
"""
    )
    loaded = load_config(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text(loaded.toml())

    again = load_config(tmp_path / "b.toml")

    assert again.config.train.freeze == loaded.config.train.freeze
    assert again.config.optimizer.groups[0].freeze.values == (1.0, 0.0)

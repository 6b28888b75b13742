"""Growing runs of every kind, and what follows them: optimizers, rates, forks, functions of the epoch."""

import tomllib

import pytest
import torch
from forks import fork
from growing import DEEPER, GROWING, files, losses, rows, run, stripped, write_place
from speech_corpora import write_place as write_speech
from torch import nn

import etude.growth
from etude.app.runs.run import Run
from etude.base.errors import ConfigError, RefusedError
from etude.tasks.config import load_config
from etude.train.memory.checkpoint import read_weights


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_place(tmp_path)
    return tmp_path


# -- optimizers and rates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["sgd", *(pytest.param(name, marks=pytest.mark.acceptance) for name in ("muon", "adafactor"))]
)
def test_an_optimizer_goes_on_in_a_network_that_has_grown(name, place):
    more = {"optimizer.type": name} | ({"optimizer.momentum": 0.9} if name == "sgd" else {})
    straight = run(place, "straight", **GROWING, **more)

    cut = run(place, "cut", [5, 12], **GROWING, **more)

    assert files(cut) == files(straight)
    assert stripped(rows(cut)) == stripped(rows(straight))


def test_the_momentum_of_what_is_new_begins_at_the_first_gradient(place):
    options = {"optimizer.type": "sgd", "optimizer.momentum": 0.9, "optimizer.learning_rate": 0.1}

    folder = run(place, "grown", **options, **{"model.encoder_layers": DEEPER})

    weights = [read_weights(folder / f"checkpoints/step-0000000{step}") for step in (6, 8)]
    name = "model.encoder.1.feedforward.inner.weight"
    assert not torch.equal(weights[0][name], weights[1][name])


LOSS_AT_EPOCH_2 = '{ schedule = "stairs", values = [{ z_loss = 0.5 }, { type = "cross_entropy" }], every = "2 epochs" }'
LOWER = {"schedule": "plateau", "peak": 1e-9, "patience": 1, "min_delta": 10.0}
NEWBOB = {"schedule": "newbob", "peak": 1e-9, "threshold": 0.1, "monitor": "val/loss", "relative": False}


@pytest.mark.parametrize(("rate", "fallen"), [(LOWER, [2, 4]), (NEWBOB, [2, 4])])
def test_a_rate_does_not_compare_validations_of_two_losses(rate, fallen, place):
    """Nothing is learnt at such a rate: in each loss every validation but the first is no better than the last."""
    table = "{ " + ", ".join(f"{key} = {toml(value)}" for key, value in rate.items()) + " }"

    folder = run(
        place, "changed", loss=LOSS_AT_EPOCH_2, **{"optimizer.learning_rate": table, "train.max_duration": "5 epochs"}
    )

    rates = losses(folder, "train/learning_rate")[::5]
    falls = [epoch for epoch in range(1, 5) if rates[epoch] < rates[epoch - 1]]
    assert falls == fallen


def toml(value):
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def test_an_optimizer_of_another_type_may_take_over(place):
    types = {"optimizer.type": '{ schedule = "stairs", values = ["sgd", "adamw"], every = "2 epochs" }'}

    straight = run(place, "straight", **types)
    cut = run(place, "cut", [7, 13], **types)

    assert files(cut) == files(straight)
    assert load_config(straight / "config.toml").later[0].config.optimizer.type == "adamw"


# -- a model by a function of the epoch --------------------------------------------------------------------------------

NETS = """
from parts import Net

def get_network(epoch, **config):
    return Net(config["target_vocabulary"], config["base"] + epoch // 2)

def fails(epoch, target_vocabulary):
    if epoch == 2:
        raise ValueError("no third epoch")
    return Net(target_vocabulary, 1)
"""


def test_a_function_of_the_epoch_and_any_keys_is_given_all_that_is_known(place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    (place / "nets.py").write_text(NETS)

    folder = run(place, "built", model='{ type = "nets.py:get_network", base = 2 }')

    assert "model.layers.2.weight" in read_weights(folder / "checkpoints/last")
    assert [len(Run(folder).load(step).model.layers) for step in (4, 20)] == [2, 3]


def test_what_a_function_of_the_epoch_raises_is_told_with_the_epoch(place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    (place / "nets.py").write_text(NETS)

    with pytest.raises(ConfigError, match=r"^At epoch 2: model\.type .*no third epoch"):
        run(place, "built", model='{ type = "nets.py:fails" }')


# -- forks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at", ["10 steps", *(pytest.param(at, marks=pytest.mark.acceptance) for at in ("7 steps", "12 steps"))]
)
def test_a_fork_of_a_run_that_has_grown_is_its_parent_to_the_end(at, place):
    parent = run(place, "parent", **GROWING)

    forked = fork(parent, at)
    etude.train(forked / "config.toml")

    assert files(forked) == files(parent)
    assert stripped(rows(forked)) == stripped(rows(parent))


def test_a_fork_may_grow_otherwise_later_and_not_before(place):
    parent = run(place, "parent", **GROWING)
    wider = '{ schedule = "stairs", values = [8, 16], at = ["0 epochs", "2 epochs"] }'

    forked = fork(parent, "7 steps", "--model.d_model", wider)
    etude.train(forked / "config.toml")

    assert read_weights(forked / "checkpoints/last")["model.source_embedding.weight"].shape[1] == 16
    with pytest.raises(RefusedError, match="the weights of the parent do not fit"):
        fork(parent, "12 steps", "--model.d_model", wider)


# -- speech ------------------------------------------------------------------------------------------------------------


def test_a_blstm_of_three_layers_grown_layer_by_layer_has_three_structures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_speech(tmp_path)
    layers = '{ schedule = "stairs", values = [1, 2, 3], every = "2 epochs" }'
    given = {"train.max_duration": "6 epochs", "train.save_every": "2 epochs"}

    etude.train("small.toml", {"model.layers": parsed(layers), **given})

    weights = [Run(tmp_path / "runs/small").load(step).state_dict() for step in (6, 12, 18)]
    structures = [sorted(name for name in one if name.endswith("weight_hh_l0")) for one in weights]
    assert list(map(len, structures)) == [2, 4, 6]  # one for each direction
    assert structures[0] < structures[1] < structures[2]


def parsed(text):
    return tomllib.loads(f"x = {text}")["x"]


# -- parts of the user's own -------------------------------------------------------------------------------------------


class Gated(nn.Module):
    """Values and their gates from one matrix."""

    def __init__(self, width, hidden):
        super().__init__()
        self.hidden = hidden
        self.inner = nn.Linear(width, 2 * hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(self, inputs):
        values, gates = self.inner(inputs).chunk(2, -1)
        return self.outer(values * gates.sigmoid())

    def growth_parts(self):
        halves = etude.growth.gives(self.hidden, self.hidden)
        return {"inner.weight": (halves, None), "inner.bias": (halves,)}


def test_a_module_of_the_users_own_grows_by_the_public_names():
    old, new = Gated(4, 3), Gated(4, 6)
    inputs = torch.randn(5, 4)

    transfer = etude.growth.plan_transfer(old, new, etude.growth.Growth(new_weights="net2net"))
    transfer.apply(old.state_dict(), new)

    torch.testing.assert_close(new(inputs), old(inputs))

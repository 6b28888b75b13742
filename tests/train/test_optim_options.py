"""Optimizers of the trainer: their kinds, their groups, and the rates they are given."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_runs import dataset
from torch import nn
from torch.utils.data import TensorDataset

import etude
from etude.base.errors import ConfigError

DATA = dataset(24)
QUIET = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False, "log_every": "1 step"}


class Mixed(nn.Module):
    """A parameter of every kind that weight decay tells apart."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.embedding = nn.Embedding(4, 4)
        self.norm = nn.LayerNorm((1, 4))
        self.layer = nn.Linear(4, 4)
        self.batch_norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 1)

    def forward(self, inputs):
        hidden = self.norm(inputs[:, None])[:, 0] + self.embedding.weight.mean()
        return self.head(self.batch_norm(self.layer(hidden)))


def fit(model=None, data=DATA, **options):
    options = {"max_duration": "2 epochs", "batch_size": 8, "learning_rate": 0.1, **QUIET, **options}
    loss = options.pop("loss", F.mse_loss)
    return etude.fit(model or Mixed(), data, loss=loss, **options)


def grouped(**options):
    """The parameter groups of a run's optimizer: name of each parameter to (rate, decay)."""
    found = {}

    class Reading(etude.Callback):
        def on_before_step(self, run, optimizer):
            names = {parameter: name for name, parameter in run.task.model.named_parameters()}
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    found[names[parameter]] = (group["lr"], group["weight_decay"])

    fit(max_duration="1 step", callbacks=[Reading()], **options)
    return found


def decayed(**options):
    return {name for name, (_, decay) in grouped(**options).items() if decay}


MATRICES = {"layer.weight", "head.weight"}


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd", "adafactor", "muon", "torch.optim:RAdam", torch.optim.AdamW])
def test_weight_decay_skips_biases_norms_and_embeddings_unless_decay_all(kind):
    everything = {name for name, _ in Mixed().named_parameters()}
    if isinstance(kind, str):
        assert decayed(optimizer={"type": kind, "weight_decay": 0.1}) == MATRICES
        assert decayed(optimizer={"type": kind, "weight_decay": 0.1, "decay_all": True}) == everything
        assert decayed(optimizer={"type": kind, "weight_decay": 0.0}) == set()
    else:
        assert decayed(optimizer=kind) == MATRICES


@pytest.mark.parametrize(
    ("mine", "reference"),
    [
        ({"optimizer": "adamw"}, lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.01, fused=True)),
        (
            {"optimizer": {"type": "adamw", "betas": [0.5, 0.6]}},
            lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.5, 0.6), fused=True),
        ),
        (
            {"optimizer": {"type": "adam", "amsgrad": True}},
            lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True, fused=True),
        ),
        ({"optimizer": "sgd"}, lambda p: torch.optim.SGD(p, lr=0.1)),
        (
            {"optimizer": {"type": "sgd", "momentum": 0.9, "nesterov": True}},
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
        ),
        ({"optimizer": "adafactor"}, lambda p: torch.optim.Adafactor(p, lr=0.1)),
        ({"optimizer": "torch.optim:RAdam"}, lambda p: torch.optim.RAdam(p, lr=0.1)),
        ({"optimizer": torch.optim.Adagrad}, lambda p: torch.optim.Adagrad(p, lr=0.1)),
        (
            {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1), "learning_rate": None},
            lambda p: torch.optim.SGD(p, lr=0.1),
        ),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=7.0)}, lambda p: torch.optim.SGD(p, lr=0.1)),
    ],
)
def test_a_run_equals_a_loop_written_by_hand_to_the_bit(mine, reference):
    model, by_hand = without_biases(), without_biases()
    batches = list(zip(*(tensor.split(8) for tensor in DATA.tensors), strict=True))

    fit(model, batches, batch_size=None, **mine)

    optimizer = reference(by_hand.parameters())
    for _ in range(2):
        for inputs, targets in batches:
            optimizer.zero_grad()
            F.mse_loss(by_hand(inputs), targets).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), by_hand.parameters(), strict=True))


def without_biases():
    """A model whose weight decay is the same for every parameter."""
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 1, bias=False))


def test_an_optimizer_of_ones_own_keeps_its_rate_unless_one_is_given():
    model = Mixed()
    made = torch.optim.SGD(model.parameters(), lr=0.03)

    assert fit(model, optimizer=made, learning_rate=None).history[0]["train/learning_rate"] == 0.03
    assert fit(model, optimizer=made, learning_rate=0.2).history[0]["train/learning_rate"] == 0.2
    schedule = {"schedule": "linear", "peak": 0.4}
    assert fit(model, optimizer=made, learning_rate=schedule).history[-1]["train/learning_rate"] == pytest.approx(
        0.4 / 6
    )


def test_torch_schedulers_are_stepped_once_an_epoch_and_each_step_logs_the_rate_it_used():
    model = Mixed()
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(made, gamma=0.1)

    result = fit(model, optimizer=made, learning_rate=scheduler, max_duration="3 epochs")

    assert rates(result) == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 3)


def rates(result):
    return [row["train/learning_rate"] for row in result.history if "train/learning_rate" in row]


COSINE = {"schedule": "cosine", "peak": 0.3, "warmup": "2 steps", "end": 0.01}


def cosine(k, n, warmup=2, peak=0.3, end=0.01):
    if k < warmup:
        return peak * (k + 1) / warmup
    t = min(1.0, (k + 1 - warmup) / (n - warmup + 1))
    return end + (peak - end) * (1 + math.cos(math.pi * t)) / 2


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 9), (2, 6)])
def test_the_logged_rate_is_the_closed_formula_and_the_one_that_was_used(accumulate, steps):
    used = []

    class Reading(etude.Callback):
        def on_before_step(self, run, optimizer):
            used.append(optimizer.param_groups[0]["lr"])

    result = fit(learning_rate=COSINE, accumulate=accumulate, max_duration="3 epochs", callbacks=[Reading()])

    assert rates(result) == pytest.approx([cosine(k, steps) for k in range(steps)])
    assert used == rates(result)


def test_the_default_rate_is_a_cosine_from_a_thousandth_with_five_hundredths_of_warm_up():
    result = fit(learning_rate=None, batch_size=2, max_duration="50 steps")

    w = 2.5
    expected = [1e-3 * (k + 1) / w for k in range(2)]
    found = rates(result)
    assert found[:2] == pytest.approx(expected, rel=0.3)
    assert max(found) == pytest.approx(1e-3, rel=0.05)
    assert 0 < found[-1] < 1e-5


def test_the_rate_goes_on_after_a_restart(tmp_path):
    def run(until, folder):
        options = {"learning_rate": COSINE | {"cooldown": "7 steps"}, "run_dir": folder, "loggers": []}
        return fit(max_duration=until, **options)

    run("4 steps", tmp_path / "cut")

    assert rates(run("9 steps", tmp_path / "cut")) == rates(run("9 steps", tmp_path / "straight"))


def test_a_scheduled_weight_decay_is_applied_and_logged():
    optimizer = {"type": "adamw", "weight_decay": {"schedule": "linear", "from": 0.0, "to": 0.6, "over": "6 steps"}}

    result = fit(optimizer=optimizer)

    assert [row["train/weight_decay"] for row in result.history] == pytest.approx([0.1 * k for k in range(6)])
    assert decayed(optimizer={"type": "adamw", "weight_decay": {"schedule": "constant", "peak": 0.5}}) == MATRICES


GROUPS = [
    {"match": "layer.*", "learning_rate": 0.5, "weight_decay": 0.3},
    {"match": "head.*", "learning_rate": {"schedule": "linear", "peak": 0.8}},
    {"match": "embedding.*", "freeze": True},
]


def test_groups_have_their_own_rates_and_decay_and_frozen_ones_do_not_move():
    model = Mixed()
    embedding = model.embedding.weight.clone()

    found = grouped(model=model, optimizer={"type": "adamw", "groups": GROUPS})

    assert found["layer.weight"] == (0.5, 0.3)
    assert found["layer.bias"] == (0.5, 0.0)
    assert found["head.weight"] == (0.8, 0.01)
    assert found["norm.weight"] == (0.1, 0.0)
    assert "embedding.weight" not in found
    assert torch.equal(model.embedding.weight, embedding)
    result = fit(optimizer={"type": "adamw", "groups": GROUPS})
    assert rates(result) == [0.1] * 6
    assert [row["train/learning_rate/head.*"] for row in result.history] == pytest.approx(
        [0.8 * (1 - k / 6) for k in range(6)]
    )


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ("adamv", "did you mean"),
        ({"type": "sgd", "momentun": 0.9}, "momentum"),
        ({"type": "sgd", "momentum": 2.0}, "less than 1"),
        ({"type": "adamw", "groups": [{"match": "nothing.*"}]}, "matches no"),
        ({"type": "adamw", "groups": [{"match": "nothing.*", "freeze": True}]}, "matches no parameter"),
        ({"type": "adamw", "groups": [{"match": "layer.*", "lr": 1.0}]}, r"groups\[0\]\.lr"),
        ({"type": "adamw", "groups": [{"match": "layer.*", "learning_rate": -1.0}]}, r"groups\[0\]\.learning_rate"),
        ({"type": "adamw", "groups": [{"match": "*", "freeze": True}]}, "no parameter to train"),
        ({"type": "torch.optim:RAdam", "momentun": 0.1}, "momentun is not an argument"),
        ("torch.optim:RAdams", "did you mean"),
        (3, "optimizer must be"),
        (lambda p: nn.Linear(1, 1), "must give a torch"),
    ],
)
def test_mistakes_about_optimizers_are_said_in_a_sentence(optimizer, said):
    with pytest.raises(ConfigError, match=said):
        fit(optimizer=optimizer)


def test_frozen_patterns_of_the_trainer_are_not_trained():
    model = Mixed()
    before = model.head.weight.clone()

    fit(model, freeze=["head.*"])

    assert torch.equal(model.head.weight, before)
    with pytest.raises(ConfigError, match="matches no parameter"):
        fit(freeze=["nothing"])


def test_a_task_that_configures_its_optimizer_leaves_none_to_the_trainer():
    class Own(etude.Task):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def training_step(self, batch):
            return F.mse_loss(self.layer(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.07)

    options = {"max_duration": "1 epoch", **QUIET}
    assert rates(etude.Trainer(**options).fit(Own(), DATA)) == [0.07]
    for conflict in ({"learning_rate": 0.1}, {"optimizer": torch.optim.SGD}, {"optimizer": "sgd"}):
        with pytest.raises(ConfigError, match="configures its own optimizers"):
            etude.Trainer(**options, **conflict).fit(Own(), DATA)


def test_tied_and_unused_parameters_are_no_trouble():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Embedding(6, 3)
            self.output = nn.Linear(3, 6, bias=False)
            self.output.weight = self.first.weight
            self.unused = nn.Linear(2, 2)

        def forward(self, tokens):
            return self.output(self.first(tokens))

    tokens = torch.tensor([[1, 2, 3], [4, 5, 0]])
    for kind in ("adamw", "sgd", "adafactor", "muon"):
        model = Tied()
        before = model.unused.weight.clone()
        loss = etude.losses.CrossEntropy()
        result = fit(model, TensorDataset(tokens, tokens), optimizer=kind, max_duration="3 epochs", loss=loss)
        assert result.load_best(Tied()).first.weight.shape == (6, 3)
        assert torch.equal(model.unused.weight, before)


def test_a_groups_own_decay_and_rate_are_logged_under_its_pattern_beside_the_others():
    decay = {"schedule": "linear", "from": 0.2, "to": 0.1, "over": "2 steps"}
    own = {"match": "head.*", "weight_decay": {"schedule": "constant", "peak": 0.5}, "learning_rate": 0.3}

    class Headed(etude.Task):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 1)

        def training_step(self, batch):
            return self.head(self.body(batch[0]).tanh()).square().mean()

    options = {"device": "cpu", "progress": False, "say": lambda _: None, "log_every": "1 step", "batch_size": 4}
    result = etude.Trainer(
        max_duration="2 steps", optimizer={"type": "adamw", "weight_decay": decay, "groups": [own]}, **options
    ).fit(Headed(), torch.utils.data.TensorDataset(torch.ones(8, 4)))

    row = result.history[0]
    assert row["train/weight_decay"] == pytest.approx(0.2)
    assert row["train/weight_decay/head.*"] == 0.5
    assert row["train/learning_rate/head.*"] == 0.3

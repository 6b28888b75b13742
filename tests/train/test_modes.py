"""Modes of modules and of optimizers: what the user put into eval mode stays so, and what is evaluated is told so."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import etude
from etude.base.errors import ConfigError
from etude.train.memory.checkpoint import read_weights

QUIET = {"progress": False, "device": "cpu", "precision": "float32", "loggers": []}


def data(samples=24):
    draw = torch.Generator().manual_seed(2)
    inputs = torch.randn(samples, 4, generator=draw) * 3 + 1
    return TensorDataset(inputs, inputs.sum(1, keepdim=True))


class Tuned(etude.Task):
    """A body in eval mode and a head."""

    def __init__(self, *, evaluated=True):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 1)
        self.body.train(not evaluated)
        self.modes = []

    def training_step(self, batch):
        self.modes.append((self.training, self.body.training, self.body[1].training, self.head.training))
        return (self.head(self.body(batch[0])) - batch[1]).square().mean()

    def predict_step(self, batch):
        return self.head(self.body(batch[0]))


def trainer(said=None, **options):
    settings = {"max_duration": "2 epochs", "batch_size": 8, "learning_rate": 0.01, **QUIET, **options}
    return etude.Trainer(say=(said if said is not None else []).append, **settings)


def test_a_part_in_eval_mode_stays_so_through_training_and_validation():
    task, said = Tuned(), []
    before = {name: value.clone() for name, value in task.body[1].named_buffers()}

    trainer(said, eval_every="0.5 epochs").fit(task, data(), data())

    trained = [modes for modes in task.modes if modes[0]]
    assert trained == [(True, False, False, True)] * 6
    assert all(torch.equal(value, before[name]) for name, value in task.body[1].named_buffers())
    assert [sentence for sentence in said if "eval mode stay so" in sentence and "body." in sentence]


def test_what_was_evaluated_as_a_whole_is_trained_as_a_whole():
    task, net = Tuned().eval(), nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)).eval()

    trainer().fit(task, data())
    etude.fit(net, data(), loss=nn.MSELoss(), max_duration="1 epoch", batch_size=8, say=lambda _: None, **QUIET)

    assert set(task.modes) == {(True, True, True, True)}
    assert int(net[0].num_batches_tracked) == 3


def test_a_part_of_a_plain_module_in_eval_mode_stays_so():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))
    net[0].eval()

    etude.fit(net, data(), data(), loss=nn.MSELoss(), max_duration="1 epoch", say=lambda _: None, **QUIET)

    assert (int(net[0].num_batches_tracked), net[0].training, net[1].training) == (0, False, True)


@pytest.mark.parametrize("act", ["validate", "test", "predict"])
def test_every_part_is_restored_after_a_pass(act):
    task = Tuned()
    task.head.eval()

    getattr(trainer(), act)(task, data())

    assert [task.training, task.body.training, task.body[1].training, task.head.training] == [True, *[False] * 3]


# -- optimizers ------------------------------------------------------------------------------------------------------


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free SGD (Defazio et al. 2024): z is trained, x is their mean, and y between them is differentiated."""

    def __init__(self, parameters, lr=0.05, beta=0.9):
        super().__init__(parameters, {"lr": lr, "beta": beta, "k": 0, "training": False})

    @torch.no_grad()
    def _go(self, training):
        for group in self.param_groups:
            share = 1 - group["beta"] if training else 1 - 1 / group["beta"]
            for parameter in group["params"] if group["training"] is not training else []:
                if self.state[parameter]:
                    parameter.lerp_(self.state[parameter]["z"], share)
            group["training"] = training

    def train(self):
        self._go(training=True)

    def eval(self):
        self._go(training=False)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert group["training"], "a step in eval mode"
            group["k"] += 1
            for parameter in group["params"]:
                state = self.state[parameter]
                z = state.setdefault("z", parameter.detach().clone())
                parameter.lerp_(z, 1 / group["k"])
                parameter.sub_(parameter.grad, alpha=group["lr"] * (1 - group["beta"] * (1 - 1 / group["k"])))
                z.sub_(parameter.grad, alpha=group["lr"])


class Free(etude.Task):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Linear(4, 1)

    def training_step(self, batch):
        return (self.net(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self):
        self.optimizer = ScheduleFree(self.parameters())
        return self.optimizer


BATCHES = [list(pair) for pair in zip(*(part.split(8) for part in data().tensors), strict=True)]


def by_hand(epochs):
    """The evaluated weights after so many epochs, and their loss."""
    task = Free()
    optimizer = task.configure_optimizers()
    optimizer.train()
    for batch in BATCHES * epochs:
        optimizer.zero_grad()
        task.training_step(batch).backward()
        optimizer.step()
    optimizer.eval()
    with torch.no_grad():
        return task, float(torch.stack([task.training_step(batch) for batch in BATCHES]).mean())


def test_validation_best_weights_test_and_what_is_left_are_of_the_evaluated_weights(tmp_path):
    task, (expected, loss) = Free(), by_hand(2)
    given = etude.Trainer(max_duration="2 epochs", run_dir=tmp_path, say=lambda _: None, **QUIET)

    result = given.fit(task, BATCHES, BATCHES, test=BATCHES)

    assert result.metrics["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert given.test()["test/loss"] == pytest.approx(min(row["val/loss"] for row in rows(result)), rel=1e-5)
    for held in (read_weights(result.last, averaged=True), task.state_dict()):
        torch.testing.assert_close(held["net.weight"], expected.net.weight.detach())
    assert not torch.equal(read_weights(result.last)["net.weight"], task.net.weight)


def rows(result):
    return [row for row in result.history if "val/loss" in row]


def test_without_a_folder_the_best_weights_in_memory_are_the_evaluated_ones():
    task, (expected, _) = Free(), by_hand(2)

    result = etude.Trainer(max_duration="2 epochs", say=lambda _: None, **QUIET).fit(task, BATCHES)

    torch.testing.assert_close(result.load_best(Free()).net.weight, expected.net.weight)


def test_an_evaluation_disturbs_no_bit_of_the_training(tmp_path):
    found = []
    for name, options in {"often": {"eval_every": "1 step", "save_every": "1 step"}, "never": {}}.items():
        given = etude.Trainer(max_duration="2 epochs", run_dir=tmp_path / name, say=lambda _: None, **QUIET, **options)
        result = given.fit(Free(), BATCHES, BATCHES if options else None)
        found.append(read_weights(result.last)["net.weight"])

    assert torch.equal(*found)


def test_a_resumed_run_ends_in_the_same_bits(tmp_path):
    def run(folder, length):
        given = etude.Trainer(max_duration=length, run_dir=tmp_path / folder, say=lambda _: None, **QUIET)
        return given.fit(Free(), BATCHES, BATCHES)

    whole = run("whole", "6 steps")
    run("cut", "2 steps")
    resumed = run("cut", "6 steps")

    for averaged in (False, True):
        pair = [read_weights(one.last, averaged=averaged)["net.weight"] for one in (whole, resumed)]
        assert torch.equal(*pair)


def test_an_average_beside_that_of_the_optimizer_is_refused():
    with pytest.raises(ConfigError, match="ema_decay must be off with ScheduleFree"):
        etude.Trainer(max_duration="1 epoch", ema_decay=0.9, say=lambda _: None, **QUIET).fit(Free(), BATCHES)

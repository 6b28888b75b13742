"""On any number of ranks a run optimises the same: each takes a part of every batch."""

import os
import signal

import pytest
import torch
import torch._dynamo
import torch.utils.checkpoint
from in_ranks import in_ranks
from small_runs import Regression, loaders, rows, trainer, weights, without_clock
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude
from etude.base.errors import ConfigError, DistributedError
from etude.train.step import buckets
from etude.train.world import sharded as inherited

assert inherited, torch._dynamo  # by the ranks, each of which would import them again

STEPS = 24


class Two(etude.Task):
    """Two terms of different counts, a buffer of the user's, a part without a gradient, and hidden states."""

    def __init__(self, *, counts=True, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(11)
        self.rnn = nn.GRU(3, 6, batch_first=True)
        self.out = nn.Linear(6, 1)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(()))
        self.counts = counts
        self.to(dtype)

    def training_step(self, batch, *, hiddens=None):
        inputs, targets, weight = batch
        states, last = self.rnn(inputs, hiddens)
        found = self.out(states).squeeze(-1)
        if self.training:
            self.mean.mul_(0.5).add_(0.5 * found.detach().mean())
        self.log("size", found.detach().abs().mean(), count=found.numel())
        weighted = ((found - targets).square() * weight[:, None]).sum()
        small = found.square().sum() * 0.01
        losses = {
            "error": etude.Loss(weighted, float(weight.sum()) * inputs.shape[1]),
            "size": etude.Loss(small, found.shape[0], weight=0.5),
        }
        return etude.StepOutput(losses if self.counts else losses["error"], hiddens=last.detach())

    def validation_step(self, batch):
        return self.training_step(batch).loss


def data(samples, dtype=torch.float64):
    draw = torch.Generator().manual_seed(5)
    inputs = torch.randn(samples, 12, 3, generator=draw, dtype=torch.float64)
    weight = torch.randint(0, 4, (samples,), generator=draw).double()
    return TensorDataset(inputs.to(dtype), inputs.sum(2).to(dtype), weight.to(dtype))


OPTIONS = {
    "plain": {},
    "accumulated": {"accumulate": 3},
    "one term": {"accumulate": 2},
    "in time": {"tbptt_steps": 5, "accumulate": 2},
    "sharded in time": {"tbptt_steps": 5, "accumulate": 2, "distributed": {"strategy": "fsdp"}},
}


def train(rank, folder, kind, steps=STEPS, dtype=torch.float64, **options):
    """A run of some steps; what it logged, and its weights."""
    given = {"max_duration": f"{steps} steps", "eval_every": "8 steps", **OPTIONS[kind], **options}
    task = Two(counts=kind not in {"one term", "sharded in time"}, dtype=dtype)
    fit = trainer(folder, learning_rate=1e-2, **given)
    result = fit.fit(
        task, DataLoader(data(22, dtype), batch_size=4, shuffle=True), DataLoader(data(7, dtype), batch_size=2)
    )
    return result.history, {name: value.clone() for name, value in task.state_dict().items()}, str(result.best)


def close(one, other, tolerance):
    """Whether two records hold the same, to rounding."""
    assert len(one) == len(other)
    for row, another in zip(one, other, strict=True):
        assert row.keys() == another.keys()
        for name in without_clock(row):
            if another[name] is None:
                assert row[name] is None, name
            elif "memory" not in name:
                assert row[name] == pytest.approx(another[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("plain", 3),
        ("accumulated", 2),
        ("one term", 2),
        ("in time", 2),
        ("sharded in time", 3),
        *(pytest.param(kind, 3, marks=pytest.mark.acceptance) for kind in ("accumulated", "one term", "in time")),
    ],
)
def test_several_ranks_optimise_what_one_does(kind, size, tmp_path):
    alone = train(0, tmp_path / "one", kind)

    first, *others = in_ranks(size, train, tmp_path / "many", kind)

    for history, state, best in others:
        assert all(torch.equal(state[name], first[1][name]) for name in state)
        close(history, first[0], 0)
        assert best == first[2]
    close(alone[0], first[0], 1e-10)
    for name, value in alone[1].items():
        if name != "mean":  # of a batch's parts in place of the batch
            torch.testing.assert_close(value, first[1][name], rtol=1e-9, atol=1e-11)
    assert {path.name for path in (tmp_path / "many").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}


class Again(Two):
    """A layer that is computed again twice in a backward pass, each of which makes its gradient anew."""

    def training_step(self, batch):
        inputs, targets, _ = batch
        found = inputs.requires_grad_()
        for layer in (self.twice, self.twice):
            found = torch.utils.checkpoint.checkpoint(layer, found, use_reentrant=True)
        return etude.Loss((found.sum(-1) - targets).square().sum(), targets.numel())

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(3, 3).double()


def computes_again(rank, folder):
    fit = trainer(folder, max_duration="6 steps", learning_rate=1e-2)
    fit.fit(task := Again(), DataLoader(data(22), batch_size=4, shuffle=True))
    return {name: value.clone() for name, value in task.state_dict().items()}


def test_gradients_that_are_made_twice_in_a_pass_are_added_up_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "FIRST_BYTES", 1)  # so that each gradient sets off when it is first made
    monkeypatch.setattr(buckets, "BYTES", 1)
    alone = computes_again(0, tmp_path / "one")

    for found in in_ranks(2, computes_again, tmp_path / "many"):
        for name, value in alone.items():
            torch.testing.assert_close(value, found[name], rtol=1e-9, atol=1e-11)


# -- each rank by itself, averaged now and then ------------------------------------------------------------------------


def local(rank, folder, every, steps=12, kill=None, **options):
    distributed = {"reduce": "local", "average_every": f"{every} steps"}
    given = {"max_duration": f"{steps} steps", "eval_every": "4 steps", "ema_decay": None, "clip_grad": None, **options}
    callbacks = [] if kill is None or rank == 0 else [Kills(kill)]
    task = Two(counts=False)
    fit = trainer(folder, learning_rate=1e-2, distributed=distributed, callbacks=callbacks, **given)
    try:
        fit.fit(task, DataLoader(data(22), batch_size=4, shuffle=True), DataLoader(data(7), batch_size=2))
    except SystemExit as ending:
        return ending.code
    return {name: value.clone() for name, value in task.state_dict().items()}


class Kills(etude.Callback):
    def __init__(self, at):
        self.at = at

    def on_step_end(self, run, outcome):
        if run.progress.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def test_gradient_descent_averaged_at_every_step_is_that_of_the_mean_of_the_ranks_gradients(tmp_path):
    first, second = in_ranks(2, local, tmp_path / "run", 1, 1, None)

    assert all(torch.equal(first[name], second[name]) for name in first)


def broken_off(rank, folder):
    return local(rank, folder, 3, 12, 5)


def straight(rank, folder):
    return local(rank, folder, 3)


def test_local_steps_are_averaged_and_resume_to_the_bit(tmp_path):
    first, second = in_ranks(2, straight, tmp_path / "straight")
    assert all(torch.equal(first[name], second[name]) for name in first)

    assert in_ranks(2, broken_off, tmp_path / "broken") == [143, 143]
    assert (tmp_path / "broken" / "checkpoints" / "last").resolve().name == "step-00000006"
    again, _ = in_ranks(2, straight, tmp_path / "broken")

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert rows(tmp_path / "straight") == rows(tmp_path / "broken")


class Strays(etude.Callback):
    def on_step_end(self, run, outcome):
        if run.progress.step == 3:
            with torch.no_grad():
                run.task.out.weight.add_(1e-6)


def strays(rank):
    given = {"max_duration": "12 steps", "distributed": {"check_every": "2 steps"}}
    callbacks = [Strays()] if rank == 1 else []
    try:
        trainer(None, callbacks=callbacks, save_every="5 steps", **given).fit(Two(), DataLoader(data(22), batch_size=4))
    except DistributedError as error:
        return str(error)
    return "nothing"


def test_a_rank_whose_weights_have_strayed_ends_the_run():
    for said in in_ranks(2, strays):
        assert said.startswith(
            "The ranks no longer have the same weights at step 4: rank 1 has another out.weight than rank 0."
        )


# -- recomputed activations --------------------------------------------------------------------------------------------


def test_activations_that_are_computed_again_leave_every_bit(tmp_path):
    class Deep(Regression):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.more = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Tanh()) for _ in range(3)])

        def training_step(self, batch):
            inputs, targets = batch
            for layer in self.more:
                inputs = layer(inputs)
            return super().training_step((inputs, targets))

    for name, again in (("kept", False), ("again", True)):
        trainer(tmp_path / name, distributed={"checkpoint_activations": again}).fit(Deep(), *loaders())

    assert weights(tmp_path / "kept") == weights(tmp_path / "again")
    with pytest.raises(ConfigError, match="checkpoint_activations needs a model with a stack of layers"):
        trainer(None, distributed={"checkpoint_activations": True}, save_every="1 epoch").fit(Regression(), *loaders())

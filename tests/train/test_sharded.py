"""Weights sharded over the ranks train as whole ones do, and are stored as those."""

from dataclasses import replace

import pytest
import torch
from in_ranks import in_ranks
from small_runs import rows, trainer, weights
from test_ranks import close  # which imports what ranks inherit
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude
from etude.app.python import trainer as face
from etude.base.errors import ConfigError
from etude.train.memory.checkpoint import read_weights
from etude.train.structure import Change, Structured


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.inner, self.outer = (
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )

    def forward(self, states):
        return states + self.outer(torch.tanh(self.inner(self.norm(states))))


class Stack(etude.Task):
    """Embeddings that are tied to the output, and layers in a list; one term, or two."""

    def __init__(self, width=8, layers=3, terms=1):
        super().__init__()
        torch.manual_seed(11)
        self.embedding = nn.Embedding(7, width)
        self.layers = nn.ModuleList([Layer(width) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.terms = terms

    def training_step(self, batch):
        tokens, targets = batch
        states = self.embedding(tokens)
        for layer in self.layers:
            states = layer(states)
        logits = self.norm(states) @ self.embedding.weight.T
        total = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=0)
        loss = etude.Loss(total, int((targets != 0).sum()))
        if self.terms == 1:
            return loss
        return {"tokens": loss, "size": etude.Loss(states.square().sum(), len(tokens), weight=0.1)}

    def validation_step(self, batch):
        return self.training_step(batch)


def data(samples):
    draw = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 7, (samples, 6), generator=draw)
    return TensorDataset(tokens, tokens.roll(1, 1))


def fitted(folder, strategy, steps, task, *, timeout="600 seconds", **options):
    every = {"eval_every": "5 steps", "save_every": "4 steps"}
    given = {"max_duration": f"{steps} steps", "learning_rate": 1e-2, **every, **options}
    fit = trainer(folder, distributed={"strategy": strategy, "timeout": timeout}, progress=False, **given)
    loaders = DataLoader(data(27), batch_size=6, shuffle=True), DataLoader(data(9), batch_size=2)
    return fit.fit(task, *loaders)


class Held(etude.Callback):
    """Finds how many numbers of the weights a rank holds between two steps."""

    numbers = 0

    def on_step_end(self, run, outcome):
        held = [p.to_local() if hasattr(p, "to_local") else p for p in run.task.parameters()]
        self.numbers = sum(p.numel() for p in held)


def looks(task):
    """What a task is made of, its weights by their identity."""
    parts = [(type(part), {name: value for name, value in vars(part).items() if value}) for part in task.modules()]
    return [(kind, {**held, "_modules": None, "_parameters": None}) for kind, held in parts], [
        *map(id, task.parameters())
    ]


def train(rank, folder, strategy, steps=12, terms=1, **options):
    """A run; how many numbers of the weights a rank held, the weights after it, and whether the task is as before."""
    task, held = Stack(terms=terms), Held()
    first = looks(task)
    fitted(folder, strategy, steps, task, callbacks=[held], **options)
    for name in ("_scalars", "progress", "metrics"):
        vars(task).pop(name, None)
    task.zero_grad()
    return held.numbers, {name: value.tolist() for name, value in task.state_dict().items()}, looks(task) == first


def losses(folder):
    return {(row["step"], name): row[name] for row in rows(folder) for name in row if name != "step"}


@pytest.mark.parametrize("size", [2, 3])
def test_sharded_weights_train_as_whole_ones(size, tmp_path):
    options = {"accumulate": 2, "clip_grad": 0.5, "ema_decay": 0.9}
    train(0, tmp_path / "whole", "ddp", **options)
    answers = in_ranks(size, sharded, tmp_path / "sharded", options)

    whole, sharding = losses(tmp_path / "whole"), losses(tmp_path / "sharded")
    assert whole.keys() == sharding.keys()
    for name, value in whole.items():
        assert sharding[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name
    parameters = sum(p.numel() for p in Stack().parameters())
    held, after, same = zip(*answers, strict=True)
    assert sum(held) == parameters
    assert max(held) < 0.7 * parameters
    assert Stack.load(tmp_path / "sharded" / "checkpoints" / "best").embedding.weight.shape == (7, 8)
    last = read_weights(tmp_path / "sharded" / "checkpoints" / "last")
    assert after == ({name: value.tolist() for name, value in last.items()},) * size
    assert all(same), "the task is not what it was before the fit"


def sharded(rank, folder, options):
    return train(rank, folder, "fsdp", **options)


def test_a_checkpoint_is_continued_by_the_other_strategy(tmp_path):
    train(0, tmp_path / "straight", "ddp", 12)
    in_ranks(2, some, tmp_path / "mixed", "fsdp", 4)
    in_ranks(2, some, tmp_path / "mixed", "ddp", 8)
    in_ranks(3, some, tmp_path / "mixed", "fsdp", 12)

    straight, mixed = losses(tmp_path / "straight"), losses(tmp_path / "mixed")
    for name, value in straight.items():
        if name[1] == "train/loss":
            assert mixed[name] == pytest.approx(value, rel=2e-5), name


def some(rank, folder, strategy, steps):
    return train(rank, folder, strategy, steps)


# -- a structure that changes -----------------------------------------------------------------------------------------

SHAPES = {"": (8, 2), "deep": (8, 3), "wide": (12, 3)}
"""Width and layers of the structures, in the order of the epochs that begin with them."""


class Grows:
    """Makes the stack deeper, and then wider."""

    def __init__(self, job):
        self.job = job

    def at(self, progress, name):
        due = list(SHAPES)[min(progress.epoch, 2)]
        return None if due == name else self.named(due)

    def names(self):
        return ("layers.2.norm.weight",)

    def named(self, name):
        return Change(name, lambda: self.make(*SHAPES[name]))

    def make(self, width, layers):
        return Structured(Stack(width, layers).double(), self.job.train, self.job.val, self.job.optimizers)


def growing(rank, folder, strategy, steps):
    """A run that grows at steps 5 and 10; its rows, and the last and the best weights in the task."""
    task, options = Stack(8, 2).double(), {"ema_decay": 0.9, "clip_grad": 0.5, "eval_every": "4 steps"}
    result = fitted(folder, strategy, steps, task, **options)
    held = {f"last {name}": value.clone() for name, value in task.state_dict().items()}
    result.load_best(task)
    assert not any(hasattr(parameter, "to_local") for parameter in task.parameters())
    return result.history, held | {f"best {name}": value for name, value in task.state_dict().items()}


def test_sharded_weights_grow_as_whole_ones_and_go_on_to_the_bit(tmp_path, monkeypatch):
    run_job = face.run_job
    monkeypatch.setattr(face, "run_job", lambda job: run_job(replace(job, structure=Grows(job))))
    alone = growing(0, tmp_path / "one", "ddp", 12)

    straight, other = in_ranks(2, growing, tmp_path / "two", "fsdp", 12)
    for steps in (10, 12):  # where the structure of the checkpoint is left at once
        in_ranks(2, growing, tmp_path / "cut", "fsdp", steps)

    close(alone[0], straight[0], 1e-10)
    for name, value in alone[1].items():
        torch.testing.assert_close(straight[1][name], value, rtol=1e-9, atol=1e-11)
        assert torch.equal(straight[1][name], other[1][name])
    assert rows(tmp_path / "cut") == rows(tmp_path / "two")
    assert weights(tmp_path / "cut") == weights(tmp_path / "two")


# -- what cannot be ---------------------------------------------------------------------------------------------------


def two_terms(rank, folder, options):
    try:
        return train(rank, folder, "fsdp", terms=2, **options)[0]
    except ConfigError as error:
        return str(error)


def test_several_terms_of_one_batch_are_counted_before_they_are_differentiated(tmp_path):
    train(0, tmp_path / "whole", "ddp", terms=2)
    in_ranks(2, two_terms, tmp_path / "sharded", {})

    whole, sharding = losses(tmp_path / "whole"), losses(tmp_path / "sharded")
    for name, value in whole.items():
        assert sharding[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 2}, "accumulates several loss terms only where the task counts their targets ahead"),
        (
            {"parameter_noise": 0.1},
            'distributed.strategy = "fsdp" cannot be used with train.parameter_noise; take "ddp"',
        ),
    ],
)
def test_what_sharded_weights_cannot_do_is_refused(options, message, tmp_path):
    for said in in_ranks(2, two_terms, tmp_path / "run", options):
        assert message in said

"""Weights sharded over the ranks train as whole ones do, and are stored as those."""

import pytest
import torch
from in_ranks import in_ranks
from small_runs import rows, trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude
from etude.base.errors import ConfigError


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
    given = {"max_duration": f"{steps} steps", "eval_every": "5 steps", "learning_rate": 1e-2, **options}
    fit = trainer(folder, distributed={"strategy": strategy, "timeout": timeout}, progress=False, **given)
    loaders = DataLoader(data(27), batch_size=6, shuffle=True), DataLoader(data(9), batch_size=2)
    return fit.fit(task, *loaders)


def train(rank, folder, strategy, steps=12, terms=1, **options):
    task = Stack(terms=terms)
    result = fitted(folder, strategy, steps, task, **options)
    held = [p.to_local() if hasattr(p, "to_local") else p for p in task.parameters()]
    return result.history[-1]["step"], sum(p.numel() for p in held)


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
    assert sum(held for _, held in answers) == parameters
    assert max(held for _, held in answers) < 0.7 * parameters
    assert Stack.load(tmp_path / "sharded" / "checkpoints" / "best").embedding.weight.shape == (7, 8)


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
        ({"tbptt_steps": 2}, 'distributed.strategy = "fsdp" cannot be used with train.tbptt_steps; take "ddp"'),
    ],
)
def test_what_sharded_weights_cannot_do_is_refused(options, message, tmp_path):
    for said in in_ranks(2, two_terms, tmp_path / "run", options):
        assert message in said

"""Sparse gradients are clipped, accumulated, kept and stored as dense ones."""

import pytest
import torch
from torch import nn

import etude
from etude.train.optim.sparse import summed

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # torch's own Adagrad
QUIET = {"say": lambda _: None, "progress": False, "device": "cpu", "precision": "float32", "loggers": []}
OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.02),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.5),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
}
HOW = {"plain": {}, "clipped": {"clip_grad": 0.05}, "accumulated": {"accumulate": 2}}
HOW["both"] = HOW["clipped"] | HOW["accumulated"]


class Bag(nn.Module):
    def __init__(self, *, sparse):
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(20, 6, padding_idx=0, sparse=sparse)

    def forward(self, tokens):
        return self.table(tokens).mean((1, 2))


def data():
    draw = torch.Generator().manual_seed(2)
    batches = [[torch.randint(1, 20, (5, 7), generator=draw), torch.randn(5, generator=draw)] for _ in range(6)]
    batches[3][0][:] = 0  # padding alone
    return batches


def fit(*, sparse, optimizer, loss=nn.functional.mse_loss, **options):
    net = Bag(sparse=sparse)
    settings = {"max_duration": "2 epochs", "log_every": "1 step", **QUIET, **options}
    result = etude.fit(net, data(), loss=loss, optimizer=optimizer, **settings)
    return net.table.weight.detach(), [row["train/grad_norm"] for row in result.history if "train/grad_norm" in row]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_sparse_embedding_learns_what_a_dense_one_does(optimizer, how):
    weights, norms = fit(sparse=True, optimizer=OPTIMIZERS[optimizer], **HOW[how])

    expected, expected_norms = fit(sparse=False, optimizer=OPTIMIZERS[optimizer], **HOW[how])

    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=1e-7)
    assert norms == pytest.approx(expected_norms, rel=1e-5)


@pytest.mark.parametrize("how", HOW)
def test_sparse_adam_takes_the_steps_of_a_loop_by_hand(how):
    def make(parameters):
        return torch.optim.SparseAdam(list(parameters), lr=0.01)

    weights, _ = fit(sparse=True, optimizer=make, **HOW[how])

    net, groups = Bag(sparse=True), HOW[how].get("accumulate", 1)
    optimizer, batches = make(net.parameters()), data()
    for start in [*range(0, 6, groups)] * 2:
        group = batches[start : start + groups]
        value = sum(nn.functional.mse_loss(net(x), y, reduction="sum") for x, y in group) / (5 * len(group))
        (gradient,) = torch.autograd.grad(value, [net.table.weight])
        gradient, limit = gradient.coalesce(), HOW[how].get("clip_grad")
        factor = 1.0 if limit is None else min(1.0, limit / (float(gradient.values().norm()) + 1e-6))
        net.table.weight.grad = gradient * factor
        optimizer.step()
    torch.testing.assert_close(weights, net.table.weight.detach(), rtol=1e-5, atol=1e-6)


def test_several_terms_are_accumulated_as_of_dense_gradients():
    def loss(outputs, targets):
        error = outputs - targets
        return {"square": etude.Loss(error.square().sum(), 5), "size": etude.Loss(error.abs().sum(), 4, 0.5)}

    weights, _ = fit(sparse=True, optimizer=OPTIMIZERS["SGD"], loss=loss, accumulate=2)

    expected, _ = fit(sparse=False, optimizer=OPTIMIZERS["SGD"], loss=loss, accumulate=2)
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=1e-7)


class Rare(etude.Task):
    """Steps every second time, on the gradients of both."""

    def __init__(self):
        super().__init__()
        self.net = Bag(sparse=True)

    def training_step(self, batch):
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SparseAdam(list(self.parameters()), lr=0.01)

    def optimizer_step(self, optimizer, closure, *, progress):
        closure()
        if progress.step % 2:
            optimizer.step()


def test_a_kept_sparse_gradient_is_in_the_checkpoint_and_the_resumed_run_ends_in_the_same_bits(tmp_path):
    whole, cut, resumed = Rare(), Rare(), Rare()

    etude.Trainer(max_duration="6 steps", run_dir=tmp_path / "whole", **QUIET).fit(whole, data())
    etude.Trainer(max_duration="3 steps", run_dir=tmp_path / "cut", **QUIET).fit(cut, data())
    etude.Trainer(max_duration="6 steps", run_dir=tmp_path / "cut", **QUIET).fit(resumed, data())

    assert torch.equal(resumed.net.table.weight, whole.net.table.weight)
    assert not torch.equal(cut.net.table.weight, whole.net.table.weight)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_with_sparse_gradients_is_resumed_to_the_bit(optimizer, tmp_path):
    weights = {}
    for folder, lengths in {"whole": ["2 epochs"], "cut": ["5 steps", "2 epochs"]}.items():
        for length in lengths:
            options = {"optimizer": OPTIMIZERS[optimizer], "run_dir": tmp_path / folder, "max_duration": length}
            weights[folder], _ = fit(sparse=True, **options)

    assert torch.equal(weights["cut"], weights["whole"])


def test_a_summed_gradient_is_the_dense_one_to_the_bit():
    torch.manual_seed(4)
    table, tokens, factors = torch.randn(50, 16, requires_grad=True), torch.randint(0, 50, (300,)), torch.randn(300, 16)
    dense, sparse = (
        torch.autograd.grad((nn.functional.embedding(tokens, table, sparse=sparse) * factors).sum(), table)[0]
        for sparse in (False, True)
    )

    assert torch.equal(summed(sparse).to_dense(), dense)

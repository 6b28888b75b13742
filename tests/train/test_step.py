"""The gradient of a step is that of its whole effective batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import etude
from etude.base.progress import Progress
from etude.data.feeds.batches import PairBatch
from etude.train.optim.slot import Slot
from etude.train.step.precision import Precision
from etude.train.step.update import Update

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


class Tagger(etude.Task):
    """Labels tokens; label 0 is padding."""

    def __init__(self, terms=1):
        super().__init__()
        self.body = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 16), nn.Tanh())
        self.head, self.second = nn.Linear(16, 5), nn.Linear(16, 5)
        self.terms = terms

    def training_step(self, batch):
        tokens, labels, others = batch
        hidden = self.body(tokens)
        first = self._loss(self.head(hidden), labels)
        if self.terms == 1:
            return first
        return {"first": first, "second": etude.Loss(*self._parts(self.second(hidden), others), weight=0.3)}

    def _loss(self, logits, labels):
        return etude.Loss(*self._parts(logits, labels))

    def _parts(self, logits, labels):
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=0, reduction="sum")
        return total, int((labels != 0).sum())


class Counting(Tagger):
    def count_targets(self, batch):
        return {"first": int((batch[1] != 0).sum()), "second": int((batch[2] != 0).sum())}


def ragged_batch(size, seed):
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 20, (size, 9), generator=draw)
    lengths = torch.randint(1, 10, (size, 1), generator=draw)
    others = torch.randint(1, 10, (size, 1), generator=draw)
    labels = torch.randint(1, 5, (size, 9), generator=draw)
    place = torch.arange(9)
    return tokens, labels * (place < lengths), labels * (place < others)


def gradient_of(task, batches, dtype):
    task.to(dtype)
    kept = {}

    class Reading(torch.optim.SGD):
        def step(self, closure=None):
            kept.update({name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None})

    slot = Slot("0", Reading(task.parameters(), lr=0.0), notice=lambda _: None)
    Update(task, [slot], device=CPU, precision=Precision("float32", CPU))(batches, Progress())
    return torch.cat([torch.zeros(0, dtype=dtype), *(kept[name].flatten() for name in sorted(kept))])


def make(kind, **options):
    torch.manual_seed(0)
    return kind(**options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(16, 16, 16, 16), (16, 16, 5)])
@pytest.mark.parametrize(("kind", "terms"), [(Tagger, 1), (Tagger, 2), (Counting, 2)])
def test_the_gradient_of_several_batches_is_that_of_the_one_they_make(kind, terms, sizes, dtype):
    whole = ragged_batch(sum(sizes), seed=3)
    parts = list(zip(*(tensor.split(sizes) for tensor in whole), strict=True))

    one = gradient_of(make(kind, terms=terms), [whole], dtype)
    several = gradient_of(make(kind, terms=terms), parts, dtype)

    assert (one - several).norm() <= TOLERANCE[dtype] * one.norm()


def test_a_mean_of_means_would_have_been_seen():
    whole = ragged_batch(64, seed=3)
    parts = list(zip(*(tensor.split(16) for tensor in whole), strict=True))

    one = gradient_of(make(Tagger), [whole], torch.float64)
    mean = sum(gradient_of(make(Tagger), [part], torch.float64) for part in parts) / 4

    assert (one - mean).norm() > 1e-3 * one.norm()


def test_a_term_that_only_some_batches_have_is_averaged_over_its_own_targets():
    class Sometimes(Tagger):
        def training_step(self, batch):
            terms = {"first": self._loss(self.head(self.body(batch[0])), batch[1])}
            if len(batch[0]) == 8:
                terms["second"] = etude.Loss(*self._parts(self.second(self.body(batch[0])), batch[2]))
            return terms

    batches = [ragged_batch(6, 1), ragged_batch(8, 2), ragged_batch(6, 3)]
    task = make(Sometimes).to(torch.float64)
    sums, counts = {"first": 0.0, "second": 0.0}, {"first": 0, "second": 0}
    for batch in batches:
        for name, loss in task.training_step(batch).items():
            sums[name], counts[name] = sums[name] + loss.sum, counts[name] + loss.count
    expected = torch.autograd.grad(sum(sums[name] / counts[name] for name in sums), list(task.parameters()))
    names = sorted(name for name, _ in task.named_parameters())
    by_name = dict(zip([name for name, _ in task.named_parameters()], expected, strict=True))

    found = gradient_of(make(Sometimes), batches, torch.float64)

    wanted = torch.cat([by_name[name].flatten() for name in names])
    assert (found - wanted).norm() <= 1e-10 * wanted.norm()


def test_a_bare_tensor_is_a_mean_weighted_by_its_samples():
    class Bare(etude.Task):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def training_step(self, batch):
            return self.layer(batch).square().mean()

    whole = torch.randn(10, 3, dtype=torch.float64)

    one = gradient_of(make(Bare), [whole], torch.float64)
    several = gradient_of(make(Bare), list(whole.split([7, 3])), torch.float64)

    assert (one - several).norm() <= 1e-10 * one.norm()


def test_a_batch_without_targets_contributes_nothing_and_no_nan():
    batch = ragged_batch(4, 1)
    empty = (batch[0], torch.zeros_like(batch[1]), torch.zeros_like(batch[2]))

    alone = gradient_of(make(Tagger), [batch], torch.float64)
    beside = gradient_of(make(Tagger), [empty, batch], torch.float64)
    nothing = gradient_of(make(Tagger), [empty], torch.float64)

    assert (alone - beside).norm() <= 1e-10 * alone.norm()
    assert not len(nothing)  # no step is taken


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accumulated_translation_batches_give_the_gradient_of_the_large_one(smoothing):
    from etude.model.losses import CrossEntropy
    from etude.model.transformer import Transformer, TransformerConfig
    from etude.tasks.translation.task import TranslationTask

    def pairs(size, seed):
        draw = torch.Generator().manual_seed(seed)
        source = torch.randint(4, 30, (size, 8), generator=draw)
        lengths = torch.randint(2, 9, (size,), generator=draw)
        target = torch.randint(4, 30, (size, 9), generator=draw) * (torch.arange(9) < lengths[:, None])
        target[:, 0] = 2
        count = int((lengths - 1).sum())
        return PairBatch(source, torch.full((size,), 8), target, lengths, count, torch.arange(size))

    def part(batch, rows):
        lengths = batch.target_lengths[rows]
        return PairBatch(
            batch.source[rows],
            batch.source_lengths[rows],
            batch.target[rows][:, : int(lengths.max())],
            lengths,
            int((lengths - 1).sum()),
            batch.indices[rows],
        )

    def task():
        torch.manual_seed(2)
        config = TransformerConfig(d_model=16, heads=2, encoder_layers=1, decoder_layers=1, feedforward=32, dropout=0.0)
        return TranslationTask(Transformer(config, 30, 30), loss=CrossEntropy(smoothing, ignore_index=0))

    whole = pairs(64, 5)
    parts = [part(whole, slice(start, start + 16)) for start in range(0, 64, 16)]

    for dtype, tolerance in TOLERANCE.items():
        one, several = gradient_of(task(), [whole], dtype), gradient_of(task(), parts, dtype)
        assert (one - several).norm() <= tolerance * one.norm()

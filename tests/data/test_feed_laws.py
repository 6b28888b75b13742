"""The laws that every feed keeps, whatever it is made of."""
# ruff: noqa: NPY002 - users draw from the global generators, so these tests do

import json
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, TensorDataset

from etude.data.feeds.adopt import adopt
from etude.data.feeds.batches import PairBatch
from etude.data.feeds.batching import Batching
from etude.data.feeds.pairs import pair_feed, pair_measures
from etude.data.order.curriculum import Curriculum
from etude.data.order.windows import WINDOW

N = 53


class Table:
    """A corpus in memory: sample i has 1 + i % 7 source tokens and 1 + i % 5 target tokens, all of them 4 + i."""

    def __len__(self):
        return N

    def lengths(self, side):
        return 1 + np.arange(N) % (7 if side == "source" else 5)

    def gather(self, side, indices):
        lengths = self.lengths(side)[indices]
        return np.repeat(4 + indices, lengths), lengths

    def total(self, side):
        return int(self.lengths(side).sum())

    def origin(self, row):
        return row


class Noisy(Dataset):
    """Samples whose transform draws from all three global generators."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


class Seldom(Noisy):
    """Samples of which only a few draw anything, and the first batch none."""

    def __getitem__(self, index):
        drawn = np.random.normal() + random.random() if index % 8 == 7 and index > 20 else 0.0
        return torch.tensor([index, drawn], dtype=torch.float64)


class Weighted(Sampler):
    """A sampler of batches that draws from global generators and from one of its own."""

    def __init__(self):
        self.rng = random.Random()

    def __iter__(self):
        order = torch.randperm(N).tolist()
        while order:
            size = self.rng.randint(1, 9)
            yield order[:size]
            order = order[size:]


class Stream(IterableDataset):
    def __iter__(self):
        for index in range(N):
            yield torch.tensor([index, random.random()])


class Remembering:
    """A loader that can say where it stands."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        while self.at < N:
            self.at += 5
            yield torch.tensor([self.at, random.random()])
        self.at = 0

    def state_dict(self):
        return {"at": torch.tensor(self.at), "kind": (1, b"x")}

    def load_state_dict(self, state):
        self.at = int(state["at"])


def generated():
    for index in range(11):
        yield torch.tensor([index, np.random.rand()])


def pairs(window=WINDOW, **options):
    return lambda: pair_feed(Table(), Batching(seed=3, **options), window=window)


def limited(window=WINDOW, **options):
    """Pairs within limits, some of them easy first."""

    def make():
        longer, ease = pair_measures(Table())
        limits = {"max_length": 5}
        curriculum = Curriculum(
            N, seed=3, measures={"max_length": longer}, limits=limits, ease=ease, kind="easy_first", easy_epochs=2,
            varying=True, chunk=16,
        )  # fmt: skip
        return pair_feed(Table(), Batching(seed=3, varying=True, **options), curriculum=curriculum, window=window)

    return make


def adopted(data, **options):
    return lambda: adopt(data(), seed=3, **options)


FEEDS = {
    "count": pairs(batch_size=8),
    "count in order": pairs(batch_size=8, shuffle=False),
    "count, two workers": pairs(batch_size=8, workers=2),
    "budget": pairs(batch_tokens=40),
    "budget in windows": pairs(batch_tokens=40, window=16),
    "budget in windows, two workers": pairs(batch_tokens=40, window=16, workers=2),
    "evaluation by count": pairs(batch_size=8, evaluation=True),
    "evaluation by budget": pairs(batch_tokens=40, evaluation=True),
    "within limits, by count": limited(batch_size=4),
    "within limits, by budget": limited(batch_tokens=20, window=16),
    "within limits, two workers": limited(batch_tokens=20, window=16, workers=2),
    "within limits, second of two ranks": limited(batch_size=4, rank=1, world=2),
    "limited": pairs(batch_size=8, limit=3),
    "limited budget": pairs(batch_tokens=40, limit=0.5),
    "second of two ranks": pairs(batch_tokens=40, rank=1, world=2),
    "shuffled loader": adopted(lambda: DataLoader(Noisy(), batch_size=8, shuffle=True)),
    "shuffled loader, two workers": adopted(lambda: DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=2)),
    "seldom random": adopted(lambda: DataLoader(Seldom(), batch_size=4)),
    "seldom random, two workers": adopted(lambda: DataLoader(Seldom(), batch_size=4, num_workers=2)),
    "loader of a stream with a worker": adopted(lambda: DataLoader(Stream(), batch_size=8, num_workers=1)),
    "loader without batches": adopted(lambda: DataLoader(Noisy(), batch_size=None)),
    "tensors": adopted(lambda: TensorDataset(torch.arange(N)), batch_size=8, shuffle=True),
    "replacing sampler": adopted(
        lambda: DataLoader(Noisy(), batch_size=8, sampler=RandomSampler(range(N), replacement=True))
    ),
    "own sampler of batches": adopted(lambda: DataLoader(Noisy(), batch_sampler=Weighted())),
    "own sampler of batches, two workers": adopted(
        lambda: DataLoader(Noisy(), batch_sampler=Weighted(), num_workers=2)
    ),
    "stream of samples": adopted(Stream, batch_size=8),
    "loader of a stream": adopted(lambda: DataLoader(Stream(), batch_size=8)),
    "list of batches": adopted(lambda: [torch.arange(3) + i for i in range(7)]),
    "function": adopted(lambda: generated),
    "limited function": adopted(lambda: generated, limit=4),
    "remembering": adopted(Remembering),
}


def plain(delivery):
    batch = delivery.batch
    if isinstance(batch, PairBatch):
        batch = [batch.source, batch.target, batch.indices]
    parts = [part.tolist() for part in (batch if isinstance(batch, list) else [batch])]
    return parts, delivery.samples, dict(delivery.position), delivery.done, delivery.last


@pytest.fixture(params=FEEDS)
def make(request):
    made = []

    def new():
        made.append(FEEDS[request.param]())
        return made[-1]

    yield new
    for feed in made:
        feed.close()


def test_an_epoch_goes_on_after_any_of_its_batches_with_exactly_the_rest(make):
    feed = make()
    whole = [plain(delivery) for delivery in feed.epoch(1)]
    positions = [json.loads(json.dumps(position)) for _, _, position, _, _ in whole]
    cuts = range(len(whole)) if len(whole) < 12 else [0, 1, len(whole) // 2, len(whole) - 2, len(whole) - 1]

    rests = {cut: [plain(delivery) for delivery in feed.epoch(1, positions[cut])] for cut in cuts}

    assert rests == {cut: whole[cut + 1 :] for cut in cuts}


def test_a_fresh_feed_gives_the_same_epoch_and_goes_on_in_it(make):
    whole = [plain(delivery) for delivery in make().epoch(0)]

    fresh = make()
    rest = [plain(delivery) for delivery in fresh.epoch(0, whole[2][2])]

    assert rest == whole[3:]


def test_only_the_last_batch_of_an_epoch_says_so_and_what_is_done_adds_up(make):
    feed = make()
    deliveries = list(feed.epoch(0))

    assert [delivery.last for delivery in deliveries] == [False] * (len(deliveries) - 1) + [True]
    assert deliveries[-1].done == (feed.epoch_total or len(deliveries))
    assert [d.done for d in deliveries] == sorted({d.done for d in deliveries})
    assert not feed.exact or feed.batches == len(deliveries)


def test_a_feed_leaves_the_global_generators_alone(make):
    feed = make()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    list(feed.epoch(0))

    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_what_happens_between_two_batches_changes_nothing(make):
    quiet = [plain(delivery) for delivery in make().epoch(2)]

    disturbed = []
    for delivery in make().epoch(2):
        disturbed.append(plain(delivery))
        random.random(), np.random.rand(), torch.rand(3)

    assert disturbed == quiet


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("count", "count, two workers"),
        ("budget in windows", "budget in windows, two workers"),
        ("shuffled loader", "shuffled loader, two workers"),
        ("seldom random", "seldom random, two workers"),
        ("own sampler of batches", "own sampler of batches, two workers"),
    ],
)
def test_workers_change_nothing(here, there):
    feeds = FEEDS[here](), FEEDS[there]()

    epochs = [[plain(delivery) for epoch in range(2) for delivery in feed.epoch(epoch)] for feed in feeds]

    feeds[1].close()
    assert epochs[0] == epochs[1]

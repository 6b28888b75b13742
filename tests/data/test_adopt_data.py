"""Data of the user's own, as a feed."""
# ruff: noqa: NPY002 - users draw from the global generators, so these tests do

import random
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    get_worker_info,
)

from etude.base.errors import ConfigError, DataError
from etude.data.feeds.adopt import adopt

N = 20


class Numbers(Dataset):
    fail_at = -1

    def __len__(self):
        return N

    def __getitem__(self, index):
        assert type(index) is int
        if index == self.fail_at:
            raise ValueError("torn")
        return index


class Counting(Sampler):
    """A sampler that gives what epoch it was told."""

    def __init__(self):
        self.epoch = None

    def __len__(self):
        return 2

    def __iter__(self):
        return iter([self.epoch, torch.randint(N, ()).item()])

    def set_epoch(self, epoch):
        self.epoch = epoch


class Pairlike:
    """Samples by number, from a class that does not know torch."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"x": index}


def batches(feed, epoch=0):
    return [delivery.batch.tolist() for delivery in feed.epoch(epoch)]


def heard(data, **options):
    sentences = []
    feed = adopt(data, seed=1, notice=sentences.append, **options)
    return feed, sentences


def test_a_loaders_shuffling_is_replaced_by_a_computed_order_and_that_is_said():
    feed, sentences = heard(DataLoader(Numbers(), batch_size=6, shuffle=True))

    first, second = batches(feed, 0), batches(feed, 1)

    assert first != second
    assert [len(batch) for batch in first] == [6, 6, 6, 2]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(N))
    assert len(sentences) == 1
    assert "replaces the loader's random sampler" in sentences[0]


def test_a_loader_in_order_stays_in_order_and_nothing_is_said():
    feed, sentences = heard(DataLoader(Numbers(), batch_size=6, drop_last=True))

    assert batches(feed) == [list(range(6)), list(range(6, 12)), list(range(12, 18))]
    assert sentences == []
    assert (feed.batches, feed.exact, feed.epoch_total, feed.samples) == (3, True, 3, 18)


def test_shuffling_can_be_forbidden():
    feed, sentences = heard(DataLoader(Numbers(), batch_size=20, shuffle=True), shuffle=False)

    assert batches(feed) == [list(range(N))]
    assert len(sentences) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_keeps_its_collate_function(workers):
    loader = DataLoader(Numbers(), batch_size=5, collate_fn=lambda items: torch.tensor(items) * 10, num_workers=workers)
    feed = adopt(loader, seed=1)

    assert batches(feed)[1] == [50, 60, 70, 80, 90]
    feed.close()


class Shifted(Numbers):
    shift = 0

    def __getitem__(self, index):
        return index + self.shift


def shift_here(worker):
    get_worker_info().dataset.shift = 100 + worker


def test_a_loader_keeps_its_worker_init_fn_and_what_that_sees():
    feed = adopt(DataLoader(Shifted(), batch_size=10, num_workers=1, worker_init_fn=shift_here), seed=1)

    assert batches(feed)[0] == list(range(100, 110))
    feed.close()


def test_a_sampler_of_batches_made_of_torchs_parts_is_computed_too():
    sampler = BatchSampler(RandomSampler(range(N)), 6, drop_last=True)
    feed, sentences = heard(DataLoader(Numbers(), batch_sampler=sampler))

    assert [len(batch) for batch in batches(feed)] == [6, 6, 6]
    assert "replaces" in sentences[0]


def test_a_custom_sampler_is_told_the_epoch_and_drawn_from_a_seed():
    loader = DataLoader(Numbers(), batch_size=2, sampler=Counting())
    torch.manual_seed(0)
    first = batches(adopt(loader, seed=1), 3)
    torch.manual_seed(9)
    again = batches(adopt(loader, seed=1), 3)

    assert first == again
    assert first[0][0] == 3


def test_a_custom_sampler_is_moved_forward_without_loading_samples():
    read = []

    class Watched(Numbers):
        def __getitem__(self, index):
            read.append(index)
            return index

    sampler = RandomSampler(range(N), replacement=True, num_samples=40)
    feed, sentences = heard(DataLoader(Watched(), batch_size=10, sampler=sampler))
    whole = list(feed.epoch(0))
    read.clear()

    rest = batches_of(feed.epoch(0, whole[2].position))

    assert read == rest[0] == whole[3].batch.tolist()
    assert "seeded for every epoch" in sentences[0]


def batches_of(deliveries):
    return [delivery.batch.tolist() for delivery in deliveries]


def test_batch_size_beside_a_loader_or_batches_is_refused():
    with pytest.raises(ConfigError, match=r"train\.batch_size is 4, but the data is a DataLoader"):
        adopt(DataLoader(Numbers()), seed=1, batch_size=4)
    with pytest.raises(ConfigError, match="an iterable of batches"):
        adopt([torch.ones(2)], seed=1, batch_size=4)


def test_a_dataset_is_batched():
    feed = adopt(Numbers(), seed=1, batch_size=8, shuffle=True)

    assert [len(batch) for batch in batches(feed)] == [8, 8, 4]


def test_what_has_numbers_and_a_length_but_cannot_be_iterated_is_samples():
    feed = adopt(Pairlike(), seed=1, batch_size=3)

    assert [delivery.batch["x"].tolist() for delivery in feed.epoch(0)] == [[0, 1, 2], [3]]


def test_tensors_are_gathered_as_torch_would_collate_them():
    data = TensorDataset(torch.arange(N), torch.rand(N, 2))
    ours = [delivery.batch for delivery in adopt(DataLoader(data, batch_size=8), seed=1).epoch(0)]

    theirs = list(DataLoader(data, batch_size=8))

    for our, their in zip(ours, theirs, strict=True):
        assert type(our) is type(their)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(our, their, strict=True))


def test_a_subset_of_tensors_is_read_like_any_dataset():
    feed = adopt(DataLoader(Subset(TensorDataset(torch.arange(N)), [3, 1]), batch_size=2), seed=1)

    assert [d.batch[0].tolist() for d in feed.epoch(0)] == [[3, 1]]


def test_a_sample_that_cannot_be_read_is_named():
    data = Numbers()
    data.fail_at = 7

    with pytest.raises(DataError, match="Sample 7 could not be loaded: ValueError: torn"):
        batches(adopt(data, seed=1, batch_size=4))


class Random(Numbers):
    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])


def test_a_samples_randomness_is_its_own_in_every_epoch():
    small, large = (adopt(Random(), seed=1, batch_size=size) for size in (2, N))

    parts = torch.cat([delivery.batch for delivery in small.epoch(4)])
    whole = torch.cat([delivery.batch for delivery in large.epoch(4)])
    other = torch.cat([delivery.batch for delivery in large.epoch(5)])

    assert torch.equal(parts, whole)
    assert len(set(whole.flatten().tolist())) == 3 * N
    assert not torch.equal(whole, other)


def test_a_collate_function_may_be_random():
    def noisy(items):
        return torch.tensor(items) + torch.rand(len(items))

    runs = [batches(adopt(DataLoader(Numbers(), batch_size=5, collate_fn=noisy), seed=1)) for _ in range(2)]

    assert runs[0] == runs[1]


def test_a_list_of_batches_is_taken_as_it_is():
    feed, sentences = heard([torch.ones(3), torch.zeros(2)])
    first = next(feed.epoch(0))

    rest = list(feed.epoch(0, first.position))

    assert [delivery.samples for delivery in (first, *rest)] == [3, 2]
    assert (feed.batches, feed.exact, feed.epoch_total, sentences) == (2, True, 2, [])


def test_reading_forward_is_said():
    def numbers():
        yield from torch.arange(6).reshape(3, 2)

    feed, sentences = heard(numbers)
    first = next(feed.epoch(0))

    rest = batches_of(feed.epoch(0, first.position))

    assert rest == [[2, 3], [4, 5]]
    assert (feed.batches, feed.epoch_total) == (None, 0)
    assert "1 batches were read again" in sentences[0]


def test_an_iterator_is_read_once_and_then_refused():
    feed = adopt(iter([torch.ones(1)]), seed=1)
    list(feed.epoch(0))

    with pytest.raises(DataError, match="can be read only once"):
        list(feed.epoch(1))


def test_a_limit_takes_no_batch_too_many_from_an_iterable():
    taken = []

    def numbers():
        for number in range(9):
            taken.append(number)
            yield torch.tensor([number])

    feed = adopt(numbers, seed=1, limit=2)

    assert batches(feed) == [[0], [1]]
    assert taken == [0, 1]


def test_an_iterable_that_fails_says_what_failed():
    def broken():
        yield torch.ones(1)
        raise OSError("gone")

    with pytest.raises(DataError, match="OSError: gone"):
        list(adopt(broken, seed=1).epoch(0))


def test_what_is_no_data_is_refused():
    with pytest.raises(ConfigError, match="is a int"):
        adopt(3, seed=1)


def test_a_feed_is_adopted_as_it_is():
    feed = adopt(Numbers(), seed=1)

    assert adopt(feed, seed=2) is feed


def test_a_state_that_no_checkpoint_can_hold_is_refused():
    class Odd:
        def __iter__(self):
            yield torch.ones(1)

        def state_dict(self):
            return {"at": object()}

        def load_state_dict(self, state): ...

    with pytest.raises(DataError, match="holds a object"):
        list(adopt(Odd(), seed=1).epoch(0))


def test_a_sequential_sampler_over_part_of_the_data_is_followed():
    feed = adopt(DataLoader(Numbers(), batch_size=2, sampler=SequentialSampler(range(4))), seed=1)

    assert batches(feed) == [[0, 1], [2, 3]]

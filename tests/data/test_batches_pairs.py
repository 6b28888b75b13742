"""Pairs as padded tensors, and the feed of them."""

from itertools import chain
from typing import ClassVar

import numpy as np
import pytest
import torch

from etude.base.errors import DataError
from etude.data.feeds.batches import pair_batch
from etude.data.feeds.batching import Batching
from etude.data.feeds.pairs import pair_feed
from etude.data.tokens.tokenizers import BOS, EOS, PAD


class Table:
    """Five pairs in memory, the third with an empty side."""

    rows: ClassVar = {
        "source": [[10], [11, 12, 13], [], [14, 15], [16]],
        "target": [[20, 21], [22], [23, 24, 25], [26], [27]],
    }

    def __len__(self):
        return 5

    def lengths(self, side):
        return np.array([len(row) for row in self.rows[side]])

    def gather(self, side, indices):
        rows = [self.rows[side][index] for index in indices]
        return np.array([token for row in rows for token in row], dtype=np.int64), np.array(
            [*map(len, rows)], dtype=int
        )

    def total(self, side):
        return int(self.lengths(side).sum())

    def origin(self, row):
        return row


def test_a_source_ends_with_eos_and_a_target_stands_between_bos_and_eos():
    batch = pair_batch(Table(), np.array([1, 0, 2]))

    assert batch.source.tolist() == [[11, 12, 13, EOS], [10, EOS, PAD, PAD], [EOS, PAD, PAD, PAD]]
    assert batch.source_lengths.tolist() == [4, 2, 1]
    assert batch.target.tolist() == [[BOS, 22, EOS, PAD, PAD], [BOS, 20, 21, EOS, PAD], [BOS, 23, 24, 25, EOS]]
    assert batch.target_lengths.tolist() == [3, 4, 5]
    assert batch.tokens == 2 + 3 + 4
    assert batch.indices.tolist() == [1, 0, 2]
    assert {part.dtype for part in (batch.source, batch.target, batch.source_lengths, batch.indices)} == {torch.int64}


def test_a_batch_is_its_members_padded():
    together = pair_batch(Table(), np.arange(5))

    for index in range(5):
        alone = pair_batch(Table(), np.array([index]))
        assert alone.source[0].tolist() == together.source[index, : together.source_lengths[index]].tolist()
        assert alone.target[0].tolist() == together.target[index, : together.target_lengths[index]].tolist()


def test_a_share_without_samples_is_an_empty_batch():
    batch = pair_batch(Table(), np.array([], dtype=np.int64))

    assert (len(batch), batch.tokens, batch.source.shape[0], batch.target.shape[0]) == (0, 0, 0, 0)


def test_a_batch_moves_whole():
    batch = pair_batch(Table(), np.arange(3)).to("meta")

    assert {batch.source.device.type, batch.target_lengths.device.type, batch.indices.device.type} == {"meta"}


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"batch_tokens": 12}])
def test_evaluation_takes_every_pair_once_and_the_same_way_each_time(options):
    feed = pair_feed(Table(), Batching(seed=1, evaluation=True, **options))

    epochs = [[d.batch.indices.tolist() for d in feed.epoch(epoch)] for epoch in range(2)]

    assert epochs[0] == epochs[1]
    assert sorted(chain(*epochs[0])) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("limit", "samples"), [(1, 2), (2, 4), (0.5, 2), (1.0, 5), (9, 5)])
def test_a_limit_keeps_the_first_batches_of_each_epochs_order(limit, samples):
    whole, part = (pair_feed(Table(), Batching(seed=1, batch_size=2, limit=limit)) for limit in (None, limit))

    for epoch in range(3):
        order = [index for d in whole.epoch(epoch) for index in d.batch.indices.tolist()]
        kept = [index for d in part.epoch(epoch) for index in d.batch.indices.tolist()]
        assert kept == order[:samples]
    assert part.exact


def test_one_fixed_set_is_a_limit_without_shuffling():
    feed = pair_feed(Table(), Batching(seed=1, batch_tokens=12, shuffle=False, limit=2))

    epochs = [[d.batch.indices.tolist() for d in feed.epoch(epoch)] for epoch in range(3)]

    assert epochs[0] == epochs[1] == epochs[2]
    assert (feed.epoch_total, feed.batches, len(epochs[0])) == (2, 2, 2)


def test_an_epoch_whose_batches_cannot_be_counted_is_counted_in_samples():
    feed = pair_feed(Table(), Batching(seed=1, batch_tokens=12), window=2)

    assert (feed.exact, feed.epoch_total) == (False, 5)
    assert [d.done for d in feed.epoch(0)][-1] == 5


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"batch_tokens": 12}, {"batch_size": 2, "limit": 2}])
def test_targets_are_counted_without_making_batches_as_the_feed_is_set_now(options):
    feed = pair_feed(Table(), Batching(seed=1, **options))
    counted = feed.counted()

    assert [delivery.batch for delivery in counted.epoch(0)] == [d.batch.tokens for d in feed.epoch(0)]

    feed.resize(20)
    assert [delivery.batch for delivery in counted.epoch(1)] == [d.batch.tokens for d in feed.epoch(1)]
    assert counted.batches == feed.batches


def test_a_size_that_varies_is_counted_in_samples():
    feed = pair_feed(Table(), Batching(seed=1, batch_size=1, varying=True))

    feed.resize(2)

    assert feed.epoch_total == 5
    assert [d.done for d in feed.epoch(1)] == [2, 4, 5]


def test_a_pair_that_no_batch_can_hold_is_named_before_training_begins():
    with pytest.raises(DataError, match=r"^Sample 2 .* has 5 tokens .* at most 4 tokens"):
        pair_feed(Table(), Batching(seed=1, batch_tokens=4))

"""Batches of text: every target once, rows that know their documents, and the laws that every feed keeps."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from text_corpora import BYTES, table_of

from etude.base.errors import ConfigError
from etude.data.feeds.batching import Batching
from etude.data.feeds.text_batches import IGNORED, TextBatch
from etude.data.feeds.text_feed import TextFeed, Weighed
from etude.data.order import text_rows
from etude.data.order.packing import packed
from etude.data.tokens.config import BpeConfig
from etude.data.tokens.tokenizers import EOS, PAD
from etude.data.tokens.training import train_tokenizer

TEXTS = [f"{n}: " + "word é " * ((n * 37) % 23) + "end" for n in range(60)]
OTHERS = [f"OTHER {n} " * 9 for n in range(12)]
CAPITALS = set(BYTES.encode("OTHER"))
BPE = train_tokenizer(BpeConfig(vocab_size=280), TEXTS)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return table_of(tmp_path_factory.mktemp("one"), TEXTS)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return table_of(tmp_path_factory.mktemp("two"), OTHERS)


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(text_rows, "WINDOW_SEGMENTS", 40)


def text_feed(tables, **options):
    layout = {key: options.pop(key) for key in ("block_size", "packing", "order", "varying_block") if key in options}
    return TextFeed(tables, Batching(**options), **layout)


def stream_of(table):
    return table.read(0, table.targets + 1).tolist()


def batches(feed, epoch=0):
    return [delivery.batch for delivery in feed.epoch(epoch)]


def rows_of(feed, epoch=0):
    return [
        (inputs.tolist(), targets.tolist())
        for batch in batches(feed, epoch)
        for inputs, targets in zip(batch.inputs, batch.targets, strict=True)
    ]


def pairs_of(feed, epoch=0):
    """Every input with its target, sorted."""
    return sorted(
        pair
        for inputs, targets in rows_of(feed, epoch)
        for pair in zip(inputs, targets, strict=True)
        if pair[1] != IGNORED
    )


STREAMS = {
    "shuffled": {},
    "in order": {"shuffle": False},
    "evaluation": {"evaluation": True},
    "contiguous": {"order": "contiguous"},
    "documents": {"packing": "documents"},
    "documents, evaluation": {"packing": "documents", "evaluation": True},
    "by tokens": {"batch_size": None, "batch_tokens": 70},
}


@pytest.mark.parametrize("options", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("block", [1, 16, 50, 100_000])
def test_every_target_follows_its_input_and_is_predicted_once_an_epoch(table, options, block):
    feed = text_feed(table, seed=1, block_size=block, **{"batch_size": 4, **options})

    stream = stream_of(table)
    assert pairs_of(feed, 0) == pairs_of(feed, 3) == sorted(pairwise(stream))


@pytest.mark.parametrize("options", STREAMS.values(), ids=STREAMS)
def test_tokens_and_bytes_of_an_epoch_are_those_of_the_corpus(tmp_path, options):
    table = table_of(tmp_path, TEXTS, BPE)
    feed = text_feed(table, seed=1, block_size=16, **{"batch_size": 4, **options})

    made = batches(feed)

    assert sum(batch.tokens for batch in made) == table.targets == feed.targets
    assert sum(batch.tokens for batch in made) == sum(int((batch.targets != IGNORED).sum()) for batch in made)
    assert sum(batch.bytes for batch in made) == len("".join(TEXTS).encode())


def test_evaluation_takes_fixed_blocks_in_order(table):
    feed = TextFeed(table, Batching(seed=1, batch_size=4, evaluation=True), block_size=20)

    rows = rows_of(feed, 0)

    stream = stream_of(table)
    assert [token for inputs, _ in rows for token in inputs][: table.targets] == stream[:-1]
    assert (
        rows
        == rows_of(feed, 7)
        == rows_of(TextFeed(table, Batching(seed=2, batch_size=8, evaluation=True), block_size=20))
    )


def test_every_epoch_has_another_order_and_other_borders(table):
    feed = TextFeed(table, Batching(seed=1, batch_size=4), block_size=16)

    begins = [{tuple(inputs) for inputs, _ in rows_of(feed, epoch)} for epoch in range(3)]

    assert len(begins[0] & begins[1]) < len(begins[0]) / 4
    assert rows_of(feed, 0) == rows_of(TextFeed(table, Batching(seed=1, batch_size=4), block_size=16), 0)
    assert rows_of(feed, 0) != rows_of(TextFeed(table, Batching(seed=2, batch_size=4), block_size=16), 0)


def test_rows_of_contiguous_batches_go_on_where_the_ones_before_ended(table):
    feed = TextFeed(table, Batching(seed=1, batch_size=5), block_size=16, order="contiguous")

    made = batches(feed)

    assert {len(batch) for batch in made} == {5}
    rows = torch.cat([batch.inputs for batch in made], dim=1)
    targets = torch.cat([batch.targets for batch in made], dim=1)
    joined = [row[wanted != IGNORED].tolist() for row, wanted in zip(rows, targets, strict=True)]
    assert [token for row in joined for token in row] == stream_of(table)[:-1]
    assert max(map(len, joined)) - min(map(len, joined)) <= 1
    assert [batch.inputs.shape[1] for batch in made[:-1]] == [16] * (len(made) - 1)


@pytest.mark.parametrize("block", [16, 50, 1000])
def test_packed_documents_are_whole_and_know_their_places(table, block):
    feed = TextFeed(table, Batching(seed=1, batch_size=4), block_size=block, packing="documents")

    found = []
    for batch in batches(feed):
        for row in range(len(batch)):
            for number in set(batch.documents[row].tolist()) - {-1}:
                inside = batch.documents[row] == number
                found.append((batch.inputs[row][inside].tolist(), batch.targets[row][inside].tolist()))
                assert batch.positions[row][inside].tolist() == list(range(int(inside.sum())))
            outside = batch.documents[row] == -1
            assert set(batch.inputs[row][outside].tolist()) <= {PAD}
            assert set(batch.targets[row][outside].tolist()) <= {IGNORED}
        assert batch.inputs.shape[1] == block
        assert batch.documents.dtype == torch.int32

    expected = []
    for text in TEXTS:
        ids = [EOS, *BYTES.encode(text), EOS]
        expected += [
            (ids[at : min(at + block, len(ids) - 1)], ids[at + 1 : at + block + 1])
            for at in range(0, len(ids) - 1, block)
        ]
    assert sorted(found) == sorted(expected)


def test_packing_leaves_little_empty():
    lengths = np.random.default_rng(1).lognormal(5, 1, 5000).astype(np.int64).clip(1, 1024)

    rows = packed(lengths, 1024)

    used = [int(lengths[row].sum()) for row in rows]
    assert sorted(np.concatenate(rows).tolist()) == list(range(5000))
    assert max(used) <= 1024
    assert 1 - sum(used) / (1024 * len(rows)) < 0.01
    mixed = np.random.default_rng(2).permutation(lengths)
    assert len(packed(mixed, 1024)) == len(rows)


def test_a_batch_of_tokens_has_as_many_rows_as_they_fill(table):
    feed = TextFeed(table, Batching(seed=1, batch_tokens=110), block_size=20)

    assert [len(batch) for batch in batches(feed)][:-1] == [5] * (feed.batches - 1)


def test_a_longer_block_is_taken_up_by_the_next_epoch_and_a_continued_one_keeps_its_own(table):
    feed = TextFeed(table, Batching(seed=1, batch_size=4), block_size=16, varying_block=True)
    whole = [plain(delivery) for delivery in feed.epoch(1)]

    feed.resize_block(32)

    assert batches(feed)[0].inputs.shape == (4, 32)
    assert feed.batches == -(-table.targets // 128)
    assert [plain(delivery) for delivery in feed.epoch(1, whole[1][1])] == whole[2:]
    assert not feed.exact


@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_a_mixture_draws_rows_in_proportion_to_the_weights(table, other, packing):
    feed = TextFeed(
        [Weighed(table, 1.0), Weighed(other, 3.0)], Batching(seed=1, batch_size=8), block_size=16, packing=packing
    )

    deliveries = list(feed.epoch(0))

    drawn = [not CAPITALS.isdisjoint(row) for d in deliveries for row in d.batch.targets.tolist()]
    assert sum(delivery.samples for delivery in deliveries) == feed.samples == len(drawn)
    assert abs(sum(drawn) - 0.75 * len(drawn)) <= 0.03 * len(drawn)
    assert feed.targets == pytest.approx(sum(delivery.batch.tokens for delivery in deliveries), rel=0.05)


def test_a_weight_of_nothing_draws_nothing_and_a_new_one_counts_from_the_next_epoch(table, other):
    feed = TextFeed([Weighed(table, 1.0), Weighed(other, 0.0)], Batching(seed=1, batch_size=8), block_size=16)

    def share():
        rows = [inputs for inputs, _ in rows_of(feed)]
        return sum(not CAPITALS.isdisjoint(row) for row in rows) / len(rows)

    before, position = share(), list(feed.epoch(0))[2].position
    rest = [plain(delivery) for delivery in feed.epoch(0, position)]
    feed.reweigh(1, 3.0)

    assert before == 0
    assert share() > 0.5
    assert [plain(delivery) for delivery in feed.epoch(0, position)] == rest


def test_bytes_of_a_mixture_are_counted_by_the_tokenizer_s_factor_of_each(table, other):
    feed = TextFeed([Weighed(table, 1.0), Weighed(other, 1.0)], Batching(seed=1, batch_size=8), block_size=16)

    for batch in batches(feed):
        wanted = batch.targets[batch.targets != IGNORED].numpy()
        assert batch.bytes == int((wanted >= 4).sum())


@pytest.mark.parametrize("options", [{"packing": "documents"}, {"mixture": True}])
def test_a_contiguous_order_follows_one_stream(table, other, options):
    tables = [Weighed(table, 1.0), Weighed(other, 1.0)] if options.pop("mixture", False) else table

    with pytest.raises(ConfigError, match=r'data\.order = "contiguous" follows one stream'):
        text_feed(tables, seed=1, batch_size=4, block_size=16, order="contiguous", **options)


def test_a_batch_goes_where_it_is_sent_with_all_it_holds(table):
    batch = batches(TextFeed(table, Batching(seed=1, batch_size=4), block_size=16, packing="documents"))[0]

    moved = batch.to("meta")

    tensors = [moved.inputs, moved.targets, moved.documents, moved.positions]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.tokens, moved.bytes, len(moved)) == (batch.tokens, batch.bytes, 4)
    assert batch.padding == 1 - batch.tokens / 64


@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_evaluation_of_a_mixture_takes_everything_once(table, other, small_windows, packing):
    options = {"seed": 1, "block_size": 16, "batch_size": 8, "packing": packing, "evaluation": True}
    feed = text_feed([Weighed(table, 5.0), Weighed(other, 1.0)], **options)

    alone = [pairs_of(text_feed(one, **options)) for one in (table, other)]

    assert pairs_of(feed) == sorted(alone[0] + alone[1])
    assert feed.targets == table.targets + other.targets


def test_batches_of_documents_in_windows_are_projected(table, small_windows):
    feed = TextFeed(table, Batching(seed=1, batch_size=1), block_size=64, packing="documents")

    assert not feed.exact
    assert feed.batches == pytest.approx(len(batches(feed, 1)), rel=0.1)
    assert feed.samples == sum(-(-(len(text.encode()) + 1) // 64) for text in TEXTS)


FEEDS = {
    "stream": {},
    "stream, two workers": {"workers": 2},
    "stream by tokens": {"batch_size": None, "batch_tokens": 64},
    "stream, second of two ranks": {"rank": 1, "world": 2},
    "limited": {"limit": 5},
    "evaluation": {"evaluation": True},
    "contiguous": {"order": "contiguous"},
    "contiguous, second of two ranks": {"order": "contiguous", "rank": 1, "world": 2},
    "documents": {"packing": "documents"},
    "documents, two workers": {"packing": "documents", "workers": 2},
    "documents, limited": {"packing": "documents", "limit": 0.5},
    "documents, evaluation": {"packing": "documents", "evaluation": True},
    "mixture, evaluation": {"mixture": (1.0, 3.0), "evaluation": True},
    "mixture of documents, evaluation": {"mixture": (1.0, 3.0), "packing": "documents", "evaluation": True},
    "mixture": {"mixture": (1.0, 3.0)},
    "mixture, two workers": {"mixture": (1.0, 3.0), "workers": 2},
    "mixture of documents": {"mixture": (3.0, 1.0), "packing": "documents"},
    "mixture, second of two ranks": {"mixture": (1.0, 3.0), "rank": 1, "world": 2},
}


def plain(delivery):
    batch = delivery.batch
    tensors = [batch.inputs, batch.targets, batch.documents, batch.positions]
    parts = [None if tensor is None else tensor.tolist() for tensor in tensors]
    return (parts, batch.tokens, batch.bytes), dict(delivery.position), delivery.samples, delivery.done, delivery.last


@pytest.fixture(params=FEEDS)
def make(request, table, other, small_windows):
    made = []

    def new():
        options = {"seed": 3, "block_size": 24, "batch_size": 4, **FEEDS[request.param]}
        weights = options.pop("mixture", None)
        tables = table if weights is None else [Weighed(table, weights[0]), Weighed(other, weights[1])]
        made.append(text_feed(tables, **options))
        return made[-1]

    yield new
    for feed in made:
        feed.close()


def test_an_epoch_goes_on_after_any_of_its_batches_with_exactly_the_rest(make):
    feed = make()
    whole = [plain(delivery) for delivery in feed.epoch(1)]
    positions = [json.loads(json.dumps(position)) for _, position, _, _, _ in whole]

    cuts = {0, 1, 2, 3, len(whole) // 2, len(whole) - 2}

    rests = {cut: [plain(delivery) for delivery in feed.epoch(1, positions[cut])] for cut in cuts}

    assert rests == {cut: whole[cut + 1 :] for cut in cuts}


def test_a_fresh_feed_gives_the_same_epoch_and_goes_on_in_it(make):
    whole = [plain(delivery) for delivery in make().epoch(0)]

    rest = [plain(delivery) for delivery in make().epoch(0, whole[2][1])]

    assert rest == whole[3:]


def test_only_the_last_batch_of_an_epoch_says_so_and_what_is_done_adds_up(make):
    feed = make()
    deliveries = list(feed.epoch(0))

    assert [delivery.last for delivery in deliveries] == [False] * (len(deliveries) - 1) + [True]
    assert deliveries[-1].done == feed.epoch_total
    assert [d.done for d in deliveries] == sorted({d.done for d in deliveries})
    assert not feed.exact or feed.batches == len(deliveries)


def test_targets_are_counted_without_being_read(make):
    feed = make()

    counted = [(delivery.batch, delivery.position, delivery.samples) for delivery in feed.counted().epoch(1)]

    assert counted == [(delivery.batch.tokens, delivery.position, delivery.samples) for delivery in feed.epoch(1)]


@pytest.mark.parametrize("options", [{}, {"packing": "documents"}, {"order": "contiguous"}])
def test_ranks_share_each_batch(table, options):
    options = {"seed": 3, "block_size": 24, "batch_size": 5, **options}

    alone, *shares = (
        batches(text_feed(table, **options, **part)) for part in ({}, *({"rank": r, "world": 2} for r in (0, 1)))
    )

    for whole, first, second in zip(alone, *shares, strict=True):
        assert torch.equal(whole.inputs[::2], first.inputs)
        assert torch.equal(whole.inputs[1::2], second.inputs)
        assert whole.tokens == first.tokens + second.tokens


@pytest.mark.parametrize("here", ["stream", "documents", "mixture"])
def test_workers_change_nothing(here, table, other):
    def epochs(workers):
        options = {"seed": 3, "block_size": 24, "batch_size": 4, **FEEDS[here], "workers": workers}
        weights = options.pop("mixture", (1.0, 0.0))
        feed = text_feed(
            [Weighed(table, weights[0]), Weighed(other, weights[1])][: 2 if "mix" in here else 1], **options
        )
        made = [plain(delivery) for epoch in range(2) for delivery in feed.epoch(epoch)]
        feed.close()
        return made

    assert epochs(0) == epochs(2)


def test_a_rank_without_a_row_of_a_batch_borrows_one(table):
    options = {"seed": 3, "batch_size": 1, "world": 2}
    size = table.targets - 1
    own, borrowed = (
        list(TextFeed(table, Batching(rank=rank, **options), block_size=size).epoch(0))[-1] for rank in (0, 1)
    )

    assert isinstance(borrowed.batch, TextBatch)
    assert (own.borrowed, borrowed.borrowed) == (False, True)
    assert borrowed.samples == own.samples

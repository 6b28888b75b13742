"""How long it takes from a checkpoint far into a corpus of computed samples to its next batch.

    python benchmarks/next_batch.py [samples ...]

A fresh feed is made and asked for the batch after the position that step 1,000,000 would have saved.
"""

import statistics
import sys
import time

from etude.data.feeds.batching import Batching
from etude.data.feeds.pairs import pair_feed
from etude.data.store.computed import ComputedTable

STEP = 1_000_000


def next_batch_seconds(samples, *, step=STEP, repeats=9, **batches):
    """Median seconds to the next batch, one batch a step; `batches` is batch_size=... or batch_tokens=..."""
    times = []
    for _ in range(repeats):
        table = ComputedTable(samples)
        epoch, position = _saved(pair_feed(table, Batching(seed=1, **batches)), samples, step)
        begin = time.perf_counter()
        feed = pair_feed(table, Batching(seed=1, **batches))
        next(feed.epoch(epoch, position))
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _saved(feed, samples, step):
    """Epoch and position after `step` batches, reached by arithmetic: a position of the same kind, moved there."""
    epoch, batch = divmod(step, feed.batches)
    position = dict(next(feed.epoch(epoch)).position)
    size = position["size"]
    if "window" in position:
        windows = -(-samples // (1 << 16))
        window = batch * windows // feed.batches
        return epoch, position | {"batch": batch, "window": window, "sample": window * samples // windows, "cut": 3}
    return epoch, position | {"batch": batch, "sample": batch * size}


if __name__ == "__main__":
    for count in map(int, sys.argv[1:] or ["100000000", "1000000000"]):
        by_count = next_batch_seconds(count, batch_size=64)
        by_tokens = next_batch_seconds(count, batch_tokens=4096)
        print(f"{count:>13,} samples: by count {by_count * 1e3:6.2f} ms, by tokens {by_tokens * 1e3:6.2f} ms")

"""The feed of arrays with labels or numbers: batches as of recordings, without sound."""

from functools import partial

import numpy as np
import torch

from etude.data.feeds.batching import Batching
from etude.data.feeds.recorded import SoundBatch, framed
from etude.data.feeds.table_feed import Size, TableFeed, TableRows
from etude.data.store.arrays import ARRAY
from etude.data.store.columns import Ints
from etude.data.store.table import Table
from etude.data.store.targets import GROUP, Targets


def array_batch(targets: Targets, table: Table, indices: Ints) -> SoundBatch:
    """Gather samples of `table` ([B] indices, in this order) into one batch; B may be 0."""
    values, lengths = table.gather(ARRAY, indices)
    features = torch.from_numpy(values.astype(np.float32).reshape(len(values), table.columns[ARRAY].width))
    frames = framed(features, lengths.tolist(), indices)
    labels = torch.from_numpy(np.ascontiguousarray(targets.of_rows(table, indices)))
    groups = tuple(table.texts(GROUP, indices)) if GROUP in table.columns else ()
    return SoundBatch(frames.features, frames.lengths, frames.indices, labels, groups)


def array_feed(table: Table, targets: Targets, batching: Batching) -> TableFeed:
    """Make a feed of the arrays of `table`; a budget counts their places, a loss counts one a sample."""
    rows = TableRows(table, partial(array_batch, targets), (Size(ARRAY), Size(None)), Size(None, 1))
    return TableFeed(rows, batching)

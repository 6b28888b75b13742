"""Features of recordings as they are, prepared once: what batches are made of where nothing changes their waves.

A row holds the normalised features of its recording, before masks, deltas and stacking, [frames, features] float32.
They are those that a batch would compute, to the bit, for the features of a recording do not depend on what is beside
it.
"""

import hashlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Final

import numpy as np

from etude.base.hashes import content_of
from etude.base.says import Say, unheard
from etude.data.audio.front_end import FrontEnd, as_json
from etude.data.files.manifests import Manifest
from etude.data.files.skipped import Policy
from etude.data.store.columns import Part, frames
from etude.data.store.progress import Report, unreported
from etude.data.store.recordings import SPEAKER, Waves, files_of
from etude.data.store.table import Chunk, Table, Wanted, prepare_table

FORMAT = 1
FEATURES: Final = "features"
CHUNK = 64


def prepare_features(
    waves: Waves,
    manifest: Manifest,
    front_end: FrontEnd,
    cache: Path,
    *,
    report: Report = unreported,
    notice: Say = unheard,
) -> Table:
    """Compute the features of all rows of `waves` into the folder `cache`, or open what an earlier call has made.

    They are made anew where the content of a file, an option of the features or the statistics that they are normalised
    by has changed. Raises DataError where a file cannot be read any more, StorageError where the cache cannot be
    written.
    """
    parts = [
        FORMAT,
        waves.table.fingerprint,
        content_of(files_of(manifest), cache / "audio", deep=True),
        front_end.config.model_dump(mode="json"),
        front_end.rate,
        as_json(front_end.statistics),
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    wanted = Wanted(key, [frames(FEATURES, front_end.config.width)], manifest, Policy())

    def chunks() -> Generator[Chunk, None, None]:
        for first in range(0, len(waves.table), CHUNK):
            yield Chunk([_computed(waves, front_end, first)])

    return prepare_table(FEATURES, wanted, cache, chunks, report=report, notice=notice)


def _computed(waves: Waves, front_end: FrontEnd, first: int) -> Part:
    """The features of some rows."""
    rows = np.arange(first, min(first + CHUNK, len(waves.table)))
    values, lengths = front_end.features(waves.tensors(rows), waves.table.texts(SPEAKER, rows))
    return Part(values.numpy(), np.array(lengths, dtype=np.int32))

"""What recordings are called in alignments: by where they lie, so that an alignment is found again on any machine."""

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np

from etude.data.files.manifests import Manifest
from etude.data.store.recordings import END, PATH, START
from etude.data.store.table import Table


def sequence_ids(table: Table, manifest: Manifest) -> list[str]:
    """Give the id of each row: the recording's path from the folder of its manifest, and where it begins and ends.

    `train/7.flac` is a whole file, `train/7.flac 0.5-2.25` a part of it, in seconds, `train/7.flac 0.5-` one up to its
    end. What comes again is numbered: `train/7.flac #2`. The order of a manifest does not matter otherwise, nor where
    its folder lies.
    """
    rows = np.arange(len(table))
    places = zip(
        table.texts(PATH, rows), table.values(START, rows).tolist(), table.values(END, rows).tolist(), strict=True
    )
    seen: Counter[str] = Counter()
    found = []
    for row, (path, start, end) in enumerate(places):
        name = _name(path, Path(manifest.place(table.origin(row))[0]).parent, start, end)
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found


def _name(path: str, folder: Path, start: float, end: float) -> str:
    relative = Path(os.path.relpath(path, folder)).as_posix()
    if math.isnan(end):
        return f"{relative} {start!r}-" if start else relative
    return f"{relative} {start!r}-{end!r}"

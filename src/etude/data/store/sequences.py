"""What recordings are called in alignments: by where they lie, so that an alignment is found again on any machine."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from etude.data.files.manifests import Manifest, Recording
from etude.data.store.table import Table


def sequence_ids(table: Table, manifest: Manifest) -> list[str]:
    """Give the id of each row: the recording's path from the folder of its manifest, and where it begins and ends.

    `train/7.flac` is a whole file, `train/7.flac 0.5-2.25` a part of it, in seconds, `train/7.flac 0.5-` one up to its
    end. What comes again is numbered in the manifest's order: `train/7.flac #2`. Otherwise neither the order matters
    nor where the folder lies.
    """
    used = {table.origin(row) for row in range(len(table))}
    seen: Counter[str] = Counter()
    found = []
    for number, name in _names(manifest):
        seen[name] += 1
        if number in used:
            found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found


def _names(manifest: Manifest) -> Iterator[tuple[int, str]]:
    """Numbers and names of the recordings of a manifest that can be read."""
    for number, row in enumerate(manifest.rows(0, len(manifest))):
        match row:
            case Recording():
                yield number, _name(row, Path(manifest.place(number)[0]).parent)


def _name(recording: Recording, folder: Path) -> str:
    relative = Path(os.path.relpath(recording.path, folder)).as_posix()
    if recording.end is not None:
        return f"{relative} {recording.start!r}-{recording.end!r}"
    return f"{relative} {recording.start!r}-" if recording.start else relative

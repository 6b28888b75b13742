"""The list of what was left out of a prepared folder, and why."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from etude.data.store.folders import FolderWriter

SKIPS = "skips.jsonl"


class Skip(NamedTuple):
    """A sample or document that was left out."""

    sample: int
    """Its number; of a document, that among those that were left out."""
    side: str
    reason: str
    file: str = ""
    """Where it stands, unless its source knows by its number."""
    line: int = 0


class SkipWriter:
    """A list that is being written."""

    def __init__(self, folder: FolderWriter) -> None:
        self._file = folder.open(SKIPS)
        self.count = 0

    def add(self, skip: Skip) -> None:
        """Write one down."""
        self._file.write(json.dumps(skip._asdict(), ensure_ascii=False).encode() + b"\n")
        self.count += 1


def skips_of(folder: Path) -> Iterator[Skip]:
    """Read a list."""
    with (folder / SKIPS).open(encoding="utf-8") as file:
        for line in file:
            yield Skip(**json.loads(line))

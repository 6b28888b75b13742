"""What recordings are: labels or numbers that stand beside them in a manifest."""

import json
from collections.abc import Sequence
from typing import Any, final

from etude.data.files.lines import Flaw
from etude.data.files.manifests import Recording
from etude.data.files.records import Cell, cell_of
from etude.data.store.columns import Part, text
from etude.data.store.recordings import GROUP
from etude.data.store.targets import Targets


def cells_of(recording: Recording, count: int) -> list[Cell]:
    """Give the first cells of the further columns of a recording; None where one is empty."""
    return [cell_of(cell) for cell in recording.further[:count]]


@final
class SoundTargets:
    """Encodes the cells of further columns: those of `kinds` and, with `grouped`, what metrics are by behind them."""

    def __init__(self, kinds: Targets, *, grouped: bool = False) -> None:
        self._kinds, self._grouped = kinds, grouped
        self.columns = (kinds.stored, *([text(GROUP)] if grouped else []))

    def fingerprint(self) -> str:
        """Give all that decides it."""
        return json.dumps([self._kinds.plain(), self._grouped])

    def encode(self, recordings: Sequence[Recording]) -> tuple[Sequence[Part], list[tuple[int, Flaw]]]:
        """Give, by column, the rows of those that are good, and which are not."""
        count = len(self._kinds.columns)
        flaws: list[tuple[int, Flaw]] = []
        rows: list[Any] = []
        groups: list[str] = []
        for place, recording in enumerate(recordings):
            match self._kinds.encode(cells_of(recording, count)):
                case Flaw() as flaw:
                    flaws.append((place, flaw._replace(side="target")))
                case row:
                    rows.append(row)
                    groups.append(recording.further[-1])
        parts = [self._kinds.part(rows)]
        return [*parts, Part.of_texts(groups)] if self._grouped else parts, flaws

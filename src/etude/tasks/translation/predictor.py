"""Translates lines: what `etude predict` and `Run.translate` ask of a translation."""

from collections.abc import Sequence
from typing import cast, final

from etude.tasks.best_lines import BestLines
from etude.tasks.translation.task import Translation, TranslationTask


@final
class Translations(BestLines):
    """Each line's best translation, or several."""

    def __init__(self, task: TranslationTask) -> None:
        super().__init__(task, widen=task.widen)

    def tested(self, outputs: object) -> Sequence[str] | None:
        """The best translation of each sample."""
        match outputs:
            case [[Translation(), *_], *_]:
                return [best[0].text for best in cast("Sequence[Sequence[Translation]]", outputs)]
        return None

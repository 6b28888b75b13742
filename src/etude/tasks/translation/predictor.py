"""Translates lines: what `etude predict` and `Run.translate` ask of a translation."""

from collections.abc import Sequence
from typing import cast, final

from etude.tasks.attention import Attention
from etude.tasks.best_lines import BestLines, Candidate
from etude.tasks.task_type import Asked
from etude.tasks.translation.task import UNTRANSLATED, Translation, TranslationTask


@final
class Translations(BestLines):
    """Each line's best translation, or several."""

    def __init__(self, task: TranslationTask) -> None:
        super().__init__(task, widen=task.widen, seen=self._look)
        self._task = task

    def attention(self, text: str) -> Attention:
        """What the best translation of a text looks at in it."""
        return self._task.attention(text)

    def _look(self, line: str, found: Sequence[Candidate], asked: Asked) -> None:
        """Hand over the attention of a line that has a translation, if it is wanted."""
        match found:
            case [Translation() as best, *_] if best is not UNTRANSLATED and asked.attention.is_wanted:
                asked.attention.take(self._task.attention(line, best))

    def tested(self, outputs: object) -> Sequence[str] | None:
        """The best translation of each sample."""
        match outputs:
            case [[Translation(), *_], *_]:
                return [best[0].text for best in cast("Sequence[Sequence[Translation]]", outputs)]
        return None

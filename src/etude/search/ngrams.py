"""N-gram models over the labels of a search: of the labels themselves, or of the words that they spell.

A label has a text: its character, or its piece of a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

from etude.search.arpa import Context, Ngram
from etude.search.fusion import LabelModel


@final
@dataclass(frozen=True, slots=True)
class LabelNgram(LabelModel[Context]):
    """An n-gram model whose words are labels; one without a text counts as unknown."""

    ngram: Ngram
    texts: Mapping[int, str]
    """What the model calls each label."""

    def start(self) -> Context:
        """The context where a text begins."""
        return self.ngram.start()

    def score(self, state: Context, label: int, /) -> tuple[float, Context]:
        """Of the label after those before it."""
        return self.ngram.score(state, self.texts.get(label, ""))

    def end(self, state: Context, /) -> float:
        """That the text is over."""
        return self.ngram.end(state)


class Spelled(NamedTuple):
    """The words so far, and the beginning of the next."""

    context: Context
    part: str


@final
@dataclass(frozen=True, slots=True)
class WordNgram(LabelModel[Spelled]):
    """An n-gram model of words, each scored when its `separator` or the end comes; the labels within it add nothing.

    Separators may stand at either end of a word, several are as good as one, and a label may hold one with other
    characters, as pieces of words do: then `separator` is their mark. A label without a text adds no character.
    """

    ngram: Ngram
    texts: Mapping[int, str]
    separator: str = " "

    def start(self) -> Spelled:
        """No word, and no beginning of one."""
        return Spelled(self.ngram.start(), "")

    def score(self, state: Spelled, label: int, /) -> tuple[float, Spelled]:
        """Of the words that the label ends."""
        *words, part = (state.part + self.texts.get(label, "")).split(self.separator)
        total, context = 0.0, state.context
        for word in words:
            log, context = self._word(context, word)
            total += log
        return total, Spelled(context, part)

    def end(self, state: Spelled, /) -> float:
        """Of the last word, and that the text is over."""
        log, context = self._word(state.context, state.part)
        return log + self.ngram.end(context)

    def _word(self, context: Context, word: str) -> tuple[float, Context]:
        return self.ngram.score(context, word) if word else (0.0, context)

"""Hot words: labels of expected words get a bonus as soon as a word begins, which is taken back if it breaks off.

The words stand in a trie whose nodes know where to go on when the next label does not fit (Aho and Corasick 1975), so
that a word is found wherever it begins.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, final

from etude.search.fusion import LabelModel


@final
@dataclass(slots=True, eq=False)
class _Node:
    """A beginning of hot words."""

    depth: int
    """How many labels it has."""
    next: dict[int, "_Node"] = field(default_factory=dict)
    shorter: "_Node | None" = None
    """The longest beginning of a word that it ends with, itself left out; None at the root."""
    word: int = 0
    """The length of the longest word that it ends with; 0 where there is none."""

    def after(self, label: int) -> "_Node":
        """The longest beginning that this one and a label end with."""
        node = self
        while label not in node.next:
            if node.shorter is None:
                return node
            node = node.shorter
        return node.next[label]


class Heard(NamedTuple):
    """The longest beginning of a hot word that a text ends with, and which of its last labels count for good."""

    node: _Node
    counted: int
    """Bit i is of the label i before the last: those of found words, and separators."""


@final
class HotWords(LabelModel[Heard]):
    """A bonus in nats for every label of a hot word, each label once, however words overlap.

    `words` are labels; labels of the longest beginning of a word that a text ends with have the bonus too, until it is
    clear that the word does not come. With a `separator` a word begins and ends only beside one, or where the text
    does; separators have no bonus. Raises ValueError for a word without labels and a bonus that is not finite.
    """

    def __init__(self, words: Iterable[Sequence[int]], bonus: float, separator: int | None = None) -> None:
        if not math.isfinite(bonus):
            raise ValueError(f"The bonus of hot words must be a number, but is {bonus}.")
        self._bonus, self._separator = bonus, separator
        self._border = () if separator is None else (separator,)
        self._root = _trie([(*self._border, *_labels(word), *self._border) for word in words])
        self._longest = (1 << _depth(self._root)) - 1

    def start(self) -> Heard:
        """Behind a separator, as it were."""
        heard = Heard(self._root, 0)
        for label in self._border:
            heard = self.score(heard, label)[1]
        return heard

    def score(self, state: Heard, label: int, /) -> tuple[float, Heard]:
        """The bonus of what a label begins, goes on with or ends, less that of what breaks off."""
        node = state.node.after(label)
        counted = (state.counted << 1 | (label == self._separator)) & self._longest
        new = ~counted & ((1 << node.word) - 1)
        after = Heard(node, counted | new)
        return self._bonus * (new.bit_count() + _open(after) - _open(state)), after

    def end(self, state: Heard, /) -> float:
        """What is open breaks off, but for a word that the end completes."""
        total = 0.0
        for label in self._border:
            log, state = self.score(state, label)
            total += log
        return total - self._bonus * _open(state)


def _labels(word: Sequence[int]) -> Sequence[int]:
    if not word:
        raise ValueError("A hot word must have at least one label, but one has none.")
    return word


def _open(heard: Heard) -> int:
    """The labels that have a bonus until the word breaks off."""
    return (~heard.counted & ((1 << heard.node.depth) - 1)).bit_count()


def _trie(words: Iterable[Sequence[int]]) -> _Node:
    root = _Node(0)
    for word in words:
        node = root
        for label in word:
            node = node.next.setdefault(label, _Node(node.depth + 1))
        node.word = node.depth
    waiting = deque([root])
    while waiting:  # level after level, as `shorter` is nearer to the root
        node = waiting.popleft()
        for label, longer in node.next.items():
            longer.shorter = root if node.shorter is None else node.shorter.after(label)
            longer.word = longer.word or longer.shorter.word
            waiting.append(longer)
    return root


def _depth(node: _Node) -> int:
    """The length of the longest word; levels are looked at one after another, as words may be longer than a stack."""
    level, depth = [node], 0
    while level:
        depth = level[0].depth
        level = [longer for each in level for longer in each.next.values()]
    return depth

"""The small records that the makers of phrases share."""

from typing import NamedTuple, Protocol

from etude.data.corpora.chance import Chance


class Phrase(NamedTuple):
    """A piece of a sentence in both languages, with the values in it."""

    english: str
    spanish: str
    kind: str
    values: tuple[str, ...]


class Scene(NamedTuple):
    """What a phrase may depend on."""

    chance: Chance
    split: str
    words: bool
    """Whether English writes numbers in words; Spanish always does."""


class Maker(Protocol):
    """Makes a phrase for a scene."""

    def __call__(self, scene: Scene, /) -> Phrase:
        """Draw a phrase whose values all belong to the scene's split."""

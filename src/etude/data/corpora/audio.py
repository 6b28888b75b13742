"""The generated corpora of audio by name."""

from collections.abc import Mapping
from typing import Final, Protocol

from etude.data.corpora.espeak import espeak
from etude.data.corpora.kinds import tone_kinds
from etude.data.corpora.morse import morse
from etude.data.corpora.sounds import Recordings
from etude.data.corpora.tones import tone_letters


class AudioCorpus(Protocol):
    """Makes the recordings of a split."""

    def __call__(self, split: str, seed: int = 1, size: int | None = None) -> Recordings:
        """Give `size` recordings, by default as many as the split usually has; fewer are the first of more.

        Raises ConfigError for an unknown split, or when a program is missing.
        """


TRANSCRIBED: Final[Mapping[str, AudioCorpus]] = {"tone_letters": tone_letters, "morse": morse, "espeak": espeak}
"""Corpora of recordings with what is said in them."""
CLASSED: Final[Mapping[str, AudioCorpus]] = {"tone_kinds": tone_kinds}
"""Corpora of recordings with a class."""
AUDIO: Final[Mapping[str, AudioCorpus]] = {**TRANSCRIBED, **CLASSED}

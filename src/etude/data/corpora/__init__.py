"""Corpora that Etude generates itself, for the demo, the tests and a first look: no download, the same everywhere."""

from etude.data.corpora.audio import AUDIO, CLASSED, TRANSCRIBED
from etude.data.corpora.recorded import generate_audio
from etude.data.corpora.sounds import Recordings, Sounded
from etude.data.corpora.writing import LABELLED, NAMES, TABULAR, generate

__all__ = [
    "AUDIO",
    "CLASSED",
    "LABELLED",
    "NAMES",
    "TABULAR",
    "TRANSCRIBED",
    "Recordings",
    "Sounded",
    "generate",
    "generate_audio",
]

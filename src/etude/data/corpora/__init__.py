"""Corpora that Etude generates itself, for the demo, the tests and a first look: no download, the same everywhere."""

from etude.data.corpora.writing import LABELLED, NAMES, TABULAR, generate

__all__ = ["LABELLED", "NAMES", "TABULAR", "generate"]

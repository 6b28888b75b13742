"""Alignments of labels with frames: how they are found, made from each other, and what is counted from them."""

from etude.model.alignment.ctc import ctc_alignment
from etude.model.alignment.linear import linear_alignment
from etude.model.alignment.result import NOWHERE, Alignment, Span

__all__ = ["NOWHERE", "Alignment", "Span", "ctc_alignment", "linear_alignment"]

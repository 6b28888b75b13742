"""Whether less or more of a metric is better, as far as its name tells."""

from collections.abc import Iterable
from typing import Literal

Mode = Literal["min", "max"]

_LESS = ("loss", "perplexity", "error_rate", "wer", "cer", "ter", "mse", "rmse", "mae", "bits_per_byte")
_MORE = ("bleu", "chrf", "accuracy", "f1", "uar", "auroc", "ccc", "precision", "recall", "r2", "pearson")


def mode_of(metric: str) -> Mode | None:
    """`min` or `max`, or None for a metric whose name does not tell."""
    name = metric.rpartition("/")[2].lower()
    if _speaks_of(name, _LESS):
        return "min"
    if _speaks_of(name, _MORE):
        return "max"
    return "min" if metric.startswith("val/") and "loss" in name else None


def _speaks_of(name: str, words: Iterable[str]) -> bool:
    """Whether a name begins or ends with one of the words."""
    return any(f"_{name}".endswith(f"_{word}") or f"{name}_".startswith(f"{word}_") for word in words)

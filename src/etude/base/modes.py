"""Whether less or more of a metric is better, as far as its name tells."""

from typing import Literal

Mode = Literal["min", "max"]

_LESS = ("loss", "perplexity", "error_rate", "wer", "cer", "ter", "mse", "mae", "bits_per_byte")
_MORE = ("bleu", "chrf", "accuracy", "f1", "uar", "auroc", "ccc", "precision", "recall")


def mode_of(metric: str) -> Mode | None:
    """`min` or `max`, or None for a metric whose name does not tell."""
    name = metric.rpartition("/")[2].lower()
    for mode, words in (("min", _LESS), ("max", _MORE)):
        if any(name == word or name.endswith(f"_{word}") or name.startswith(f"{word}_") for word in words):
            return mode  # type: ignore[return-value]  # the two words stand above
    return "min" if metric.startswith("val/") and "loss" in name else None

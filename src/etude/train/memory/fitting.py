"""Whether weights fit, by name and shape."""

from collections.abc import Iterator, Mapping
from itertools import filterfalse

from torch import Tensor

SHOWN = 3
"""Differences that are named."""


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """The first differences of `given` from `own`, and how many more there are; empty where there is none."""
    problems = list(_differences(own, given))
    more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def _differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[str]:
    """What of `given` does not fit: names, then shapes."""
    yield from map("{} is missing".format, filterfalse(given.__contains__, own))
    yield from map("{} has no place in the model".format, filterfalse(own.__contains__, given))
    for name in filter(given.__contains__, own):
        if given[name].shape != own[name].shape:
            yield f"{name} has shape {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"

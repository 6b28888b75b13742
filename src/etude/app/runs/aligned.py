"""Aligns what a run is of with its labels, and keeps that in the run's folder."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from etude.base.errors import ConfigError
from etude.base.near import nearest
from etude.base.paths import user_path
from etude.tasks.aligners import AlignmentAsked

ALIGNMENTS = "alignments"
"""The folder of a run that holds its alignments, each in a folder of its own."""


def asked_of(options: Mapping[str, Any]) -> AlignmentAsked:
    """How an alignment is asked for, from options by name. Raises ConfigError for one that there is not.

    >>> asked_of({"prior_scale": 0.5}).prior_scale
    0.5
    """
    known = [field.name for field in fields(AlignmentAsked)]
    for name in options:
        if name not in known:
            meant = nearest(name, known)
            advice = f"; did you mean {meant}?" if meant else f"; there are {', '.join(known)}."
            raise ConfigError(f"{name} is no option of an alignment{advice}")
    better_of = options.get("better_of")
    return AlignmentAsked(**{**options, "better_of": None if better_of is None else user_path(better_of)})

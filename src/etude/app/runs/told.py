"""Predictions as Python gets them: a text without one costs no other its own, and is warned of."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from etude.base.errors import DataError
from etude.tasks.task_type import Missing


def told(found: Iterable[Any], *, alone: bool) -> Iterator[Any]:
    """Pass on what was found for each text; warn of one without anything. Raises DataError for one asked `alone`."""
    for number, one in enumerate(found, 1):
        why = _why_none(one)
        if why and alone:
            raise DataError(f"The text has no prediction: {why}")
        if why:
            warnings.warn(f"Text {number} has no prediction: {why}", stacklevel=2)
        yield one


def _why_none(found: object) -> str:
    match found:
        case Missing(error=why) | [Missing(error=why)]:
            return why
    return ""


def text_of(found: str | Missing) -> str:
    """A prediction as text; nothing where there is none."""
    match found:
        case Missing():
            return found.text
    return found

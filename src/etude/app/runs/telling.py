"""Who is told of a pass over a split that is validated or tested."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from etude.train.watch.events import Events


class Telling(NamedTuple):
    """The events of a pass."""

    start: Callable[[], object]
    before: Callable[[Any], None]
    after: Callable[[Any, Any], None]
    end: Callable[[Mapping[str, float]], object]

    @classmethod
    def of(cls, events: Events, *, judged: bool) -> "Telling":
        """Those of a validation, or of a test."""
        if judged:
            return cls(
                events.validation_start,
                events.validation_batch_start,
                events.validation_batch_end,
                events.validation_end,
            )
        return cls(events.test_start, events.test_batch_start, events.test_batch_end, events.test_end)

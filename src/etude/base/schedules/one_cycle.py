"""The 1cycle policy, as torch computes it."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AliasChoices, ConfigDict, Field

from etude.base.config.fields import Switch
from etude.base.progress import Progress
from etude.base.schedules.spec import Binding, Extreme, Finite, Length, Schedule, ScheduleSection, also_called

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class OneCycle(ScheduleSection):
    """Up to the peak and down far below the start (Smith and Topin 2018), step by step as torch's OneCycleLR.

    From peak / div_factor to the peak, then down to peak / div_factor / final_div_factor, which stays after the
    cycle. With three phases the way down first mirrors the way up.
    """

    model_config = ConfigDict(json_schema_extra=also_called(peak="max_lr"))

    schedule: Literal["one_cycle"] = "one_cycle"
    peak: Finite = Field(validation_alias=AliasChoices("peak", "max_lr"))
    """The highest value; also called `max_lr`."""
    over: Switch[Length] = None
    """Length of the cycle; default: the run (torch: `total_steps`)."""
    pct_start: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the cycle that rises."""
    anneal_strategy: Literal["cos", "linear"] = "cos"
    """The shape of each phase."""
    div_factor: Positive = 25.0
    """The cycle begins at the peak divided by this."""
    final_div_factor: Positive = 1e4
    """The cycle ends at its first value divided by this."""
    three_phase: bool = False
    """Fall back to the first value as slowly as it rose, then to the last value."""

    def bind(self, binding: Binding) -> Schedule:
        """Lay the phases out over the cycle."""
        total = int(binding.run("over") + 0.5) if self.over is None else binding.whole(self.over, "over")
        phases = self._phases(total)
        final = phases[-1][3]
        blend = _cosine if self.anneal_strategy == "cos" else _line

        def value(progress: Progress) -> float:
            for start, end, first, last in phases:
                if progress.step <= end:
                    return blend(first, last, _share(progress.step, start, end))
            return final

        return value

    def extremes(self) -> Iterator[Extreme]:
        """Give the peak, the first and the last value."""
        yield Extreme(self.peak, "at its peak")
        yield Extreme(self.peak / self.div_factor, "at its start")
        yield Extreme(self.peak / self.div_factor / self.final_div_factor, "at its end")

    def course(self, binding: Binding) -> float | None:
        """Steps of the cycle, where the config gives them."""
        return None if self.over is None else binding.whole(self.over, "over")

    def _phases(self, total: int) -> list[tuple[float, float, float, float]]:
        """Give (first step, last step, first value, last value) of each phase."""
        initial = self.peak / self.div_factor
        final = initial / self.final_div_factor
        top, end = self.pct_start * total - 1, float(total - 1)
        if not self.three_phase:
            return [(0.0, top, initial, self.peak), (top, end, self.peak, final)]
        down = 2 * self.pct_start * total - 2
        return [(0.0, top, initial, self.peak), (top, down, self.peak, initial), (down, end, initial, final)]


def _share(step: int, start: float, end: float) -> float:
    """How much of a phase is done; one of no length is over."""
    return (step - start) / (end - start) if end > start else 1.0


def _cosine(first: float, last: float, t: float) -> float:
    return last + (first - last) / 2.0 * (math.cos(math.pi * t) + 1.0)


def _line(first: float, last: float, t: float) -> float:
    return first + (last - first) * t

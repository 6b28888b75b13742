"""Schedules: one way to say how much, over a run."""

from etude.base.schedules.binding import bind, bind_whole, largest, scheduled, smallest
from etude.base.schedules.combined import SCHEDULES, Chain, Function, ScheduleSpec
from etude.base.schedules.decays import Constant, Cosine, Exponential, Inverse, Linear, Noam, Step, Trapezoid, Wsd
from etude.base.schedules.one_cycle import OneCycle
from etude.base.schedules.spec import Schedule, ScheduleSection
from etude.base.schedules.tables import Piecewise, Stairs
from etude.base.schedules.validated import Driven, Newbob, Plateau, begin_anew

__all__ = [
    "SCHEDULES",
    "Chain",
    "Constant",
    "Cosine",
    "Driven",
    "Exponential",
    "Function",
    "Inverse",
    "Linear",
    "Newbob",
    "Noam",
    "OneCycle",
    "Piecewise",
    "Plateau",
    "Schedule",
    "ScheduleSection",
    "ScheduleSpec",
    "Stairs",
    "Step",
    "Trapezoid",
    "Wsd",
    "begin_anew",
    "bind",
    "bind_whole",
    "largest",
    "scheduled",
    "smallest",
]

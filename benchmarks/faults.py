"""How much of its time a run on many machines trains, when its ranks fail by chance: a simulation.

Each rank fails on its own, at a constant rate; a failure of one ends the step of all. They start again from the last
save, after a restart that may fail too. What was trained since that save is lost. The simulation is compared with what
Young (1974) and Daly (2006) compute: the best interval between saves, and the time that is left.

    python benchmarks/faults.py --ranks 8 64 1024 --mean-hours 50000 --save 20 --restart 300
"""

import argparse
import heapq
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from measuring import Section, print_section

HOUR = 3600.0
RUNS = 40
FAILURES, MOST = 100, 2_000
"""A simulated run trains as long as it takes on average for so many failures to come; it is given up after the most."""


@dataclass(frozen=True)
class Faults:
    """How a run fails and starts again; times in seconds."""

    mean: float
    """Between two failures of one rank, on average."""
    ranks: int
    save: float
    """That training stands still for a save."""
    restart: float
    """From a failure to the next step: noticed, queued, started, loaded."""
    every: float
    """Of training between two saves."""

    @property
    def mean_of_all(self) -> float:
        """Seconds between two failures of any rank, on average."""
        return self.mean / self.ranks


def young(faults: Faults) -> float:
    """The best interval between saves, to first order: the root of 2 saves times the mean (Young 1974)."""
    return math.sqrt(2 * faults.save * faults.mean_of_all)


def daly(faults: Faults) -> float:
    """The same to higher order (Daly 2006); the mean itself where saves take twice as long as it.

    It is Young's where saves take no time to speak of.
    """
    save, mean = faults.save, faults.mean_of_all
    if save >= 2 * mean:
        return mean
    part = math.sqrt(save / (2 * mean))
    return math.sqrt(2 * save * mean) * (1 + part / 3 + part**2 / 9) - save


def expected(faults: Faults) -> float:
    """The share of its time that a run trains (Daly 2006: failures come in saves and restarts too).

    Each stretch of training and its save begins anew until no failure comes within it.
    """
    mean = faults.mean_of_all
    stretch = mean * math.exp(faults.restart / mean) * math.expm1((faults.every + faults.save) / mean)
    return faults.every / stretch


def simulated(faults: Faults, seed: int, wanted: float | None = None) -> float:
    """The share of its time that one run trains, until it has trained for so many seconds, or failed too often.

    Every rank has a clock of its own: its next failure is drawn anew whenever it has failed.
    """
    chance = random.Random(seed)
    failures = [chance.expovariate(1 / faults.mean) for _ in range(faults.ranks)]
    heapq.heapify(failures)
    now = trained = 0.0
    wanted = wanted or FAILURES * faults.mean_of_all
    failed = 0
    while trained < wanted and failed < MOST:
        end = now + faults.every + faults.save
        if failures[0] >= end:
            now, trained = end, trained + faults.every
            continue
        now, failed = _restarted(faults, failures, chance), failed + 1
    return trained / now


def _restarted(faults: Faults, failures: list[float], chance: random.Random) -> float:
    """When the ranks train again, after the failure that comes next and those that come while they start."""
    again = failures[0]
    while failures[0] <= again:
        failed = failures[0]
        again = failed + faults.restart
        heapq.heapreplace(failures, failed + chance.expovariate(1 / faults.mean))
    return again


def several(faults: Faults, runs: int = RUNS) -> tuple[float, float]:
    """The mean share of so many runs, and the standard error of that mean."""
    shares = [simulated(faults, seed) for seed in range(runs)]
    return statistics.mean(shares), statistics.stdev(shares) / math.sqrt(runs)


def best_of(faults: Faults, intervals: Sequence[float]) -> float:
    """The interval with which the simulated runs train the largest share of their time."""
    return max(intervals, key=lambda every: several(replace(faults, every=every))[0])


def row(faults: Faults, hourly: float) -> list[str]:
    """What comes of a number of ranks, with the best interval and with a given one."""
    best = replace(faults, every=daly(faults))
    share, error = several(best)
    other, _ = several(replace(faults, every=hourly))
    return [
        f"{faults.ranks:,}",
        told(faults.mean_of_all),
        told(best.every),
        f"{share:.1%} ± {error:.1%}",
        f"{expected(best):.1%}",
        f"{other:.1%}",
    ]


def told(seconds: float) -> str:
    """A time in minutes, hours or days.

    >>> told(90), told(7200), told(260000)
    ('1.5 min', '2.0 h', '3.0 days')
    """
    for unit, length in (("days", 24 * HOUR), ("h", HOUR)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 60:.1f} min"


def section(*, ranks: Sequence[int], mean_hours: float, save: float, restart: float, given: float) -> Section:
    faults = Faults(mean_hours * HOUR, 1, save, restart, given)
    return Section(
        "Time that is left for training, when ranks fail",
        f"A rank fails every {mean_hours:,.0f} hours on average; a save takes {save:g} s, a restart {restart:g} s. "
        f"Means of {RUNS} simulated runs with about {FAILURES} failures each or more, and their standard error.",
        ["ranks", "a failure every", "save every", "trains", "by formula", f"saving every {told(given)}"],
        [row(replace(faults, ranks=count), given) for count in ranks],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 1024])
    parser.add_argument("--mean-hours", type=float, default=50_000, help="between two failures of one rank")
    parser.add_argument("--save", type=float, default=20, help="seconds that a save takes")
    parser.add_argument("--restart", type=float, default=300, help="seconds from a failure to the next step")
    parser.add_argument("--every", type=float, default=6 * HOUR, help="seconds between saves, for comparison")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    print_section(
        section(
            ranks=arguments.ranks,
            mean_hours=arguments.mean_hours,
            save=arguments.save,
            restart=arguments.restart,
            given=arguments.every,
        ),
        markdown=arguments.markdown,
    )


if __name__ == "__main__":
    main()

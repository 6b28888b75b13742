"""The loop's order of log, validate and save, shown with a counter that learns nothing."""

import subprocess
import sys

import pytest

from etude.base.durations import Duration
from etude.base.progress import Progress
from etude.train.driver import Moments
from etude.train.loop import train


class Counter:
    """Steps through epochs of four groups, and writes down what it is asked for."""

    def __init__(self, until, *, log="2 steps", validate="3 steps", save="4 steps", best=()):
        self.moments = Moments(*map(Duration.parse, (log, validate, save)), until=[Duration.parse(until)])
        self.progress = Progress()
        self.best = best
        self.told = []

    def begin(self):
        self.told.append("begin")
        return self.ending()

    def groups(self):
        yield from range(4)

    def step(self, group):
        before = self.progress
        last = group == 3
        self.progress = Progress(step=before.step + 1, epoch=before.epoch + last, batch=before.batch + 1)
        return before, self.progress

    def log(self):
        self.told.append(f"log {self.progress.step}")

    def validate(self):
        self.told.append(f"validate {self.progress.step}")
        return self.progress.step in self.best

    def ending(self):
        return "enough" if self.moments.until[0].reached(self.progress) else None

    def round_off(self, end, *, logged, validated):
        self.told.append(f"round off {self.progress.step} {logged} {validated}")
        return False

    def save(self, *, best, end):
        self.told.append(f"save {self.progress.step}" + " best" * best + f" {end}" * (end is not None))

    def end(self, end):
        self.told.append("end")
        return end


@pytest.mark.parametrize(
    ("until", "options", "told"),
    [
        ("6 steps", {}, "log 2, validate 3, log 4, save 4, log 6, validate 6, round off 6 True True, save 6 enough"),
        ("1 step", {}, "round off 1 False False, save 1 enough"),
        ("3 steps", {"best": [3]}, "log 2, validate 3, round off 3 False True, save 3 best enough"),
        (
            "4 steps",  # whose last ends an epoch, and is logged for that
            {"best": [2], "log": "9 steps", "validate": "2 steps", "save": "9 steps"},
            "validate 2, save 2 best, log 4, validate 4, round off 4 True True, save 4 enough",
        ),
    ],
)
def test_a_step_is_logged_validated_and_saved_in_this_order(until, options, told):
    counter = Counter(until, **options)

    assert train(counter) == "enough"
    assert counter.told == ["begin", *told.split(", "), "end"]


def test_a_run_that_has_ended_takes_no_step():
    counter = Counter("4 steps")
    counter.progress = Progress(step=4)

    assert train(counter) == "enough"
    assert counter.told == ["begin", "end"]


def test_the_loop_imports_no_torch():
    script = "import sys, etude.train.loop, etude.train.end; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

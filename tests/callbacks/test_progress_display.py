"""What a run shows of itself: plain lines where nobody watches, one live line where somebody does, and no cost."""

import io
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from types import MappingProxyType

import pytest

from etude.base.durations import Duration
from etude.base.progress import Progress
from etude.callbacks import progress as module
from etude.callbacks.config import LogConfig, build_progress
from etude.callbacks.line import Part, fitted
from etude.callbacks.progress import LiveScreen, PlainScreen, ProgressDisplay, durations, fraction_done, is_live
from etude.train.watch.callback import RunView

CONFIG = {"train": {"max_duration": ["100 steps", "9 epochs"]}}


def view(step, *, logged=None, **metrics):
    metrics = {f"train/{name}": value for name, value in metrics.items()}
    if logged is not None:
        metrics["step"], metrics["epoch"] = logged, logged / 10
    progress = Progress(step=step, epoch=step // 10, epoch_done=step % 10, epoch_total=10, tokens=1000 * step)
    return RunView(progress, None, CONFIG, MappingProxyType(metrics))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def plain(clock):
    out = io.StringIO()
    display = ProgressDisplay(lambda: PlainScreen(lambda: out), 2.0, clock)
    display.on_fit_start(view(0))
    return display, out


def test_a_plain_line_tells_epoch_step_loss_rate_speed_time_left_and_memory(plain, clock):
    display, out = plain
    clock.now = 10.0

    display.on_step_end(view(20, logged=20, loss=1.25, learning_rate=5e-4), None)

    line = out.getvalue()
    for part in (
        " 22 %",
        "epoch 2.00",
        "step 20",
        "loss 1.2500",
        "learning rate 5.00e-04",
        "2,000 tokens/s",
        "35 s left",
        "GiB",
    ):
        assert part in line


def test_what_was_logged_is_told_once_and_not_too_often(plain, clock):
    display, out = plain
    for step in range(1, 101):
        clock.now = step * 0.1
        display.on_step_end(view(step, logged=step // 10 * 10 or None, loss=1.0), None)

    steps = [line.split("step ")[1].split()[0] for line in out.getvalue().splitlines()]
    assert len(steps) == len(set(steps))
    assert 3 <= len(steps) <= 6


def test_the_last_logged_values_are_told_at_the_end(plain, clock):
    display, out = plain
    clock.now = 0.1

    display.on_fit_end(view(4, logged=4, loss=0.5), "done")

    assert "loss 0.5000" in out.getvalue()


def test_a_validation_is_always_told(plain):
    display, out = plain

    display.on_validation_end(view(4, logged=4), {"val/loss": 0.5, "val/epoch_loss": 0.5, "val/bleu": 31.25})

    assert out.getvalue() == "epoch 0.40  step 4  val/loss 0.5  val/bleu 31.25\n"


def test_a_closed_pipe_does_not_end_the_run():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    PlainScreen(Closed).show("line", 0.5)


@pytest.mark.parametrize("width", ["200", "80"])
def test_the_live_display_shows_what_the_plain_one_does_and_keeps_validations(width, clock, monkeypatch):
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.delenv("CI", raising=False)
    display = ProgressDisplay(LiveScreen, 0.25, clock)
    display.on_fit_start(view(0))
    clock.now = 1.0
    display.on_step_end(view(20, logged=20, loss=1.25), None)
    display.on_validation_end(view(20, logged=20), {"val/loss": 0.5})

    display.on_fit_end(view(20, logged=20), "done")

    shown = out.getvalue()
    assert "loss 1.2500" in shown
    assert "val/loss 0.5\n" in shown
    assert "\x1b[?25h" in shown.rpartition("loss 1.2500")[2]


@pytest.mark.parametrize(
    ("stream", "environment", "live"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "CI": "true"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_only_a_terminal_outside_ci_is_watched(stream, environment, live, monkeypatch):
    for name in ("CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert is_live(stream) is live


def test_progress_can_be_switched_off():
    assert build_progress(LogConfig(progress=False)) == []
    assert len(build_progress(LogConfig())) == 1


def test_the_share_done_is_that_of_whichever_end_is_nearest():
    progress = Progress(step=50, epoch=3, tokens=10, seconds=60.0)

    assert fraction_done(durations(CONFIG), progress) == 0.5
    assert fraction_done((Duration.parse("2 min"),), progress) == 0.5
    assert fraction_done((), progress) is None
    assert fraction_done((Duration.parse("1 epoch"),), progress) == 1.0


def test_the_display_draws_at_most_five_times_a_second():
    assert module.LIVE_SECONDS >= 0.2


@pytest.mark.parametrize("columns", range(130))
def test_a_narrow_line_keeps_what_matters_most_and_is_never_too_long(columns):
    line = [Part(0, "left"), Part(1, "loss"), Part(2, "step"), Part(3, "x" * 40)]

    shown = fitted(line[::-1], columns)

    assert len(shown) <= columns
    kept = [word in shown for word in ("left", "loss", "step", "x")]
    assert kept == sorted(kept, reverse=True)
    assert kept == [columns >= needed for needed in (4, 10, 16, 58)]


RUNS = """
import fcntl, struct, sys, termios, time, torch, etude
from torch.utils.data import TensorDataset

class Slow(etude.Callback):
    def on_step_end(self, run, outcome):
        time.sleep(0.03)

data = TensorDataset(torch.ones(64, 2), torch.zeros(64, 1))
more = dict(loss=torch.nn.functional.mse_loss, loggers=[], callbacks=[Slow()], log_every="1 step")
for width in (40, 80, 200):
    fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("4H", 24, width, 0, 0))
    sys.stderr.write(f"<{width}>")
    sys.stderr.flush()
    etude.fit(torch.nn.Linear(2, 1), data, max_duration="40 steps", batch_size=4, device="cpu", **more)
"""


def drawn(process, ours):
    """What a terminal was written, by its width; control sequences are left out."""
    seen = b""
    with suppress(OSError):  # how a terminal ends
        while block := os.read(ours, 4096):
            seen += block
    process.wait()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode())
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", plain)
    parts = re.split(r"<(\d+)>", text)[1:]
    return {int(width): text.split("\n") for width, text in zip(parts[::2], parts[1::2], strict=True)}


def test_a_run_on_a_terminal_of_40_80_and_200_columns_keeps_percent_loss_and_time_left():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in ("CI", "COLUMNS", "LINES"):
        environment.pop(name, None)

    command, ends = [sys.executable, "-c", RUNS], {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, env=environment, **ends) as made:
        os.close(theirs)
        seen = drawn(made, ours)

    assert made.returncode == 0
    medium = ("epoch", "step")
    for width, words in {40: (), 80: medium, 200: (*medium, "samples/s", "learning rate", "GiB")}.items():
        lines = [line for line in seen[width] if " % " in line and "loss" in line and "val" not in line]
        assert lines, seen[width]
        assert max(map(len, lines)) <= width
        assert all("…" not in line and all(word in line for word in (" left", *words)) for line in lines), lines

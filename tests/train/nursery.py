"""Processes that begin warm: forked from one that has imported everything, so that a hundred kills take seconds.

Run as a script it is that process: a line of JSON in, a line of JSON out.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

PATHS = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "acceptance")]
WARM = [
    "etude",
    "etude.app.cli.main",
    "etude.app.cli.train",
    "etude.train.fit",
    "etude.data.feeds.workers",
    "small_runs",
    "faulty",
]
KILLED = -signal.SIGKILL


class Nursery:
    """Starts calls in warm processes, each the leader of a process group of its own."""

    def __init__(self):
        paths = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def start(self, call, *args, log, fault=None, folder="."):
        """Begin `call` ("module:function") and return its process; what it says goes to the file `log`."""
        order = {"call": call, "args": [*args], "log": str(log), "fault": fault, "folder": str(folder)}
        return Child(self, self._ask(order))

    def run(self, call, *args, log, fault=None, folder="."):
        """Start, and wait for its exit code; minus the signal's number where it was killed."""
        return self.start(call, *args, log=log, fault=fault, folder=folder).wait()

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, order):
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Child:
    def __init__(self, nursery, pid):
        self.pid = pid
        self.code = None
        self._nursery = nursery

    def poll(self):
        if self.code is None:
            self.code = self._nursery._ask({"poll": self.pid})
        return self.code

    def wait(self, seconds=120.0):
        """The exit code; the test fails where it takes longer than `seconds`."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"still running after {seconds} seconds")
            time.sleep(0.002)
        return self.code

    def kill(self, number=signal.SIGKILL):
        """Send a signal to this process alone, not to its workers; whether it was still there."""
        if self.poll() is None:
            os.kill(self.pid, number)
            return True
        return False

    def family(self):
        """The processes of its group that are alive."""
        return [pid for pid in processes() if group_of(pid) == self.pid]


def processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def group_of(pid):
    try:
        state, _, group = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return None if state == "Z" else int(group)


def main():
    """Serve until the input ends."""
    for name in WARM:
        import_module(name)
    codes = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            answer = codes.pop(order["poll"], None) or reaped(order["poll"])
        else:
            answer = os.fork() or live(order)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def reaped(pid):
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def live(order):
    """What a child does: its call, and no more."""
    import faulty

    gc.freeze()  # what is warm is not looked through at every collection
    os.setsid()
    os.chdir(order["folder"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if order["fault"]:
        faulty.prepare(**order["fault"])
    module, _, name = order["call"].partition(":")
    try:
        code = getattr(import_module(module), name)(*order["args"])
    except SystemExit as ending:
        code = ending.code
    except BaseException:  # noqa: BLE001 - whatever it is, the log tells of it
        import traceback

        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    main()

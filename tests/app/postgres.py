"""A PostgreSQL server of a test's own, on a socket in a temporary folder."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest


class Server:
    """A server that can be killed and started again."""

    def __init__(self, programs, folder):
        self._programs, self._folder = programs, folder
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._do("initdb", "-A", "trust", "-U", "postgres")

    def start(self):
        """Start it; what a killed one has left needs a moment to go."""
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off"
        for _ in range(50):
            try:
                self._do("pg_ctl", "-o", options, "-l", self._folder / "log", "-w", "start")
            except subprocess.CalledProcessError:
                time.sleep(0.2)
            else:
                return
        raise AssertionError((self._folder / "log").read_text())

    def kill(self):
        """End it by SIGKILL, as a machine that fails: what it has started for its clients ends a moment later."""
        process = int((self._folder / "data/postmaster.pid").read_text().splitlines()[0])
        others = [
            Path(f"/proc/{child}") for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
        os.kill(process, signal.SIGKILL)
        end = time.monotonic() + 10
        while any(other.exists() for other in others) and time.monotonic() < end:
            time.sleep(0.01)

    def stop(self):
        self._do("pg_ctl", "-m", "fast", "-w", "stop")

    def _do(self, program, *words):
        command = [*self._as_user, self._programs / program, "-D", self._folder / "data", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._folder)


@contextmanager
def running():
    """A server that runs as long as the block; skips where there is none to start."""
    pytest.importorskip("psycopg", reason="needs etude[postgres]")
    programs = _programs()
    if programs is None:
        pytest.skip("needs the programs of a PostgreSQL server")
    folder = Path(tempfile.mkdtemp(prefix="etude-pg-"))
    folder.chmod(0o777)
    server_ = Server(programs, folder)
    server_.start()
    try:
        yield server_
    finally:
        server_.stop()
        shutil.rmtree(folder)


@contextmanager
def server():
    """The URL of a server that lives as long as the block; skips where there is none to start."""
    with running() as found:
        yield found.url


def _programs():
    """The folder of the server's programs."""
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return None
    found = shutil.which("initdb")
    places = [*([Path(found).parent] if found else []), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    return next((place for place in places if (place / "initdb").exists()), None)

"""A PostgreSQL server of a test's own, on a socket in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def server():
    """The URL of a server that lives as long as the block; skips where there is none to start."""
    pytest.importorskip("psycopg", reason="needs etude[postgres]")
    programs = _programs()
    if programs is None:
        pytest.skip("needs the programs of a PostgreSQL server")
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="etude-pg-"))
    folder.chmod(0o777)
    options = f"-k {folder} -c listen_addresses= -c fsync=off"

    def do(program, *words):
        command = [*as_user, programs / program, "-D", folder / "data", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)

    do("initdb", "-A", "trust", "-U", "postgres")
    do("pg_ctl", "-o", options, "-l", folder / "log", "-w", "start")
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        do("pg_ctl", "-m", "fast", "-w", "stop")
        shutil.rmtree(folder)


def _programs():
    """The folder of the server's programs."""
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return None
    found = shutil.which("initdb")
    places = [*([Path(found).parent] if found else []), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    return next((place for place in places if (place / "initdb").exists()), None)

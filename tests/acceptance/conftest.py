"""The tools of the tests of training, and the run that these tests kill."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "train")]

pytest.register_assert_rewrite("tiny", "laws")

from nursery import Nursery  # noqa: E402 - found by the path above

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
"""Where a file is durable at once, so that the kills fall on the run's own moments rather than on waits for a disk."""


@pytest.fixture(scope="module")
def quick_folder():
    with TemporaryDirectory(prefix="etude-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def nursery():
    source = Nursery()
    yield source
    source.close()

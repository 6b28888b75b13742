"""The small runs of this folder are importable by name; folders and processes that are quick to have."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from nursery import Nursery

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
"""Where a file is durable at once: hundreds of saves would wait for a disk most of their time."""


@pytest.fixture(scope="module")
def quick_folder():
    """A folder in memory, where there is one."""
    with TemporaryDirectory(prefix="etude-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def nursery():
    """A source of warm processes."""
    source = Nursery()
    yield source
    source.close()

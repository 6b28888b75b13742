"""Tests write in memory, where it has room: a run saves often, and every save waits until a disk has it."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own there
ENOUGH = 2 * 1024**3
"""Bytes that must be free there; a container may have very few."""

if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH:
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Thousands of tests are not looked through at every search for garbage, in this process and in those it forks."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()

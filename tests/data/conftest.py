"""Where tests find real data; the text of this folder's tests is importable by name."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def multi30k():
    places = [os.environ.get("ETUDE_DATA"), Path(__file__).parents[3] / "shared" / "data"]
    for place in filter(None, places):
        if (Path(place) / "multi30k").is_dir():
            return Path(place) / "multi30k"
    pytest.skip("Multi30k is not here; ETUDE_DATA says where the real data lies")


@pytest.fixture
def tiny_shakespeare():
    places = [os.environ.get("ETUDE_DATA"), Path(__file__).parents[3] / "shared" / "data"]
    for place in filter(None, places):
        if (path := Path(place) / "tiny_shakespeare" / "input.txt").is_file():
            return path
    pytest.skip("Tiny Shakespeare is not here; ETUDE_DATA says where the real data lies")

"""Where tests find real data."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def multi30k():
    places = [os.environ.get("ETUDE_DATA"), Path(__file__).parents[3] / "shared" / "data"]
    for place in filter(None, places):
        if (Path(place) / "multi30k").is_dir():
            return Path(place) / "multi30k"
    pytest.skip("Multi30k is not here; ETUDE_DATA says where the real data lies")

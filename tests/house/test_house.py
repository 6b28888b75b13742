"""The house keeps its rules."""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "etude"
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST = 400


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_file_is_long(file):
    assert len(file.read_text().splitlines()) <= LONGEST


def test_only_one_package_speaks_to_other_ranks():
    users = [file for file in FILES if re.search(r"torch\.distributed|from torch import distributed", file.read_text())]

    assert {file.relative_to(SOURCE).parent.as_posix() for file in users} == {"train/world"}


def test_no_pickle_is_read_but_a_state_dict_of_weights_alone_and_what_ranks_send_each_other():
    reading = re.compile(r"\btorch\.load\(.*|\bpickle\.loads?\(.*")
    found = {file.relative_to(SOURCE).as_posix(): reading.findall(file.read_text()) for file in FILES}
    read = {name: lines for name, lines in found.items() if lines}

    (line,) = read.pop("train/memory/preload/state_dict.py")
    assert "weights_only=True" in line
    (line,) = read.pop("train/world/packing.py")  # in the place of torch's all_gather_object, which does the same
    assert "content" in line
    users = [file.stem for file in FILES if "train.world.packing import" in file.read_text()]
    assert users == ["ranks"]
    assert not read


def test_no_module_is_called_after_nothing():
    words = {"utils", "helpers", "common", "manager", "handler", "misc"}

    assert [file for file in FILES if words & set(file.stem.split("_"))] == []

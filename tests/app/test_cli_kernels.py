"""oneDNN keeps as many kernels as a run of many shapes needs, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from etude.app.cli.kernels import CAPACITY, ENOUGH, SET_BY_USER, bound_kernels


@pytest.fixture
def environment(monkeypatch):
    for name in SET_BY_USER:
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_the_number_of_kernels_is_bounded():
    bound_kernels()

    assert os.environ[CAPACITY] == str(ENOUGH)


@pytest.mark.parametrize("name", SET_BY_USER)
def test_what_the_user_has_set_stands(environment, name):
    environment.setenv(name, "2000")

    bound_kernels()

    assert {os.environ.get(one) for one in SET_BY_USER} == {"2000", None}


CREATED = """
import sys, torch
from etude.app.cli.kernels import bound_kernels
if sys.argv[1] == "bounded":
    bound_kernels()
weight = torch.ones(8, 8, dtype=torch.bfloat16)
for _ in range(2):
    for rows in range(1, 400):
        torch.nn.functional.linear(torch.ones(rows, 8, dtype=torch.bfloat16), weight)
"""


@pytest.mark.acceptance
def test_onednn_reads_the_bound():
    def misses(how):
        verbose = os.environ | {"ONEDNN_VERBOSE": "profile_create", CAPACITY: ""}
        del verbose[CAPACITY]
        command = [sys.executable, "-c", CREATED, how]
        said = subprocess.run(command, env=verbose, check=True, capture_output=True, text=True).stdout
        return said.count("create:cache_miss")

    if not (kept := misses("free")):
        pytest.skip("this build of torch computes such products without oneDNN")

    assert misses("bounded") > 1.5 * kept

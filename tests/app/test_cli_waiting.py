"""Threads sleep where others work, and spin where nobody does."""

import sys

import pytest

from etude.app.cli.waiting import NOTES, POLICY, SET_BY_USER, busy_cores, settle_waiting


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    for name in SET_BY_USER:
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(("busy", "policy"), [(1.3, "passive"), (0.05, None), (None, None)])
def test_threads_sleep_only_on_a_busy_machine(environment, busy, policy):
    settle_waiting(lambda: busy)

    import os

    assert os.environ.get(POLICY) == policy
    assert len(NOTES) == (policy is not None)


def test_what_the_user_has_set_stands(environment):
    environment.setenv("GOMP_SPINCOUNT", "10")

    settle_waiting(pytest.fail)


def test_the_machine_can_be_looked_at():
    busy = busy_cores()

    assert busy is None or 0 <= busy <= 1024

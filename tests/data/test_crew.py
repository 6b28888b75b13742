"""A crew answers tasks in order, whatever its size, and leaves no process behind."""

import itertools
import os
import signal
import sys

import pytest

from etude.base.errors import DataError
from etude.data.store.crew import Crew, Message, Order

WORK = """
import os
from etude.base.errors import DataError

class Doubling:
    def __init__(self, by):
        self.by = by

    def __call__(self, task):
        from etude.data.store.crew import Message
        number = task.facts["number"]
        if number == -1:
            raise DataError("a task that cannot be done")
        if number == -2:
            os._exit(7)
        for part in range(number % 4):
            yield Message({"number": number, "part": part, "pid": os.getpid()}, [task.parts[0] * self.by, b""])
"""


@pytest.fixture
def crew(tmp_path, monkeypatch):
    (tmp_path / "doubling.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    crews = []

    def made(count):
        crews.append(Crew(Order("doubling:Doubling", {"by": 2}, "doubled the data"), count))
        return crews[-1]

    yield made
    for one in crews:
        one.close()


def message(number):
    return Message({"number": number}, [b"x" * (number * 20_000)])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_answers_come_in_the_order_of_the_tasks(crew, count):
    answers = [(task, list(answer)) for task, answer in crew(count).answers(range(20), message)]

    assert [task for task, _ in answers] == list(range(20))
    for number, parts in answers:
        assert [(part.facts["number"], part.facts["part"]) for part in parts] == [
            (number, part) for part in range(number % 4)
        ]
        assert all(part.parts == [b"x" * (number * 40_000), b""] for part in parts)
    assert len({part.facts["pid"] for _, parts in answers for part in parts}) == count


def test_an_endless_row_of_tasks_can_be_left_in_the_middle(crew):
    one = crew(2)
    answers = one.answers(itertools.count(1), message)
    pids = {part.facts["pid"] for _, answer in itertools.islice(answers, 5) for part in answer}

    one.close()

    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)


def test_an_error_of_the_work_is_told_in_its_words(crew):
    with pytest.raises(DataError, match="a task that cannot be done"):
        read_all(crew(2).answers([1, -1, 2], lambda number: Message({"number": number}, [b""])))


def test_a_worker_that_dies_is_reported(crew):
    with pytest.raises(DataError, match=r"A process that doubled the data ended with code 7; the same command"):
        read_all(crew(2).answers([1, -2], lambda number: Message({"number": number}, [b""])))


def test_a_worker_that_never_begins_is_reported(crew, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(DataError, match="A process that doubled the data ended with code 1"):
        read_all(crew(1).answers([1], message))


def read_all(answers):
    return [list(answer) for _, answer in answers]

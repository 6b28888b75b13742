"""Laws of the lent random states: the draws of an iteration and those of the process around it never meet."""

# ruff: noqa: NPY002 - numpy's global generator is the point

import random

import numpy as np
import pytest
import torch
from numpy.random import mtrand

from etude.data.order import states
from etude.data.order.states import kept, on_its_own, put_back, set_all, unmoved

DRAWS = {
    "python": random.random,
    "python's pair of normal numbers": lambda: random.gauss(0, 1),
    "numpy": np.random.random,
    "numpy's pair of normal numbers": np.random.normal,
    "torch": lambda: torch.rand(1).item(),
}
ALL = tuple(DRAWS.values())


@pytest.fixture(autouse=True)
def outside():
    """The states of the test process, put back by what Python, numpy and torch offer for it."""
    python, numpy, host = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(host)


@pytest.fixture(params=["in memory", "by asking"])
def way(request, monkeypatch):
    if request.param == "by asking":
        monkeypatch.setattr(states._PYTHON, "_memory", None)
        monkeypatch.setattr(states._NUMPY, "_waiting", None)


def drawn(count=3, draws=ALL):
    return [draw() for _ in range(count) for draw in draws]


def seeded(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("before", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("between", DRAWS.values(), ids=DRAWS)
def test_states_that_are_put_back_give_the_same_numbers_again(before, between):
    seeded(1)
    before()

    states = kept()
    wanted = drawn()
    between()
    put_back(states)

    assert drawn() == wanted


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_draw_is_seen(draw):
    for begun in (lambda: None, np.random.normal):  # the second leaves a normal number of numpy's that waits
        seeded(1)
        begun()
        states = kept()
        assert unmoved(states)

        draw()

        assert not unmoved(states)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("inside", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("around", DRAWS.values(), ids=DRAWS)
def test_an_iteration_and_the_process_around_it_draw_as_if_alone(inside, around):
    set_all(5)
    alone = [inside() for _ in range(6)]
    seeded(1)
    process = [around() for _ in range(7)]

    seeded(1)
    found, outer = [], [around()]
    for number in on_its_own((inside() for _ in range(6)), 5):
        found.append(number)
        outer.append(around())

    assert found == alone
    assert outer == process


def test_the_memory_of_both_generators_is_found():
    assert states._PYTHON._memory is not None
    assert states._NUMPY._waiting is not None


def test_a_generator_of_another_kind_that_a_user_has_set_is_kept_whole():
    ours = mtrand.get_bit_generator()
    mtrand.set_bit_generator(np.random.PCG64(3))
    try:
        states = kept()
        wanted = [np.random.random(), np.random.normal()]
        moved = not unmoved(states)
        put_back(states)
        found = [np.random.random(), np.random.normal()]
    finally:
        mtrand.set_bit_generator(ours)

    assert moved
    assert found == wanted


def test_a_generator_of_another_kind_is_seeded_as_a_new_one():
    ours = mtrand.get_bit_generator()
    mtrand.set_bit_generator(np.random.PCG64())
    try:
        set_all(5)
        found = np.random.random()
    finally:
        mtrand.set_bit_generator(ours)

    assert found == np.random.RandomState(np.random.PCG64(5)).random()

"""Conditions on runs: what they mean, and that nothing of them is ever run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.app.results.where import MISSING, Where
from etude.errors import ConfigError

RUN = {
    "optimizer.learning_rate": 3e-4,
    "model.layers": 4,
    "init.from[0].checkpoint": "a/best",
    "val/loss": 2.25,
    "val/f1-macro": 0.5,
    "val/top 5": 0.75,
    "state": "finished",
    "train.clip_grad": False,
    "train.max_duration": "16 epochs",
    "train.save_outputs": ["val", "test"],
    "optimizer.schedule": {"schedule": "cosine", "peak": 0.1},
}


def holds(text):
    return Where.read(text).holds(lambda key: RUN.get(key, MISSING))


@pytest.mark.parametrize(
    "text",
    [
        "optimizer.learning_rate < 1e-3",
        "1e-4 < optimizer.learning_rate <= 3e-4",
        'state == "finished" and val/loss < 2.5',
        "state in ['running', 'finished']",
        "not model.layers > 4",
        "model.layers in [2, 4]",
        "model.layers not in (1, 2)",
        "val/f1-macro >= 0.5",
        "`val/top 5` == .75",
        'init.from[0].checkpoint == "a/best"',
        "train.clip_grad == false",
        "train.clip_grad != 0",
        'train.max_duration > "2 epochs"',
        'train.max_duration == "16 epoch"',
        '"val" in train.save_outputs',
        "(model.layers == 1 or val/loss > -1) and state != 'failed'",
    ],
)
def test_a_condition_that_is_met(text):
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "val/bleu > 0",
        "val/bleu < 0",
        "val/bleu != 3",
        "state < 3",
        "optimizer.schedule < 1",
        'train.max_duration > "2 steps"',
        "train.clip_grad == 0",
        "model.layers == true",
        "state == 'finished' and model.layers == 5",
    ],
)
def test_a_condition_that_is_not(text):
    assert not holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch x')",
        "state.upper() == 'A'",
        "[x for x in state]",
        "(lambda: 1)() == 1",
        "model.layers + 1 == 5",
        "state['0'] == 'f'",
        "f'{state}' == 'a'",
        "(state := 3) == 3",
        "1 if state else 2",
        "{1: 2} == 3",
        "b'a' == state",
        "",
        "model.layers <",
        "a = 3",
        "state == 'open",
        "3",
        "[1]",
        "not 3",
        "(" * 5000 + ")" * 5000,
        "not " * 2000 + "state",
        "0" * 20_000,
    ],
)
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(ConfigError):
        Where.read(text)


@given(st.text(alphabet="ab.[]/`'\"<>=!()0123456789 -+*,:enotidr\\", max_size=40))
def test_any_text_is_a_condition_or_refused(text):
    try:
        found = Where.read(text)
    except ConfigError:
        return
    assert found.holds(lambda key: RUN.get(key, MISSING)) in {True, False}

"""What a config may say about a schedule, and how every mistake in it is refused."""

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from etude.base.config.json_schema import schema as schema_of
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules import SCHEDULES, Cosine, Driven, bind, scheduled


class Sample(Section):
    """A section with every kind of schedulable number."""

    rate: scheduled(ge=0) = Cosine(peak=1e-3)
    """At least 0."""
    share: scheduled(ge=0, lt=1) = 0.0
    """In [0, 1)."""
    positive: scheduled(gt=0) = 1.0
    """Above 0."""
    count: scheduled(ge=1, whole=True) = 1
    """A whole number of at least 1."""
    free: scheduled() = 0.0
    """Any finite number."""


RUN = Horizon(steps=1000, steps_per_epoch=100, samples_per_step=64, tokens_per_step=1000)

ACCEPTED = [
    {"schedule": "constant", "peak": 1.0},
    {"schedule": "constant", "peak": 1, "warmup": "1000 steps", "warmup_shape": "exponential"},
    {"schedule": "linear", "peak": 1.0, "end": 0.1, "over": "5 epochs"},
    {"schedule": "linear", "from": 0.0, "to": 0.1, "over": "5 epochs"},
    {"schedule": "linear", "peak": 1.0, "over": False},
    {"schedule": "cosine", "peak": 1.0, "warmup": "5 %"},
    {"schedule": "cosine", "peak": 1.0, "wave": "quarter", "cooldown": "2e6 tokens"},
    {"schedule": "inverse", "peak": 1.0, "warmup": "1 epoch", "power": 1.0},
    {"schedule": "noam", "warmup": "4000 steps", "d_model": 512, "factor": 2},
    {"schedule": "noam", "warmup": "4000 steps", "peak": 1e-3},
    {"schedule": "exponential", "peak": 1.0, "gamma": 0.9, "every": "1 epoch"},
    {"schedule": "step", "peak": 1.0, "every": "2 epochs", "factor": 0.1},
    {"schedule": "stairs", "values": [2, 4, 6], "every": "3 epochs"},
    {"schedule": "stairs", "values": [2, 4], "at": ["0 epochs", "3 epochs"]},
    {"schedule": "piecewise", "points": [["0 steps", 0.0], ["1000 steps", 1.0]]},
    {"schedule": "trapezoid", "peak": 1.0, "decay": "10 %", "shape": "sqrt"},
    {"schedule": "wsd", "peak": 1.0, "decay": "0 steps"},
    {"schedule": "one_cycle", "peak": 1.0, "pct_start": 0.2, "anneal_strategy": "linear", "three_phase": True},
    {"schedule": "one_cycle", "max_lr": 1.0},
    {"schedule": "plateau", "peak": 1.0, "patience": 2, "min_delta": 0.01, "cooldown": 1, "minimum": 1e-5},
    {"schedule": "newbob", "peak": 1.0, "threshold": 0.01, "min_epochs": "2 epochs", "monitor": "val/loss"},
    {
        "schedule": "chain",
        "parts": [
            {"schedule": "linear", "from": 0.0, "to": 1.0, "over": "9 steps"},
            {"schedule": "cosine", "peak": 1.0},
        ],
    },
    {
        "schedule": "chain",
        "parts": [{"schedule": "constant", "peak": 1.0}, {"schedule": "constant", "peak": 2.0}],
        "at": ["0 steps", "10 %"],
    },
    {"schedule": "tests.mine:ramp", "slope": 0.5},
]


@pytest.mark.parametrize("table", ACCEPTED, ids=lambda table: table["schedule"])
def test_a_table_is_read_and_what_is_written_reads_back_the_same(table):
    section = Sample(rate=table)

    assert Sample.model_validate(section.model_dump()) == section
    assert Sample.model_validate_json(section.model_dump_json()) == section


@pytest.mark.parametrize("table", ACCEPTED, ids=lambda table: table["schedule"])
def test_what_is_read_fits_the_json_schema(table):
    schema = Sample.model_json_schema()

    jsonschema.validate({"rate": table}, schema)
    jsonschema.validate(Sample(rate=table).model_dump(mode="json"), schema)


def test_the_json_schema_marks_what_may_be_scheduled_and_describes_every_option():
    schema = schema_of(Sample)
    schema["properties"].pop("extends")

    assert all(field["schedulable"] for field in schema["properties"].values())
    assert {schedule.__name__ for schedule in SCHEDULES} == set(schema["$defs"])
    for name, section in schema["$defs"].items():
        for key, field in section["properties"].items():
            assert key == "schedule" or field.get("description"), f"{name}.{key}"


def test_a_misspelt_option_does_not_fit_the_json_schema():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rate": {"schedule": "cosine", "peek": 1.0}}, Sample.model_json_schema())


BASE = {"peak": 1.0}
REFUSED = [
    ("rate", -1.0, "greater than or equal to 0"),
    ("rate", float("nan"), "finite"),
    ("rate", "fast", "valid number"),
    ("rate", True, "valid number"),
    ("count", 2.5, "valid integer"),
    ("count", 0, "greater than or equal to 1"),
    ("share", 1.0, "less than 1"),
    ("rate", {"schedule": "cosin", "peak": 1.0}, "'cosin'.*'cosine'"),
    ("rate", {"peak": 1.0}, "Unable to extract tag"),
    ("rate", {"schedule": "cosine"}, "Field required"),
    ("rate", {"schedule": "cosine", "peak": 1.0, "over": "1 epoch"}, "Extra inputs"),
    ("rate", {"schedule": "cosine", "peak": float("inf")}, "finite"),
    ("rate", {"schedule": "cosine", "peak": 1.0, "warmup": 10}, "number with its unit"),
    ("rate", {"schedule": "cosine", "peak": 1.0, "warmup": "10 minutes"}, "must not be a time"),
    ("rate", {"schedule": "cosine", "peak": 1.0, "cooldown": "1 h"}, "must not be a time"),
    ("rate", {"schedule": "cosine", "peak": 1.0, "cooldown": "0 steps"}, "must be more than 0"),
    ("rate", {"schedule": "cosine", "peak": 1.0, "wave": "third"}, "'half' or 'quarter'"),
    ("rate", {"schedule": "cosine", "peak": 1.0, "wave": "quarter", "end": 0.5}, "must end at 0.*but is to end at 0.5"),
    ("rate", {"schedule": "linear", "peak": 1.0, "from": 1.0}, "either peak or from"),
    ("rate", {"schedule": "linear", "peak": 1.0, "end": 1.0, "to": 1.0}, "either end or to"),
    ("rate", {"schedule": "linear"}, "Field required"),
    ("rate", {"schedule": "inverse", "peak": 1.0}, "Field required"),
    ("rate", {"schedule": "inverse", "peak": 1.0, "warmup": "0 steps"}, "must be more than 0"),
    ("rate", {"schedule": "inverse", "peak": 1.0, "warmup": "1 step", "power": 0.4}, "greater than or equal to 0.5"),
    ("rate", {"schedule": "inverse", "peak": 1.0, "warmup": "1 step", "power": 1.1}, "less than or equal to 1"),
    ("rate", {"schedule": "noam"}, "Field required"),
    ("rate", {"schedule": "exponential", "peak": 1.0}, "Field required"),
    ("rate", {"schedule": "exponential", "peak": 1.0, "gamma": 1.0}, "less than 1"),
    ("rate", {"schedule": "exponential", "peak": 1.0, "gamma": 0.0}, "greater than 0"),
    ("rate", {"schedule": "step", "peak": 1.0}, "Field required"),
    ("rate", {"schedule": "step", "peak": 1.0, "every": "1 step", "factor": 1.5}, "less than 1"),
    ("rate", {"schedule": "stairs", "values": [1, 2]}, "must give every or at"),
    ("rate", {"schedule": "stairs", "values": [], "every": "1 step"}, "at least 1 item"),
    ("rate", {"schedule": "stairs", "values": [1], "every": "1 step", "at": ["0 steps"]}, "exclude each other"),
    (
        "rate",
        {"schedule": "stairs", "values": [1, 2], "at": ["0 steps"]},
        "as many moments in at as values, but is 1 for 2",
    ),
    ("rate", {"schedule": "stairs", "values": [1], "at": ["5 steps"]}, 'must begin with "0 steps"'),
    (
        "rate",
        {"schedule": "stairs", "values": [1, 2, 3], "at": ["0 steps", "9 steps", "9 steps"]},
        "increasing moments",
    ),
    ("rate", {"schedule": "stairs", "values": [1, 2, 3], "at": ["0 steps", "9 steps", "1 epoch"]}, "in one unit"),
    ("rate", {"schedule": "piecewise", "points": []}, "at least 1 item"),
    ("rate", {"schedule": "piecewise", "points": [["5 steps", 1], ["3 steps", 2]]}, "increasing moments in points"),
    ("rate", {"schedule": "trapezoid", "peak": 1.0, "shape": "round"}, "'linear', 'sqrt' or 'cosine'"),
    ("rate", {"schedule": "one_cycle", "peak": 1.0, "pct_start": 1.5}, "less than or equal to 1"),
    ("rate", {"schedule": "plateau", "peak": 1.0, "patience": 0}, "greater than or equal to 1"),
    ("rate", {"schedule": "chain", "parts": []}, "at least 1 item"),
    (
        "rate",
        {"schedule": "chain", "parts": [{"schedule": "plateau", "peak": 1.0}, {"schedule": "constant", **BASE}]},
        "no part but the last that follows validations: it is plateau in parts.0",
    ),
    (
        "rate",
        {"schedule": "chain", "parts": [{"schedule": "constant", **BASE}, {"schedule": "cosine", **BASE}]},
        r"must give at.*parts\.0 \(constant\)",
    ),
    (
        "rate",
        {"schedule": "chain", "parts": [{"schedule": "cosine", **BASE}], "at": ["0 steps", "1 step"]},
        "as many moments in at as parts",
    ),
    # Ranges of the field itself, wherever a schedule leaves them.
    ("rate", {"schedule": "cosine", "peak": -1.0}, "must be at least 0, but is -1 at its peak"),
    ("rate", {"schedule": "linear", "from": 1.0, "to": -0.5}, "must be at least 0, but is -0.5 at its end"),
    (
        "share",
        {"schedule": "linear", "from": 0.0, "to": 1.0, "over": "1 epoch"},
        "must be less than 1, but is 1 at its end",
    ),
    (
        "share",
        {"schedule": "stairs", "values": [0.5, 1.5], "every": "1 epoch"},
        r"less than 1, but is 1.5 in values\.1",
    ),
    ("share", {"schedule": "piecewise", "points": [["0 steps", 2.0]]}, "less than 1, but is 2 at 0 steps"),
    ("share", {"schedule": "one_cycle", "peak": 1.0}, "less than 1, but is 1 at its peak"),
    ("positive", {"schedule": "linear", "peak": 1.0, "over": "9 steps"}, "more than 0, but is 0 at its end"),
    ("count", {"schedule": "stairs", "values": [0, 1], "every": "1 epoch"}, r"at least 1, but is 0 in values\.0"),
    (
        "share",
        {"schedule": "chain", "parts": [{"schedule": "constant", "peak": 7.0}]},
        r"less than 1, but is 7 at its peak in parts\.0",
    ),
]


@pytest.mark.parametrize(("key", "value", "sentence"), REFUSED)
def test_a_mistake_is_refused_when_it_is_read_with_its_key_and_the_range(key, value, sentence):
    with pytest.raises(ValidationError, match=f"(?s)^1 validation error for Sample\n{key}.*{sentence}"):
        Sample(**{key: value})


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("positive", {"schedule": "linear", "peak": 1.0}),
        ("positive", {"schedule": "cosine", "peak": 1.0, "warmup": "10 steps"}),
        ("positive", {"schedule": "exponential", "peak": 1.0, "gamma": 0.5}),
        ("share", {"schedule": "linear", "from": 0.0, "to": 1.0}),
        ("count", {"schedule": "linear", "from": 1, "to": 8, "over": "1 epoch"}),
        ("count", {"schedule": "constant", "peak": 8, "warmup": "3 epochs"}),
        ("free", {"schedule": "linear", "from": -5.0, "to": 5.0}),
    ],
)
def test_a_bound_that_is_only_approached_is_not_left(key, table):
    assert getattr(Sample(**{key: table}), key).schedule == table["schedule"]


@settings(deadline=None)
@given(
    st.sampled_from([table for table in ACCEPTED if ":" not in table["schedule"]]),
    st.lists(st.integers(0, 3000), min_size=1),
)
def test_no_schedule_leaves_its_extremes(table, steps):
    spec = Sample(rate=table).rate
    schedule = bind(spec, RUN, key="rate", d_model=64)
    extremes = [extreme.value for extreme in spec.extremes()]
    high = 0.1 if spec.schedule == "noam" and spec.peak is None else max(extremes)

    for k in steps:
        value = schedule(Progress(k, k, k // 100, 64 * k, 1000 * k, float(k), k % 100, 100))
        assert min(extremes) - 1e-12 <= value <= high + 1e-12


def test_what_follows_validations_says_so():
    driven = {s.schedule for t in ACCEPTED if ":" not in t["schedule"] if (s := Sample(rate=t).rate) is not None
              if isinstance(bind(s, RUN, key="rate", d_model=64), Driven)}  # fmt: skip

    assert driven == {"plateau", "newbob"}


FUNCTIONS = """
def low(progress): return -1.0
def late(progress): return 0.5 * progress.step
def lost(progress): return float("nan")
def worded(progress): return "a tenth"
def failing(progress): return 1 / progress.step
def fine(progress, value=0.25): return value
"""


@pytest.mark.parametrize(
    ("name", "step", "sentence"),
    [
        ("low", 0, "share must be at least 0, but is -1 from .*low at step 1"),
        ("late", 2, "share must be less than 1, but is 1 from .*late at step 3"),
        ("lost", 0, "share must be a finite number, but is nan from .*lost at step 1"),
        ("worded", 0, "share must be a finite number, but is 'a tenth' from"),
        ("failing", 0, "share gets no value from .*failing at step 1: ZeroDivisionError"),
    ],
)
def test_a_function_that_gives_no_value_of_the_range_ends_the_run_with_a_sentence(tmp_path, name, step, sentence):
    (tmp_path / "own.py").write_text(FUNCTIONS)
    schedule = bind(Sample(share={"schedule": f"{tmp_path}/own.py:{name}"}).share, RUN, key="share")

    with pytest.raises(ConfigError, match=sentence):
        schedule(Progress(step=step))


def test_a_function_of_the_user_gives_its_own_values_within_the_range(tmp_path):
    (tmp_path / "own.py").write_text(FUNCTIONS)
    share = Sample(share={"schedule": f"{tmp_path}/own.py:fine", "value": 0.75}).share
    free = Sample(free={"schedule": f"{tmp_path}/own.py:low"}).free

    assert bind(share, RUN, key="share")(Progress()) == 0.75
    assert bind(free, RUN, key="free")(Progress()) == -1.0
    with pytest.raises(ConfigError, match=r"free\.schedule .* cannot be imported"):
        bind(Sample(free={"schedule": f"{tmp_path}/own.py:none"}).free, RUN, key="free")

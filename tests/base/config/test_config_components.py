import json
import sys
from collections import OrderedDict

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.config.command import parse
from etude.base.config.composing import compose
from etude.base.config.imports import check_signature, resolve_import
from etude.base.config.json_schema import schema
from etude.base.config.loading import load
from etude.base.errors import ConfigError


def test_a_name_is_imported_from_a_module_or_a_file(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("import neighbour\nclass Net:\n    class Inner: pass\n")
    (tmp_path / "neighbour.py").write_text("")

    assert resolve_import("collections:OrderedDict") is OrderedDict
    net = resolve_import(f"{file}:Net")
    assert net.__name__ == "Net"
    assert sys.modules[net.__module__].Net is net
    assert resolve_import(f"{file}:Net.Inner") is net.Inner


@pytest.mark.parametrize(
    ("spec", "end"),
    [
        ("collections:OrderedDit", 'collections has no OrderedDit; did you mean "OrderedDict"?'),
        ("collektions:X", "there is no module collektions here."),
        ("collections.no:X", "there is no module collections.no here."),
        ("FOLDER/none.py:X", "none.py is not a file."),
        ("FOLDER/broken.py:X", "broken.py, line 1)."),
        ("FOLDER/failing.py:X", "ZeroDivisionError: division by zero (failing.py, line 2)."),
        ("FOLDER/lacking.py:X", "ModuleNotFoundError: No module named 'no_such_module' (lacking.py, line 1)."),
        ("word", '"word" must be "package.module:Class" or "file.py:name".'),
    ],
)
def test_what_cannot_be_imported_gets_one_sentence(tmp_path, monkeypatch, spec, end):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def (\n")
    (tmp_path / "failing.py").write_text("\n1 / 0\n")
    (tmp_path / "lacking.py").write_text("import no_such_module\n")

    with pytest.raises(ConfigError) as caught:
        resolve_import(spec.replace("FOLDER", str(tmp_path)))

    assert str(caught.value).endswith(end)


def build(parameters, rate, *, beta=0.9):
    """Take something apart."""


def test_arguments_are_checked_against_the_signature():
    with pytest.raises(ConfigError) as caught:
        check_signature(build, ["bta"], "optimizer", positional=1, locate=lambda key: f"x.toml, {key}")

    assert caught.value.problems == (
        "optimizer.bta is not an argument of build; did you mean optimizer.beta? (x.toml, optimizer.bta).",
        "optimizer.rate is missing: build needs it (x.toml, optimizer).",
    )


def test_arguments_that_fit_pass():
    check_signature(build, ["rate", "beta"], "optimizer", supplied=["parameters"])
    check_signature(lambda **anything: None, ["x"], "model")
    check_signature(OrderedDict, [], "model")


VALID = [
    {},
    {"extends": "x.toml", "train": {"clip_grad": False, "max_duration": ["1 epoch", "5 %"], "limit": 3}},
    {"train": {"clip_grad": "none", "batch_tokens": 1, "patience": "1.5e3 steps"}},
    {"data": {"train": {"source": "a", "target": "b"}}, "optimizer": "sgd"},
    {"data": {"train": ["a"]}, "optimizer": {"type": "sgd", "momentum": 0.5}},
    {"optimizer": {"learning_rate": {"schedule": "linear", "from": 1, "over": "1 h"}, "groups": [{"x": 1}]}},
    {"optimizer": {"type": "pkg:Lion", "beta": [1, {"a": 2}], "learning_rate": 1}},
    {"optimizer": {"type": "adamw"}},
]
INVALID = [
    {"tran": {}},
    {"train": {"clip_grad": 0}},
    {"train": {"clip_grad": "1"}},
    {"train": {"max_duration": 16}},
    {"train": {"max_duration": "16 parsecs of"}},
    {"optimizer": {"type": "sdg"}},
    {"optimizer": {"type": "sgd", "learning_rate": 1}},
    {"optimizer": {"type": "pkg:Lion", "learning_rate": "x"}},
    {"optimizer": {"learning_rate": {"schedule": "cosin"}}},
    {"data": {"train": {"source": "a"}}},
]


def test_the_json_schema_is_valid_and_accepts_what_is(root):
    described = json.loads(json.dumps(schema(root)))
    jsonschema.Draft202012Validator.check_schema(described)
    checker = jsonschema.Draft202012Validator(described)

    for config in VALID:
        load(root, None, {key: value for key, value in config.items() if key != "extends"})
        assert list(checker.iter_errors(config)) == [], config
    for config in INVALID:
        assert not checker.is_valid(config), config
    checker.validate(json.loads(json.dumps(load(root, None).data)))


def test_the_json_schema_lets_a_file_leave_the_type_to_the_one_that_it_changes(root):
    checker = jsonschema.Draft202012Validator(json.loads(json.dumps(schema(root))))

    assert checker.is_valid({"extends": "base.toml", "optimizer": {"momentum": 0.5}})
    assert not checker.is_valid({"extends": "base.toml", "optimizer": {"momentun": 0.5}})
    assert not checker.is_valid({"extends": "base.toml", "optimizer": {"type": "adamw", "momentum": 0.5}})


KEYS = ["train", "train.limit", "train.patience", "train.max_duration", "train.batch_tokens", "train.precision"]
KEYS += ["data.train", "data.train.source", "run.name", "optimizer", "optimizer.type", "optimizer.learning_rate"]
KEYS += ["optimizer.learning_rate.schedule", "optimizer.learning_rate.peak", "optimizer.groups", "train.compile"]
WORDS = [
    "16 epochs",
    "5 %",
    "none",
    "auto",
    "cosine",
    "linear",
    "sgd",
    "adamw",
    "a:b",
    "",
    "numbers",
    "source",
    "target",
]
SCALARS = st.sampled_from([*WORDS, True, False, 0, 1, -1, 0.5, 2.0, float("inf"), float("nan")])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*WORDS, "type", "schedule"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3))
def test_any_values_give_sentences_or_a_config_that_the_schema_accepts(root, pairs):
    found, sentences = None, ()
    try:
        found = load(root, None, pairs)
    except ConfigError as error:
        sentences = error.problems

    assert all(line.endswith(").") and "\n" not in line for line in sentences)
    if found is None:
        return
    given_alone = compose(root, None, parse(pairs)).data
    assert list(jsonschema.Draft202012Validator(schema(root)).iter_errors(given_alone)) == []
    assert repr(load(root, None, found.data).data) == repr(found.data)


def test_the_json_schema_carries_descriptions_and_choices(root):
    described = schema(root)
    train = described["$defs"]["Train"]["properties"]

    assert described["$schema"].endswith("2020-12/schema")
    assert train["clip_grad"]["description"] == "Largest gradient norm."
    assert train["clip_grad"]["default"] is False
    assert train["eval_every"]["examples"]
    titles = [branch.get("title") for branch in described["properties"]["optimizer"]["oneOf"]]
    assert titles[:2] == ["adamw", "sgd"]

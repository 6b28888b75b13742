"""The JSON Schema accepts a structural schedule where a config does, and nowhere else."""

import tomllib

import pytest

from etude.app.cli.show import config_schema

jsonschema = pytest.importorskip("jsonschema")

ACCEPTED = """
model.layers = { schedule = "stairs", values = [1, 2], every = "1 epoch" }
model.d_model = { schedule = "piecewise", points = [["0 epochs", 8], ["4 epochs", 16]] }
model.norm = { schedule = "stairs", values = ["pre", "post"], at = ["0 epochs", "3 epochs"] }
model = { schedule = "stairs", values = [{ d_model = 8 }, { d_model = 16 }], every = "1 epoch" }
model.type = { schedule = "stairs", values = ["lstm", "gru"], every = "1 epoch" }
model.layers = { schedule = "parts.py:layers", base = 2 }
loss = { schedule = "stairs", values = [{ type = "ctc" }, { type = "transducer" }], every = "1 epoch" }
loss.type = { schedule = "stairs", values = ["ctc", "transducer"], every = "1 epoch" }
task = { schedule = "stairs", values = [{ type = "translation" }], every = "1 epoch" }
task.type = { schedule = "stairs", values = ["translation", "own.py:Task"], every = "1 epoch" }
data.train = { schedule = "stairs", values = ["a.tsv", "b.tsv"], every = "1 epoch" }
data = { schedule = "stairs", values = [{ train = "a.tsv" }], every = "1 epoch" }
data.features.mel_bins = { schedule = "stairs", values = [20, 40], every = "1 epoch" }
optimizer.betas = { schedule = "stairs", values = [[0.9, 0.99], [0.9, 0.999]], every = "1 epoch" }
optimizer = { schedule = "stairs", values = [{ type = "sgd" }, { type = "adamw" }], every = "1 epoch" }
optimizer.type = { schedule = "stairs", values = ["sgd", "adamw"], every = "1 epoch" }
init.weights = { schedule = "stairs", values = [{}, { "a.*" = "zeros" }], every = "1 epoch" }
init.weights."a.*" = { schedule = "stairs", values = ["zeros", "ones"], every = "1 epoch" }
model.dropout = { schedule = "linear", from = 0.0, to = 0.1, over = "2 epochs" }
""".strip().splitlines()

REFUSED = """
model.layers = { schedule = "stairs", values = [], every = "1 epoch" }
model.layers = { schedule = "stairs", every = "1 epoch" }
model.layers = { schedule = "cosine", peak = 3 }
model.layers = { schedule = "stairs", values = [1, 2], every = "1 epoch", wrong = 1 }
model.layers = { schedule = "piecewise", points = [["0 epochs", "two"]] }
model.layers = "two"
model.dropout = { schedule = "stairs", values = ["a"], every = "1 epoch" }
train.clip_grad = { schedule = "stairs", values = [1.0], every = "1 epoch" }
run.name = { schedule = "stairs", values = ["a"], every = "1 epoch" }
tokenizer.type = { schedule = "stairs", values = ["byte"], every = "1 epoch" }
optimizer.learning_rate = { schedule = "stairs", values = ["a"], every = "1 epoch" }
model = { schedule = "cosine", peak = 3 }
""".strip().splitlines()


@pytest.fixture(scope="module")
def rules():
    return jsonschema.Draft202012Validator(config_schema())


@pytest.mark.parametrize("line", ACCEPTED)
def test_a_structural_schedule_is_accepted(line, rules):
    problems = list(rules.iter_errors(tomllib.loads(line)))

    assert problems == []


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_none_is_refused(line, rules):
    assert not rules.is_valid(tomllib.loads(line))


@pytest.mark.acceptance
def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(config_schema())


def test_the_schema_marks_what_may_follow_a_structural_schedule():
    made = config_schema()

    layers = made["$defs"]["TransformerConfig"]["properties"]["encoder_layers"]
    assert layers["structural"] is True
    assert layers["default"] == 3
    assert "structural" not in made["$defs"]["TransformerConfig"]["properties"]["dropout"]

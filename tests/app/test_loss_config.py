"""Losses, their further terms and weights from a config: each does what it says, is logged, and resumes exactly."""

import json

import pytest
import torch

from etude.app.build import build_terms
from etude.app.running import train_run
from etude.base.errors import ConfigError
from etude.model.losses import CrossEntropyWithZ
from etude.tasks.config import load_config
from etude.tasks.parts import build_loss
from etude.tasks.translation.task import TranslationTask
from etude.train.memory.checkpoint import read_weights

CONFIG = """
[task]
type = "translation"
metrics = []

[data]
train = "pairs.tsv"
val = "pairs.tsv"

[tokenizer]
type = "byte"

[model]
d_model = 8
heads = 2
encoder_layers = 2
decoder_layers = 2
feedforward = 8

[optimizer]
learning_rate = 1e-2

[train]
max_duration = "4 steps"
batch_size = 8
device = "cpu"
precision = "float32"
log_every = "1 step"

[log]
progress = false
tensorboard = false
"""

PARTS = """
import etude
import torch
from etude.tasks.translation.task import TranslationTask

def widest(task, power=1.0):
    return max(p.abs().max() for p in task.parameters()) ** power

class Spread:
    def __init__(self, pattern):
        self.pattern = pattern

    def __call__(self, task):
        parts = [p.square().sum() for name, p in task.named_parameters() if self.pattern in name]
        return etude.Loss(torch.stack(parts).sum(), len(parts))

class Plain(etude.Task):
    '''Takes model and loss of the config, and says nothing of what they have scheduled.'''
    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def training_step(self, batch):
        return self.loss(self.model(batch.source, batch.target[:, :-1]), batch.target[:, 1:])

class Numbers(Plain):
    def training_step(self, batch):
        logits = self.model(batch.source, batch.target[:, :-1])
        return self.loss(logits, torch.zeros_like(logits))
"""

RAMP = '{ schedule = "linear", from = 0.5, to = 0.1, over = "4 steps" }'
RAMPED = [0.5, 0.4, 0.3, 0.2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + "".join(f"a{n}\tb{n % 7}\n" for n in range(40)))
    (tmp_path / "parts.py").write_text(PARTS)
    return tmp_path


def loaded(home, more="", **overrides):
    (home / "c.toml").write_text(CONFIG + more)
    return load_config(home / "c.toml", {k.replace("__", "."): v for k, v in overrides.items()})


def train(home, more="", **overrides):
    return train_run(loaded(home, more, **overrides), say=lambda _: None)


def series(result, name):
    return [row[name] for row in result.history if name in row]


def weights(result):
    return torch.cat([value.flatten().float() for _, value in sorted(read_weights(result.last).items())])


def close(*numbers):
    return pytest.approx(list(numbers), rel=1e-5)


def test_every_term_is_logged_under_its_name_and_the_total_is_their_weighted_sum(home):
    result = train(
        home,
        f"""
[loss]
label_smoothing = 0.1
z_loss = {RAMP}
terms.decay = {{ type = "l2", weight = {RAMP} }}
terms.sparse = {{ type = "l1", weight = 0.01, match = ["encoder.*", "*.bias"] }}
terms.widest = {{ type = "parts.py:widest", weight = 0, power = 2.0 }}
terms.spread = {{ type = "parts.py:Spread", pattern = "encoder", weight = 0.125 }}
weights = {{ cross_entropy = 0.25 }}
""",
    )

    rows = [row for row in result.history if "train/loss" in row]
    names = ("cross_entropy", "z_loss", "decay", "sparse", "widest", "spread")
    for row, ramp in zip(rows, RAMPED, strict=True):
        factors = (0.25, ramp, ramp, 0.01, 0.0, 0.125)
        total = sum(factor * row[f"train/{name}"] for name, factor in zip(names, factors, strict=True))
        assert row["train/loss"] == pytest.approx(total, rel=1e-6)
    assert series(result, "train/loss_weight/decay") == close(*RAMPED)
    assert series(result, "train/loss_weight/z_loss") == close(*RAMPED)
    assert not [key for row in rows for key in row if "loss_weight/sparse" in key]


def test_validation_reports_the_plain_cross_entropy_and_the_z_loss_beside_it(home):
    more = "\n[loss]\nlabel_smoothing = 0.1\nz_loss = 0.5\n[loss.terms.decay]\ntype = 'l2'\nweight = 0.5\n"

    result = train(home, more)

    last = result.metrics
    assert last["val/loss"] == last["val/cross_entropy"]
    assert last["val/z_loss"] > 0
    assert last["val/perplexity"] == pytest.approx(torch.tensor(last["val/loss"]).exp().item(), rel=1e-5)
    assert not [name for name in last if "decay" in name]


@pytest.mark.parametrize("kind", ["torch.nn:CrossEntropyLoss", "torch.nn.functional:cross_entropy"])
def test_torchs_cross_entropy_trains_and_validates_as_etudes_own(home, kind):
    options = {"train__accumulate": 2, "train__batch_size": 4}
    own = train(home, "\n[loss]\nlabel_smoothing = 0.3\n", run__name="own", **options)

    torchs = train(home, f"\n[loss]\ntype = '{kind}'\nlabel_smoothing = 0.3\n", **options)

    assert torchs.progress.tokens == own.progress.tokens
    assert series(torchs, "train/loss") == close(*series(own, "train/loss"))
    assert torchs.metrics["val/loss"] == pytest.approx(own.metrics["val/loss"], rel=1e-4)


OPTIONS = {
    "z_loss": "[loss]\nz_loss = 0.1",
    "l2": "[loss.terms.extra]\ntype = 'l2'\nweight = 0.1",
    "l1": "[loss.terms.extra]\ntype = 'l1'\nweight = 0.01",
    "match": "[loss.terms.extra]\ntype = 'l2'\nweight = 0.1\nmatch = 'decoder.*'",
    "own": "[loss.terms.extra]\ntype = 'parts.py:widest'",
    "own weight": "[loss.terms.extra]\ntype = 'parts.py:widest'\nweight = 0.1",
    "weights": "[loss]\nz_loss = 0.1\nweights = { cross_entropy = 0.5 }",
    "schedule": f"[loss]\nz_loss = {RAMP}",
}
MODEL = {
    "layer_drop": {"model__layer_drop": 0.4},
    "layer_drop schedule": {"model__layer_drop": {"schedule": "linear", "from": 0.5, "to": 0.1, "over": "4 steps"}},
    "parameter_noise": {"train__parameter_noise": 0.1},
}


def test_every_option_changes_what_is_learnt(home):
    ends = {"nothing": weights(train(home, run__name="nothing"))}
    for name, more in OPTIONS.items():
        ends[name] = weights(train(home, "\n" + more + "\n", run__name=name))
    for name, overrides in MODEL.items():
        ends[name] = weights(train(home, run__name=name, **overrides))

    found = {name: tuple(end.tolist()) for name, end in ends.items()}
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("more", ["", "\n[loss.terms.silent]\ntype = 'l2'\nweight = 0\n"])
def test_what_is_off_changes_no_bit(home, more):
    plain = train(home, run__name="plain")

    same = train(home, more, run__name="same", model__layer_drop=0.0, train__parameter_noise=0.0, loss__z_loss=0.0)

    assert torch.equal(weights(plain), weights(same))


CUTS = {
    "terms": f"""
[loss]
z_loss = {RAMP}
terms.decay = {{ type = "l2", weight = {RAMP} }}
weights = {{ cross_entropy = {RAMP} }}
""",
    "plateau": """
[loss]
terms.decay.type = "l2"
terms.decay.weight = { schedule = "plateau", peak = 0.5, patience = 1, min_delta = 100.0, monitor = "val/loss" }
""",
}


@pytest.mark.parametrize("cut", [*(pytest.param(cut, marks=pytest.mark.acceptance) for cut in (1, 5)), 3])
@pytest.mark.parametrize("part", [*CUTS, *MODEL])
def test_a_resumed_run_ends_where_an_unbroken_one_does(home, part, cut):
    more, overrides = CUTS.get(part, ""), MODEL.get(part, {})
    often = {"train__save_every": "1 step", "train__eval_every": "2 steps", "train__accumulate": 2, **overrides}
    whole = train(home, more, run__name="whole", train__max_duration="6 steps", **often)

    train(home, more, run__name="cut", train__max_duration=f"{cut} steps", **often)
    resumed = train(home, more, run__name="cut", train__max_duration="6 steps", **often)

    assert torch.equal(weights(whole), weights(resumed))
    rows = [
        [
            {key: value for key, value in json.loads(line).items() if "time/" not in key and "_per_second" not in key}
            for line in (home / "runs" / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "cut")
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "adafactor", "muon"])
def test_every_optimizer_works_with_layers_left_out(home, optimizer):
    result = train(home, optimizer__type=optimizer, model__layer_drop=0.6, train__max_duration="8 steps")

    assert weights(result).isfinite().all()


def test_a_step_of_several_batches_has_the_terms_of_the_batch_they_make(home):
    more = "\n[loss]\nz_loss = 0.1\n[loss.terms.decay]\ntype = 'l2'\nweight = 0.01\n"
    exact = {"model__dropout": 0.0, "train__max_duration": "1 epoch"}

    one = train(home, more, run__name="one", train__batch_size=8, **exact)
    several = train(home, more, run__name="several", train__batch_size=2, train__accumulate=4, **exact)

    for name in ("loss", "cross_entropy", "z_loss", "decay"):
        assert series(several, f"train/{name}") == pytest.approx(series(one, f"train/{name}"), rel=1e-4)


@pytest.mark.parametrize("kind", ["Plain", "Numbers"])
def test_a_task_of_ones_own_gets_the_loss_its_terms_and_its_schedules(home, kind):
    loss = f"z_loss = {RAMP}\nlabel_smoothing = {RAMP}" if kind == "Plain" else 'type = "mse"'
    text = CONFIG.replace('"translation"\nmetrics = []', f'"parts.py:{kind}"') + f"\n[loss]\n{loss}\n"
    (home / "own.toml").write_text(text)

    result = train_run(load_config(home / "own.toml"), say=lambda _: None)

    assert len(series(result, "train/loss")) == 4
    scheduled = ["train/loss_weight/z_loss", "train/label_smoothing"] if kind == "Plain" else []
    assert [series(result, name) for name in scheduled] == [close(*RAMPED)] * len(scheduled)


def test_an_imported_loss_may_have_terms_beside_its_own_arguments(home):
    (home / "parts.py").write_text(
        PARTS + "\ndef loss(logits, targets, scale):\n    return scale * logits.square().mean()\n"
    )

    result = train(home, "\n[loss]\ntype = 'parts.py:loss'\nscale = 2.0\nterms.decay = { type = 'l2', weight = 0.1 }\n")

    first = next(row for row in result.history if "train/decay" in row)
    assert first["train/loss"] > 0.1 * first["train/decay"] > 0
    assert (home / "runs/c/code/parts.py").is_file()


WRONG = [
    ("[loss.weights]\nctc = 0.5", "loss.weights.ctc .* returns loss"),
    ("[loss.terms.decay]\ntype = 'l2'", "loss.terms.decay.weight is missing"),
    ("[loss.terms.decay]\ntype = 'l2'\nweight = -1", "loss.terms.decay.weight must be at least 0"),
    ("[loss.terms.decay]\ntype = 'l3'\nweight = 1", 'loss.terms.decay.type .*"l2"'),
    ("[loss.terms.decay]\nweight = 1", 'loss.terms.decay.*"l2"'),
    ("[loss.terms.decay]\ntype = 'l2'\nweight = 1\nmach = 'x'", "loss.terms.decay.mach .*match"),
    ("[loss.terms.decay]\ntype = 'l2'\nweight = 1\nmatch = 'x'", "loss.terms.decay.match has the pattern 'x'"),
    ("[loss.terms.decay]\ntype = 'l2'\nweight = 1\nmatch = []", "loss.terms.decay.match must"),
    ("[loss.terms.z_loss]\ntype = 'l2'\nweight = 1", "loss.terms.z_loss must be another name"),
    ("[loss.terms.'a b']\ntype = 'l2'\nweight = 1", "a b.* must be a name"),
    ("[loss]\nterms.decay = { type = 'l2', weight = 1 }\nweights = { decay = 1 }", "loss.* terms.decay.weight"),
    ("[loss.terms.own]\ntype = 'parts.py:nothing'", "loss.terms.own.type .*nothing"),
    ("[loss.terms.own]\ntype = 'nowhere.py:nothing'", "loss.terms.own.type .*nowhere.py is not a file"),
    ("[loss.terms.own]\ntype = 'parts.py:widest'\npowr = 2", "loss.terms.own.*powr"),
    ("[loss.terms.own]\ntype = 'parts.py:Spread'", "loss.terms.own.*pattern"),
    ("[loss.terms.own]\ntype = 'parts.py:PLAIN'", "loss.terms.own.type .*PLAIN"),
    ("[loss]\nz_loss = -0.1", "loss.z_loss must be at least 0"),
    ("[loss]\ntype = 'mse'", 'loss.type "mse" compares numbers'),
    ("[loss]\ntype = 'mse'\nlabel_smoothing = 0.1", "loss.label_smoothing"),
]


@pytest.mark.parametrize(("more", "told"), WRONG, ids=[told[:40] for _, told in WRONG])
def test_a_mistake_is_told_in_a_sentence_with_its_key(home, more, told):
    with pytest.raises(ConfigError, match=told):
        train(home, f"\n{more}\n")


def test_a_weight_of_a_term_that_is_not_there_ends_the_run_at_its_first_step(home):
    with pytest.raises(ConfigError, match=r"loss\.weights\.ctc .* returns cross_entropy, z_loss"):
        train(home, "\n[loss]\nz_loss = 0.1\nweights = { ctc = 0.5 }\n")


def test_a_schedule_of_a_z_loss_may_begin_at_zero(home):
    config = loaded(home, '\n[loss]\nz_loss = { schedule = "linear", from = 0.0, to = 1.0, over = "4 steps" }\n').config

    assert isinstance(build_loss(config, ignored=0), CrossEntropyWithZ)


def test_constants_and_schedules_of_weights_are_brought_into_force_in_place(home):
    config = loaded(
        home, f"\n[loss]\nterms.decay = {{ type = 'l2', weight = {RAMP} }}\nweights = {{ loss = {RAMP} }}\n"
    )

    terms = build_terms(config.config, TranslationTask(torch.nn.Linear(2, 2)))
    for value in terms.scheduled:
        value.apply(0.75)

    assert [(value.key, value.name) for value in terms.scheduled] == [
        ("loss.terms.decay.weight", "loss_weight/decay"),
        ("loss.weights.loss", "loss_weight/loss"),
    ]
    assert (terms.extra[0].weight, terms.weights) == (0.75, {"loss": 0.75})

"""Parts of the user's own in a config, and runs that ended before they began."""

import json

import pytest

from etude.app.running import train_run
from etude.app.runs.diff import compare_runs
from etude.app.runs.folder import code_names
from etude.base.errors import ConfigError, RefusedError
from etude.tasks.config import load_config

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
encoder_layers = 1
decoder_layers = 1
feedforward = 8

[train]
max_duration = "3 steps"
batch_size = 8
device = "cpu"

[log]
progress = false
tensorboard = false
"""

PARTS = """
import etude
import torch.nn.functional as F

def loss(logits, targets, scale=1.0):
    return scale * F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=0)

def make(ignore_index):
    return lambda logits, targets: loss(logits, targets)

class Ends(etude.Callback):
    def __init__(self, after):
        self.after = after

    def on_step_end(self, run, outcome):
        return etude.Stop("enough") if run.progress.step == self.after else None
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + "".join(f"a{n}\tb{n}\n" for n in range(40)))
    (tmp_path / "parts.py").write_text(PARTS)
    return tmp_path


def train(home, more="", **overrides):
    (home / "c.toml").write_text(CONFIG + more)
    said = []
    return train_run(
        load_config(home / "c.toml", {k.replace("__", "."): v for k, v in overrides.items()}), say=said.append
    )


LOSSES = [
    'type = "parts.py:loss"',
    'type = "parts.py:loss"\nscale = 2.0',
    'type = "parts.py:make"',
    'type = "torch.nn:CrossEntropyLoss"',
]


@pytest.mark.parametrize("loss", LOSSES)
def test_any_callable_is_a_loss(home, loss):
    result = train(home, f"\n[loss]\n{loss}\n")

    assert result.progress.step == 3
    assert result.history[-1]["val/loss"] > 0


def test_callbacks_may_be_tables_by_name(home):
    result = train(home, '\n[callbacks.ends]\ntype = "parts.py:Ends"\nafter = 2\n')

    assert (result.reason, result.progress.step) == ("enough", 2)
    assert json.loads((home / "runs/c/metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_a_run_that_ended_before_its_first_save_may_begin_anew_with_another_config(home):
    with pytest.raises(ConfigError, match="val/blue"):
        train(home, train__monitor="val/blue")

    assert train(home).progress.step == 3


def test_a_run_measured_in_tokens_has_a_horizon(home):
    rates = [
        row["train/learning_rate"]
        for row in train(home, train__max_duration="300 tokens", train__log_every="1 step").history
        if "train/learning_rate" in row
    ]

    assert len(rates) > 5
    assert rates[-1] < 0.3 * max(rates)


def test_every_backward_is_announced(home):
    import torch
    from torch import nn

    import etude

    class Hearing(etude.Callback):
        heard = 0

        def on_before_backward(self, run, loss):
            assert loss.requires_grad
            self.heard += 1

    hearing = Hearing()
    options = {"accumulate": 2, "callbacks": [hearing], "device": "cpu", "progress": False, "say": lambda _: None}
    batches = [(torch.ones(2, 3), torch.zeros(2, 1))] * 5
    etude.fit(nn.Linear(3, 1), batches, loss=nn.functional.mse_loss, max_duration="1 epoch", **options)

    assert hearing.heard == 5


def test_files_of_one_name_are_both_kept_and_both_watched(home):
    for folder in ("a", "b"):
        (home / folder).mkdir()
        (home / folder / "parts.py").write_text(PARTS + f"# of {folder}\n")
    more = '[loss]\ntype = "a/parts.py:loss"\n[[callbacks]]\ntype = "b/parts.py:Ends"\nafter = 9\n'
    (home / "own.py").write_text(PARTS)

    train(home, more + '[[callbacks]]\ntype = "own.py:Ends"\nafter = 9\n')

    code = home / "runs" / "c" / "code"
    kept = {str(path.relative_to(code)): path.read_text() for path in code.rglob("*.py")}
    assert kept == {"a/parts.py": PARTS + "# of a\n", "b/parts.py": PARTS + "# of b\n", "own.py": PARTS}
    assert len(json.loads((code / "sha256.json").read_text())) == 3
    (home / "b" / "parts.py").write_text(PARTS)
    with pytest.raises(RefusedError, match=r"b/parts\.py has changed since the run in .* began"):
        train(home, more + '[[callbacks]]\ntype = "own.py:Ends"\nafter = 9\n')


def test_two_runs_with_other_code_of_one_name_differ_in_that_file(home):
    for folder in ("a", "b"):
        (home / folder).mkdir()
        (home / folder / "parts.py").write_text(PARTS)
    more = '[loss]\ntype = "a/parts.py:loss"\n[[callbacks]]\ntype = "b/parts.py:Ends"\nafter = 9\n'
    train(home, more)
    (home / "b" / "parts.py").write_text(PARTS + "# changed\n")
    train(home, more, run__name="other")

    found = compare_runs(home / "runs" / "c", home / "runs" / "other")

    assert [name for name, _, _ in found.code] == ["b/parts.py"]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["/x/net.py"], ["net.py"]),
        (["/x/net.py", "/x/loss.py"], ["net.py", "loss.py"]),
        (["/x/a/net.py", "/y/a/net.py"], ["x/a/net.py", "y/a/net.py"]),
        (["/a/net.py", "/b/a/net.py"], ["a/net.py", "b/a/net.py"]),
        (["/a/net.py", "/a/b/net.py", "/a/c/net.py"], ["a/net.py", "b/net.py", "c/net.py"]),
    ],
)
def test_a_file_is_kept_below_what_tells_it_from_the_others(files, names):
    assert list(code_names(files).values()) == names

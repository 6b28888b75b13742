"""Two and three ranks train what one does, over 200 steps with everything at once, to rounding."""

import json
import math
import os
import random
import subprocess
import sys

import pytest
import torch
from in_ranks import in_ranks
from test_ranks import close
from torch import nn
from torch.utils.data import DataLoader, Dataset

import etude

pytestmark = pytest.mark.acceptance
STEPS = 200
BROKEN = {17, 58}
"""Samples whose batch has no finite loss."""


class Rows(Dataset):
    """Rows of numbers over time that know their own number."""

    def __init__(self, count):
        draw = torch.Generator().manual_seed(5)
        self.inputs = torch.randn(count, 12, 3, generator=draw, dtype=torch.float64)
        self.weight = torch.randint(0, 4, (count,), generator=draw).double()
        self.inputs[sorted(BROKEN & set(range(count))), 7] = math.nan

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.inputs[index].sum(-1), self.weight[index], index


class Everything(etude.Task):
    """Terms with different counts, hidden states, a buffer, and parts of two optimizers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(11)
        self.rnn = nn.GRU(3, 6, batch_first=True)
        self.out = nn.Linear(6, 1)
        self.unused = nn.Linear(2, 2)
        self.to(torch.float64)

    def configure_optimizers(self):
        return {
            "slow": torch.optim.SGD(self.out.parameters(), lr=1e-2, momentum=0.9),
            "fast": torch.optim.AdamW([*self.rnn.parameters(), *self.unused.parameters()], lr=1e-2, betas=(0.5, 0.9)),
        }

    def training_step(self, batch, *, hiddens=None, optimizer=None):
        inputs, targets, weight, _ = batch
        states, last = self.rnn(inputs, hiddens)
        found = self.out(states).squeeze(-1)
        self.log("size", found.detach().abs().mean(), count=found.numel())
        error = ((found - targets).square() * weight[:, None]).sum()
        return etude.StepOutput(
            {
                "error": etude.Loss(error, float(weight.sum()) * inputs.shape[1]),
                "size": etude.Loss(found.square().sum() * 0.01, found.shape[0], weight=0.5),
            },
            hiddens=last.detach(),
        )

    def validation_step(self, batch):
        return self.training_step(batch).loss


class Seen(etude.Callback):
    """Which samples a rank has had in each step."""

    def __init__(self):
        self.now, self.steps = set(), []

    def on_batch_start(self, run, batch):
        self.now |= set(batch[3].tolist())

    def on_step_end(self, run, outcome):
        self.steps.append(self.now)
        self.now = set()


def fit(rank, folder):
    """What a run of 200 steps logged, the samples of each step, and its weights."""
    task, seen = Everything(), Seen()
    trainer = etude.Trainer(
        max_duration=f"{STEPS} steps",
        accumulate={"schedule": "stairs", "values": [1, 2, 3], "every": "60 steps"},
        tbptt_steps=5,
        carry_hiddens=True,
        clip_grad=0.5,
        ema_decay=0.95,
        eval_every="20 steps",
        save_every="50 steps",
        log_every="1 step",
        device="cpu",
        run_dir=folder,
        callbacks=[seen],
        progress=False,
        say=lambda _: None,
    )
    result = trainer.fit(task, DataLoader(Rows(84), batch_size=6), DataLoader(Rows(16), batch_size=3))
    return result.history, seen.steps, task.state_dict()


@pytest.mark.parametrize("size", [2, 3])
def test_everything_at_once_is_optimised_as_by_one_process(size, tmp_path):
    alone = fit(0, tmp_path / "one")
    ranks = in_ranks(size, fit, tmp_path / "many")

    close(alone[0], ranks[0][0], 1e-10)
    assert max(row["step"] for row in alone[0]) == STEPS
    assert max(row.get("train/skipped_steps", 0) for row in alone[0]) > 1
    assert [set.union(*parts) for parts in zip(*(seen for _, seen, _ in ranks), strict=True)] == alone[1]
    for name, value in alone[2].items():
        for *_, state in ranks:
            torch.testing.assert_close(value, state[name], rtol=1e-9, atol=1e-11)


TRANSLATION = """
[task]
type = "translation"
beam_size = 3

[data]
train = "train.tsv"
val = "val.tsv"

[tokenizer]
type = "char"

[model]
d_model = 16
heads = 2
encoder_layers = { schedule = "stairs", values = [1, 2], every = "2 epochs" }
decoder_layers = 1
feedforward = 32
dropout = 0.0

[train]
batch_tokens = 400
accumulate = 2
"""
LANGUAGE_MODEL = """
[task]
type = "language_model"

[data]
train = "train.txt"
val = "val.txt"
packing = "documents"
block_size = 48

[tokenizer]
type = "char"

[model]
d_model = 16
heads = 2
layers = { schedule = "stairs", values = [1, 2], every = "2 epochs" }
dropout = 0.0

[train]
batch_size = 7
accumulate = 3
"""
COMMON = """
max_duration = "200 steps"
log_every = "1 step"
eval_every = "50 steps"
clip_grad = 1.0
ema_decay = 0.9
device = "cpu"

[growth]
new_weights = "zeros_out"

[optimizer]
learning_rate = { schedule = "linear", peak = 3e-3, warmup = "40 steps" }
"""


def written(folder, config):
    """A config and its data: words spelt backwards, in lines or pairs."""
    folder.mkdir()
    (folder / "config.toml").write_text(config + COMMON)
    for name, count in (("train", 1500), ("val", 40)):
        draw = random.Random(name)
        lines = ["".join(draw.choices("abcdef ", k=draw.randint(3, 14))).strip() or "a" for _ in range(count)]
        (folder / f"{name}.tsv").write_text("source\ttarget\n" + "".join(f"{a}\t{a[::-1].upper()}\n" for a in lines))
        (folder / f"{name}.txt").write_text("".join(f"{a} {a[::-1].upper()}\n\n" for a in lines))


def trained(folder, ranks):
    """The rows of a run by so many ranks."""
    words = ["train", "config.toml", "--run.name", f"of-{ranks}", "--distributed.processes", str(ranks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "etude", *words], cwd=folder, env=environment, check=True)
    lines = (folder / "runs" / f"of-{ranks}" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("config", "exact"),
    [(TRANSLATION, {"val/bleu", "val/chrf"}), (LANGUAGE_MODEL, {"tokens"})],
    ids=["translation", "language model"],
)
def test_a_config_is_trained_alike_on_any_number_of_ranks(config, exact, tmp_path):
    written(tmp_path / "place", config)

    alone, *several = [trained(tmp_path / "place", ranks) for ranks in (1, 2, 3)]

    assert max(row["step"] for row in alone) >= STEPS
    assert exact <= {name for row in alone for name in row}
    growth = json.loads((tmp_path / "place" / "runs" / "of-3" / "growth.json").read_text())
    assert growth["changes"]
    for found in several:
        compared = 0
        assert len(found) == len(alone)
        for one, other in zip(alone, found, strict=True):
            assert (one["step"], one["epoch"]) == (other["step"], other["epoch"])
            for name in one:
                if "loss" in name:
                    compared += 1
                    assert other[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), (name, one["step"])
                if name in exact:
                    assert other[name] == one[name]
        assert compared >= STEPS

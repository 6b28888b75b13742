"""Runs of other kinds than translation, for the kills: what they train, and where."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

import etude

QUIET = {
    "device": "cpu",
    "progress": False,
    "loggers": [],
    "log_every": "1 step",
    "say": lambda s: sys.stderr.write(s + "\n"),
}


class Points(Dataset):
    def __len__(self):
        return 640

    def __getitem__(self, index):
        return torch.randn(2, generator=torch.Generator().manual_seed(index)) + 3


class Gan(etude.Task):
    """Two optimizers at different intervals, one with a plateau of torch's, one with Etude's schedule."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        self.critic = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))

    def training_step(self, batch, *, optimizer):
        fake = self.generator(torch.randn(len(batch), 3))
        if optimizer == "generator":
            return F.softplus(-self.critic(fake)).mean()
        return F.softplus(self.critic(fake)).mean() + F.softplus(-self.critic(batch)).mean()

    def validation_step(self, batch):
        return self.critic(batch).square().mean()

    def configure_optimizers(self):
        critic = torch.optim.Adam(self.critic.parameters(), lr=1e-2)
        return {
            "critic": (critic, torch.optim.lr_scheduler.ReduceLROnPlateau(critic, patience=0)),
            "generator": (torch.optim.Adam(self.generator.parameters()), {"schedule": "linear", "peak": 1e-2}),
        }

    def optimizer_step(self, optimizer, closure, *, name, progress):
        if name == "critic" or progress.step % 2 == 0:
            optimizer.step(closure)


def gan(folder):
    """Train the GAN in `folder`."""
    trainer = etude.Trainer(
        max_duration="6 epochs", eval_every="0.5 epochs", save_every="7 steps", run_dir=folder, accumulate=2, **QUIET
    )
    trainer.fit(Gan(), DataLoader(Points(), batch_size=16, shuffle=True), DataLoader(Points(), batch_size=64))
    return 0


STREAM = """
[task]
type = "language_model"

[data]
train = "text.txt"
split = [0.9, 0.1]
split_by = "position"
order = "contiguous"
block_size = 24

[tokenizer]
type = "char"

[model]
type = "lstm"
layers = 1
d_model = 16
embedding_width = 16
dropout = 0.2

[loss.terms.l2]
type = "l2"
weight = { schedule = "linear", from = 1e-3, to = 0.0, over = "2 epochs" }

[train]
max_duration = "3 epochs"
eval_every = "0.3 epochs"
save_every = "7 steps"
log_every = "1 step"
batch_size = 8
tbptt_steps = 5
carry_hiddens = true
accumulate = 2
clip_grad = 1.0
parameter_noise = 0.01
device = "cpu"

[train.freeze]
"embedding.*" = { schedule = "stairs", values = [1, 0], every = "20 steps" }

[log]
progress = false
"""
MIXTURE = """
[task]
type = "language_model"

[data]
train = [
  { path = "text.txt", weight = 2 },
  { path = "other.txt", weight = { schedule = "linear", from = 1.0, to = 3.0, over = "3 epochs" } },
]
val = "other.txt"
packing = "documents"
document_separator = "\\n\\n"
block_size = { schedule = "stairs", values = [16, 32], every = "1 epoch" }
workers = 1

[tokenizer]
type = "byte"

[model]
type = "decoder"
layers = 1
heads = 2
d_model = 16
dropout = 0.1

[train]
max_duration = "3 epochs"
eval_every = "0.3 epochs"
save_every = "7 steps"
log_every = "1 step"
batch_size = 8
accumulate = { schedule = "stairs", values = [1, 2], every = "1 epoch" }
ema_decay = 0.9
device = "cpu"

[log]
progress = false
"""


def _text(seed, words):
    draw = torch.Generator().manual_seed(seed)
    letters = torch.randint(97, 123, (words, 4), generator=draw).tolist()
    return "".join(
        "".join(map(chr, word)) + ("\n\n" if index % 17 == 16 else " ") for index, word in enumerate(letters)
    )


def _train(folder, config):
    from etude.app.cli.main import main

    place = Path(folder).parent
    if not (place / "run.toml").exists():
        (place / "text.txt").write_text(_text(1, 1200))
        (place / "other.txt").write_text(_text(2, 600))
        (place / "run.toml").write_text(config)
    return main(["train", str(place / "run.toml"), "--run.dir", str(place), "--run.name", Path(folder).name])


def stream(folder):
    """Train an LSTM over a stream, with its state carried, in `folder`."""
    return _train(folder, STREAM)


def mixture(folder):
    """Train a decoder on packed documents of a mixture, with a worker, in `folder`."""
    return _train(folder, MIXTURE)

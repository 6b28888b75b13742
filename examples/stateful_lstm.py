"""A stateful character model: an LSTM over contiguous streams, truncated back-propagation, carried hidden states.

    python examples/stateful_lstm.py

The text is Python's own standard library. It is laid out as 16 streams side by side; a batch is the next 256 characters
of each, split into pieces of 32 for back-propagation. The hidden states are passed from piece to piece and from batch
to batch, and are part of every checkpoint: interrupt the run, run the same command again, and it resumes in the middle
of a stream.
"""

import inspect
import textwrap
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import etude

STREAMS, WINDOW, PIECE = 16, 256, 32


def corpus() -> str:
    """The source of a few modules."""
    return "".join(inspect.getsource(module) for module in (inspect, textwrap, __import__("argparse")))


class Streams:
    """Batches [STREAMS, WINDOW + 1] of neighbouring characters; the last of one is the first of the next."""

    def __init__(self, tokens: Tensor) -> None:
        length = (len(tokens) - 1) // STREAMS // WINDOW * WINDOW
        self.rows = torch.stack([tokens[row * length : row * length + length + 1] for row in range(STREAMS)])

    def __len__(self) -> int:
        return (self.rows.shape[1] - 1) // WINDOW

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self) * WINDOW, WINDOW):
            window = self.rows[:, start : start + WINDOW + 1]
            yield window[:, :-1], window[:, 1:]


class CharacterModel(etude.Task):
    """Predicts the next character."""

    def __init__(self, vocabulary: int, width: int = 128) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(vocabulary, 32)
        self.lstm = nn.LSTM(32, width, batch_first=True)
        self.output = nn.Linear(width, vocabulary)

    def training_step(self, batch: tuple[Tensor, Tensor], *, hiddens=None) -> etude.StepOutput:
        inputs, targets = batch
        states, hiddens = self.lstm(self.embedding(inputs), hiddens)
        logits = self.output(states)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        self.log("accuracy", (logits.argmax(-1) == targets).float().mean(), count=targets.numel())
        return etude.StepOutput(etude.Loss(loss, targets.numel()), hiddens=hiddens)


def main(duration: str = "3 epochs") -> dict[str, float]:
    torch.set_num_threads(1)
    text = corpus()
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(letter) for letter in text])
    cut = len(tokens) * 9 // 10
    trainer = etude.Trainer(
        max_duration=duration,
        tbptt_steps=PIECE,
        carry_hiddens=True,
        learning_rate={"schedule": "cosine", "peak": 5e-3, "warmup": "20 steps"},
        clip_grad=1.0,
        run_dir="runs/stateful_lstm",
    )
    result = trainer.fit(CharacterModel(len(letters)), Streams(tokens[:cut]), Streams(tokens[cut:]))
    print(f"{result.metrics['val/loss'] / 0.6931:.2f} bits a character, {result.metrics['val/accuracy']:.0%} right.")
    return dict(result.metrics)


if __name__ == "__main__":
    main()

"""Sequences of different lengths without padding: packed for an LSTM, in the batch or in the step.

    python examples/packed_sequences.py

The task is to find the most frequent of four letters in a sequence of up to thirty. A batch is a list of tensors of
different lengths, which pass through the loader unchanged; the step packs them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset

import etude

LETTERS = 4


class Sequences(Dataset):
    """Sample i: a sequence of letters, and the letter that is most frequent in it."""

    def __init__(self, samples: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        lengths = torch.randint(5, 31, (samples,), generator=draw).tolist()
        chances = torch.rand(samples, LETTERS, generator=draw).square() + 0.01
        self.texts = [
            torch.multinomial(p, n, replacement=True, generator=draw) for p, n in zip(chances, lengths, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        text = self.texts[index]
        return text, torch.bincount(text, minlength=LETTERS).argmax()


def collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], Tensor]:
    """A list of sequences beside a tensor of labels."""
    return [text for text, _ in samples], torch.stack([label for _, label in samples])


class MostFrequent(etude.Task):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(LETTERS, width)
        self.lstm = nn.LSTM(width, width)
        self.output = nn.Linear(width, LETTERS)

    def logits(self, texts: list[Tensor]) -> Tensor:
        packed = pack_sequence([self.embedding(text) for text in texts], enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return self.output(last[0])

    def training_step(self, batch: tuple[list[Tensor], Tensor]) -> etude.Loss:
        texts, labels = batch
        return etude.Loss(F.cross_entropy(self.logits(texts), labels, reduction="sum"), len(labels))

    def validation_step(self, batch: tuple[list[Tensor], Tensor]) -> etude.Loss:
        texts, labels = batch
        logits = self.logits(texts)
        self.log("accuracy", (logits.argmax(1) == labels).float().mean(), count=len(labels))
        return etude.Loss(F.cross_entropy(logits, labels, reduction="sum"), len(labels))


def main(duration: str = "8 epochs") -> dict[str, float]:
    torch.set_num_threads(1)
    train = DataLoader(Sequences(4_000, seed=1), batch_size=64, shuffle=True, collate_fn=collate)
    val = DataLoader(Sequences(500, seed=2), batch_size=100, collate_fn=collate)
    trainer = etude.Trainer(
        max_duration=duration, learning_rate={"schedule": "cosine", "peak": 1e-2, "warmup": "5 %"}, clip_grad=1.0
    )
    result = trainer.fit(MostFrequent(), train, val)
    print(f"{result.metrics['val/accuracy']:.0%} of the sequences are judged right.")
    return dict(result.metrics)


if __name__ == "__main__":
    main()

"""A custom task, metric, callback and logger, in one script.

    python examples/own_parts.py

A network classifies the digits of a noisy seven-segment display. The metric is the recall of the worst class, which
decides the best weights; the callback stops the run when that recall is good enough, and its state is saved in every
checkpoint; the logger writes a CSV file.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import etude

SEGMENTS = [
    "1110111",
    "0010010",
    "1011101",
    "1011011",
    "0111010",
    "1101011",
    "1101111",
    "1010010",
    "1111111",
    "1111011",
]


def digits(samples: int, seed: int, noise: float = 0.4) -> TensorDataset:
    """Seven segments of a digit, with noise: [N, 7] and the digit [N]."""
    draw = torch.Generator().manual_seed(seed)
    shapes = torch.tensor([[float(segment) for segment in digit] for digit in SEGMENTS])
    labels = torch.randint(10, (samples,), generator=draw)
    return TensorDataset(shapes[labels] + noise * torch.randn(samples, 7, generator=draw), labels)


class WorstRecall:
    """A metric is anything with update, merge, compute and reset; this is the recall of the worst class."""

    def __init__(self, classes: int = 10) -> None:
        self.classes = classes
        self.reset()

    def reset(self) -> None:
        self.right, self.total = torch.zeros(self.classes), torch.zeros(self.classes)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        self.right += torch.bincount(labels[predicted == labels], minlength=self.classes)
        self.total += torch.bincount(labels, minlength=self.classes)

    def merge(self, other: "WorstRecall") -> None:
        self.right += other.right
        self.total += other.total

    def compute(self) -> float:
        return float((self.right / self.total.clamp(min=1)).min())


class Digits(etude.Task):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.net = nn.Sequential(nn.Linear(7, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 10))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> etude.Loss:
        inputs, labels = batch
        return etude.Loss(F.cross_entropy(self.net(inputs), labels, reduction="sum"), len(labels))

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> etude.Loss:
        inputs, labels = batch
        logits = self.net(inputs)
        self.metrics["worst_recall"].update(logits.argmax(1), labels)
        return etude.Loss(F.cross_entropy(logits, labels, reduction="sum"), len(labels))

    def configure_metrics(self) -> Mapping[str, Any]:
        return {"worst_recall": WorstRecall()}


class GoodEnough(etude.Callback):
    """Stops the run after `times` validations in a row whose worst recall reaches the aim."""

    def __init__(self, aim: float, times: int = 2) -> None:
        self.aim, self.times, self.reached = aim, times, 0

    def on_validation_end(self, run, metrics):
        self.reached = self.reached + 1 if metrics["val/worst_recall"] >= self.aim else 0
        return etude.Stop(f"worst recall reached {self.aim} {self.times} times") if self.reached >= self.times else None

    def state_dict(self) -> dict[str, int]:
        return {"reached": self.reached}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.reached = state["reached"]


class CsvLogger:
    """A logger is anything with log(row)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, row: Mapping[str, Any]) -> None:
        if "val/worst_recall" in row:
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerow([row["step"], row["val/loss"], row["val/worst_recall"]])


def main(aim: float = 0.66) -> etude.Result:
    torch.set_num_threads(1)
    trainer = etude.Trainer(
        max_duration="30 epochs",
        monitor="val/worst_recall",
        mode="max",
        learning_rate=3e-3,
        callbacks=[GoodEnough(aim)],
        loggers=[CsvLogger(Path("worst_recall.csv"))],
        run_dir="runs/own_parts",
    )
    result = trainer.fit(Digits(), digits(8_000, seed=1), digits(2_000, seed=2), test=digits(2_000, seed=3))
    metrics = trainer.test()
    print(f"{result.reason}; on test data the worst class is found in {metrics['test/worst_recall']:.0%} of its cases.")
    return result


if __name__ == "__main__":
    main()

"""A kind of file that Etude does not know: a row of numbers a line, the last of which is to be predicted."""

from dataclasses import dataclass

import numpy as np
import torch

from etude.base.errors import DataError
from etude.data.feeds.table_feed import Samples


@dataclass(frozen=True)
class Rows(Samples):
    """The rows of a file, which a feed makes batches of."""

    values: np.ndarray
    mean: float
    spread: float

    def __len__(self):
        return len(self.values)

    def lengths(self, indices):
        return np.zeros(len(indices), dtype=np.int64), np.full(len(indices), self.values.shape[1] - 1)

    def batch(self, indices):
        rows = torch.from_numpy(self.values[indices]).float()
        return {
            "inputs": rows[:, :-1],
            "targets": (rows[:, -1] - self.mean) / self.spread,
            "row": torch.tensor(indices),
        }

    def targets(self, indices):
        return len(indices)

    def expected(self, samples):
        return float(samples)


def read(path, separator):
    """The numbers of a file. Raises DataError naming the line that has none."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            rows.append([float(part) for part in line.split(separator)])
        except ValueError:
            raise DataError(f"{path.name}, line {number} must hold numbers parted by {separator!r}.") from None
    return np.array(rows)

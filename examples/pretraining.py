"""A small network learns, grows into a wider one that computes the same, and learns on.

    python examples/pretraining.py

In a config the same is a schedule on the model's shape: see recipes/pretraining.toml.
"""

import torch
from torch import nn
from torch.utils.data import TensorDataset

import etude
from etude.growth import Growth, plan_transfer


class Net(nn.Module):
    """Two matrices around a hidden layer."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(2, hidden)
        self.outer = nn.Linear(hidden, 1)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """The height of a surface at points, [B, 2] to [B, 1]."""
        return self.outer(self.inner(points).tanh())


def surface(samples: int, seed: int) -> TensorDataset:
    """Points of a plane, and a height for each."""
    points = 4 * torch.rand(samples, 2, generator=torch.Generator().manual_seed(seed)) - 2
    return TensorDataset(points, (points[:, :1] * points[:, 1:]).sin())


def learn(net: Net, epochs: int) -> float:
    """Train a network; its loss on points that it has not seen."""
    loss = etude.losses.MeanSquaredError()
    length = f"{epochs} epochs"
    result = etude.fit(
        net, surface(2000, 1), surface(500, 2), loss=loss, max_duration=length, batch_size=50, learning_rate=1e-2
    )
    return result.metrics["val/loss"]


def main() -> tuple[float, float]:
    """Give the losses of both; nothing is lost between them."""
    torch.manual_seed(1)
    small, wide = Net(8), Net(32)
    before = learn(small, 10)

    transfer = plan_transfer(small, wide, Growth(new_weights="net2net"))
    transfer.apply(small.state_dict(), wide)
    print("\n".join(transfer.text()))
    points = surface(5, 3).tensors[0]
    torch.testing.assert_close(wide(points), small(points))

    # Copies of a unit would be moved alike for ever: a little noise lets them part.
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1e-3)
    return before, learn(wide, 10)


if __name__ == "__main__":
    before, after = main()
    print(f"loss with 8 hidden units {before:.4f}, with 32 that began with what they knew {after:.4f}")

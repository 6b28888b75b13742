"""An ordinary training script, and the same script moved to Etude.

    python examples/plain_script.py

`by_hand` is what one writes first: model, loader, loop. `with_etude` keeps model and loader and replaces the loop by
ten lines, which add a schedule, validation, best weights, checkpoints, and a run that resumes after a kill.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude


def spirals(samples: int, seed: int) -> TensorDataset:
    """Two spirals: points [N, 2] and which of the two each is on [N]."""
    draw = torch.Generator().manual_seed(seed)
    turn = torch.rand(samples, generator=draw).sqrt() * 9
    label = torch.randint(2, (samples,), generator=draw)
    angle = turn + label * torch.pi
    points = torch.stack([angle.cos(), angle.sin()], dim=1) * turn[:, None] / 9
    return TensorDataset(points + 0.02 * torch.randn(samples, 2, generator=draw), label)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def loaders() -> tuple[DataLoader, DataLoader]:
    return DataLoader(spirals(4_000, 1), batch_size=50, shuffle=True), DataLoader(spirals(1_000, 2), batch_size=500)


def accuracy(model: nn.Module, loader: DataLoader) -> float:
    with torch.no_grad():
        right = sum(int((model(points).argmax(1) == labels).sum()) for points, labels in loader)
    return right / len(loader.dataset)


def by_hand(epochs: int = 15) -> float:
    model, (train, val) = network(), loaders()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss_function = nn.CrossEntropyLoss()
    for _ in range(epochs):
        for points, labels in train:
            loss = loss_function(model(points), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return accuracy(model, val)


def with_etude(epochs: int = 15) -> float:
    model, (train, val) = network(), loaders()
    etude.fit(
        model,
        train,
        val,
        loss=nn.CrossEntropyLoss(),
        max_duration=f"{epochs} epochs",
        learning_rate={"schedule": "cosine", "peak": 3e-3, "warmup": "5 %"},
        run_dir="runs/plain_script",
    )
    return accuracy(model, val)


def main() -> tuple[float, float]:
    torch.set_num_threads(1)
    first, second = by_hand(), with_etude()
    print(f"by hand {first:.1%}, with Etude {second:.1%} right")
    return first, second


if __name__ == "__main__":
    main()

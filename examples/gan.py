"""A GAN that learns eight clusters of points on a circle: two optimizers, stepped at different intervals.

    python examples/gan.py

The critic steps in every round, the generator in every second round; each has its own learning rate. The run is kept in
`runs/gan`: interrupt it, run the same command again, and it resumes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

import etude

CLUSTERS, NOISE, SPREAD = 8, 8, 0.05


class Points(Dataset):
    """Points around eight places of the unit circle; point i is a function of i alone."""

    def __init__(self, samples: int) -> None:
        draw = torch.Generator().manual_seed(7)
        angles = torch.arange(samples) % CLUSTERS * (2 * math.pi / CLUSTERS)
        self.points = torch.stack([angles.cos(), angles.sin()], dim=1) + SPREAD * torch.randn(
            samples, 2, generator=draw
        )

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> Tensor:
        return self.points[index]


def network(inputs: int, outputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


class Gan(etude.Task):
    """The generator makes points of noise; the critic tells them from real ones."""

    def __init__(self, width: int = 128, critic_penalty: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.generator = network(NOISE, 2, width)
        self.critic = network(2, 1, width)
        self.critic_penalty = critic_penalty

    def configure_optimizers(self) -> dict:
        return {
            "critic": torch.optim.Adam(self.critic.parameters(), lr=1e-3, betas=(0.5, 0.99)),
            "generator": (
                torch.optim.Adam(self.generator.parameters(), lr=1e-3, betas=(0.5, 0.99)),
                {"schedule": "linear", "from": 1e-3, "to": 1e-4},
            ),
        }

    def training_step(self, batch: Tensor, *, optimizer: str) -> dict[str, etude.Loss]:
        fake = self.generator(torch.randn(len(batch), NOISE))
        if optimizer == "generator":
            return {"fooled": etude.Loss.mean(F.softplus(-self.critic(fake)).mean(), len(batch))}
        real = batch.requires_grad_()
        score = self.critic(real)
        judged = F.softplus(self.critic(fake)).mean() + F.softplus(-score).mean()
        # The gradient penalty of Mescheder et al. 2018, which keeps the two networks from oscillating.
        (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        penalty = slope.square().sum(1).mean()
        return {
            "judged": etude.Loss.mean(judged, len(batch)),
            "penalty": etude.Loss.mean(penalty, len(batch), weight=self.critic_penalty),
        }

    def optimizer_step(self, optimizer, closure, *, name, progress) -> None:
        if name == "critic" or progress.step % 2 == 0:
            optimizer.step(closure)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        return self.generator(torch.randn(count, NOISE, generator=torch.Generator().manual_seed(3)))


def coverage(points: Tensor) -> tuple[int, float]:
    """How many clusters at least 1 % of the points reach, and the share of points that lie near a cluster."""
    angles = torch.arange(CLUSTERS) * (2 * math.pi / CLUSTERS)
    distance, nearest = torch.cdist(points, torch.stack([angles.cos(), angles.sin()], dim=1)).min(1)
    near = distance < 4 * SPREAD
    counts = torch.bincount(nearest[near], minlength=CLUSTERS)
    return int((counts > len(points) / 100).sum()), float(near.float().mean())


def main(duration: str = "4000 steps") -> tuple[int, float]:
    torch.set_num_threads(1)
    task = Gan()
    trainer = etude.Trainer(
        max_duration=duration, batch_size=256, log_every="500 steps", save_every="500 steps", run_dir="runs/gan"
    )
    trainer.fit(task, Points(20_000))
    clusters, near = coverage(task.sample(2_000))
    print(f"{clusters} of {CLUSTERS} clusters are met; {near:.0%} of the points lie near one.")
    return clusters, near


if __name__ == "__main__":
    main()

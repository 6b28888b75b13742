"""A smooth curve fitted by L-BFGS: an optimizer that calls its closure many times in one step.

    python examples/lbfgs.py

It needs no special setup: the closure that Etude passes to `optimizer.step` computes loss and gradient with the same
random draws at each call, and a checkpoint holds the curvature estimate of L-BFGS.
"""

import torch
from torch import Tensor, nn

import etude


class Curve(etude.Task):
    """A small network for y = sin(3x) exp(-x^2)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.net = nn.Sequential(
            nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters(), max_iter=20, history_size=20, line_search_fn="strong_wolfe")

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return (self.net(inputs) - targets).square().mean()


def main(duration: str = "15 steps") -> float:
    torch.set_num_threads(1)
    inputs = torch.linspace(-2, 2, 256)[:, None]
    whole = [(inputs, torch.sin(3 * inputs) * torch.exp(-inputs.square()))]  # one batch: all of the data
    trainer = etude.Trainer(max_duration=duration, log_every="5 steps", precision="float32", run_dir="runs/lbfgs")
    result = trainer.fit(Curve(), whole, whole)
    error = result.metrics["val/loss"] ** 0.5
    print(f"The curve is met to {error:.1e} (root mean square).")
    return error


if __name__ == "__main__":
    main()

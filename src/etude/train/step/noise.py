"""Variational noise: Gaussian noise on the parameters for the forward and backward of a step (Graves 2011)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from etude.base.randomness import seed_of
from etude.base.schedules import ScheduleSection
from etude.base.schedules.values import ScheduledValue

KEY = "train.parameter_noise"


@final
class NoNoise:
    """The noise of a run without any."""

    def begin(self) -> None:
        """Nothing is to be found out."""

    def applied(self, step: int) -> AbstractContextManager[None]:
        """Leave the parameters as they are."""
        del step
        return nullcontext()


@final
class ParameterNoise:
    """Adds draws from N(0, sigma^2) to every trainable parameter of a task, and takes them away again.

    Graves 2011 ("Practical Variational Inference for Neural Networks"), here with one fixed variance: gradients
    are taken at noisy weights, and the step is made from the clean ones. A draw is a function of (seed, stage, step,
    name of the parameter) alone: all batches of a step and all optimizers of a round see the same noise, a resumed run
    sees that of an unbroken one, and a new layer changes no other's. `sigma` may be set between steps.
    """

    def __init__(self, task: nn.Module, sigma: float = 0.0, *, seed: int = 1, stage: str = "") -> None:
        self.sigma = sigma
        self._task = task
        self._seed = seed
        self._stage = stage
        self._noisy: list[tuple[str, nn.Parameter]] = []
        self._generators: dict[torch.device, torch.Generator] = {}
        self.begin()

    def begin(self) -> None:
        """Find out which parameters are trainable now: before a round, in which each optimizer has but its own."""
        named = self._task.named_parameters()
        self._noisy = [(name, p) for name, p in named if p.requires_grad and p.is_floating_point()]

    @contextmanager
    def applied(self, step: int) -> Iterator[None]:
        """Keep the noise of step `step` on the parameters inside the block; every bit of them comes back after it."""
        if not self.sigma:
            yield
            return
        # Copies, for (w + noise) - noise is not w in floating point.
        parameters: list[Tensor] = [parameter for _, parameter in self._noisy]
        kept = [parameter.detach().clone() for parameter in parameters]
        try:
            with torch.no_grad():
                for name, parameter in self._noisy:
                    parameter.add_(self._draw(step, name, parameter))
            yield
        finally:
            with torch.no_grad():
                _restore(parameters, kept)

    def _draw(self, step: int, name: str, parameter: Tensor) -> Tensor:
        device = parameter.device
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
        generator = self._generators[device]
        generator.manual_seed(seed_of(self._seed, self._stage, "parameter noise", step, name))
        # In float32 at least: a draw should not depend on how coarse the parameter is.
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        noise = torch.empty(parameter.shape, dtype=dtype, device=device)
        return noise.normal_(0.0, self.sigma, generator=generator).to(parameter.dtype)


def _restore(parameters: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
    for parameter, former in zip(parameters, kept, strict=True):
        parameter.copy_(former)


def noise_of(
    task: nn.Module, spec: float | ScheduleSection, *, seed: int, stage: str = ""
) -> tuple[NoNoise | ParameterNoise, list[ScheduledValue]]:
    """The noise that `train.parameter_noise` asks for, and what sets it where that is a schedule."""
    if not isinstance(spec, ScheduleSection):
        return (ParameterNoise(task, float(spec), seed=seed, stage=stage) if spec else NoNoise()), []
    noise = ParameterNoise(task, seed=seed, stage=stage)
    return noise, [ScheduledValue(KEY, spec, partial(setattr, noise, "sigma"))]

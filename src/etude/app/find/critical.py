"""The critical batch size, by the noise of the gradient over batches at the same weights."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from etude.app.dry_run import dry_run
from etude.app.find.noise import Measured, NoiseScale, noise_scale
from etude.app.find.prepared import prepared
from etude.base.errors import ConfigError
from etude.base.says import Say, unheard
from etude.data.feeds.feed import Delivery
from etude.data.nest import move
from etude.tasks.config import load_config
from etude.train.job import Job
from etude.train.run import Run
from etude.train.step.gradient import Batches, Gradient
from etude.train.step.hiddens import NoHiddens
from etude.train.step.outcome import Outcome
from etude.train.step.precision import Precision
from etude.train.watch.events import Events
from etude.train.watch.metrics import ScalarLog

TOGETHER: Final = 4
"""Batches whose gradients make that of one large batch."""
FEWEST: Final = 2 * TOGETHER


@dataclass(frozen=True)
class Critical:
    """The noise of the gradient, in batches, and what they hold."""

    scale: NoiseScale
    """In batches of the config."""
    samples: float
    """Samples of such a batch, in the mean."""
    tokens: float
    """Targets of it that the loss counts."""
    batches: int
    """How many were measured."""
    after: int
    """Steps that were trained before."""


def check(batches: int, after: int) -> None:
    """Raise ConfigError for too few batches or steps."""
    for name, least, value in (("--batches", FEWEST, batches), ("--after", 0, after)):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, but is {value}.")


def critical(
    config: str, overrides: Sequence[str] = (), *, batches: int = 64, after: int = 50, say: Say = unheard
) -> Critical:
    """Train `after` steps of a config, then measure the noise of the gradient over `batches` further batches.

    With as many samples in a step as the noise scale says, a run needs about twice the fewest steps that it could do
    with, and twice the least data (McCandlish et al. 2018, "An Empirical Model of Large-Batch Training"). It is that
    of the weights at that step, and usually grows in training. Gradients are those of the task's loss in float32,
    before clipping, without the terms of `[loss.terms]`. Raises ConfigError.
    """
    check(batches, after)
    asked = ["--train.max_duration", f"{after + batches} steps", "--train.sanity_batches", "0"]
    with dry_run(load_config(config, [*overrides, *asked]), "find", say) as (job, _):
        run = prepared(job)
        _train(run, after)
        return _measured(run, job, batches - batches % TOGETHER)


def _train(run: Run, steps: int) -> None:
    """Take so many steps."""
    while run.state.progress.step < steps:
        with closing(run.groups()) as groups:  # type: ignore[type-var]
            for group in islice(groups, steps - run.state.progress.step):
                run.step(group)


def _measured(run: Run, job: Job, batches: int) -> Critical:
    """Measure the gradients of so many batches, a multiple of `TOGETHER`, from where the run stands."""
    after, gradients = run.state.progress.step, _Gradients(run, job)
    with closing(_deliveries(run)) as found:  # type: ignore[type-var]
        measured = [gradients.measure(list(islice(found, TOGETHER))) for _ in range(batches // TOGETHER)]
    return Critical(
        scale=noise_scale(measured, TOGETHER, seed=job.seed),
        samples=gradients.samples / batches,
        tokens=gradients.tokens / batches,
        batches=batches,
        after=after,
    )


def _deliveries(run: Run) -> Iterator[Delivery]:
    """The batches that come next, epoch after epoch, though no step is taken."""
    while True:
        with closing(run.groups()) as groups:  # type: ignore[type-var]
            for group in groups:
                yield from group
        progress = run.state.progress
        run.state.progress = progress._replace(epoch=progress.epoch + 1, epoch_done=0, batch_in_epoch=0)
        run.state.position = None


class _Gradients:
    """The gradients of batches at the present weights."""

    def __init__(self, run: Run, job: Job) -> None:
        self._slots = run.learner.slots
        self._progress = run.state.progress
        self._device = run.learner.device
        self.samples = 0
        self.tokens = 0.0
        """Targets so far."""
        self._gradient = Gradient(
            run.learner.task,
            device=self._device,
            precision=Precision("float32", self._device),
            seed=job.seed,
            stage=job.stage,
            say=job.say,
            hiddens=NoHiddens(),
            term_weights=job.term_weights,
            events=Events(()),
            scalars=ScalarLog(),
        )

    def measure(self, several: Sequence[Delivery]) -> Measured:
        """Squared norms of the gradients of some batches, and of their mean."""
        small = torch.zeros((), dtype=torch.float64, device=self._device)
        sums: list[Tensor] = []
        for delivery in several:
            found = self._of(delivery)
            small += _squared(found)
            if sums:
                torch._foreach_add_(sums, found)
            else:
                sums = [gradient.clone() for gradient in found]
        size = len(several)
        return Measured(float(small) / size, float(_squared(sums)) / size**2)

    def _of(self, delivery: Delivery) -> list[Tensor]:
        """The gradient of one batch, over all optimizers; a parameter that has none, has zeros."""
        self._progress = self._progress._replace(step=self._progress.step + 1)  # dropout is drawn anew
        batches = Batches([move(delivery.batch, self._device)], [True], self._progress)
        found: list[Tensor] = []
        for slot in self._slots:
            outcome = Outcome()
            with slot.alone():
                slot.drop_gradients()
                self._gradient.backward(slot, batches, outcome)
                found += [_dense(parameter) for parameter in slot.parameters]
                slot.drop_gradients()
            self.tokens += float(outcome.tokens) / len(self._slots)
        self.samples += delivery.samples
        return found


def _dense(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad


def _squared(gradients: Sequence[Tensor]) -> Tensor:
    """The squared norm of all together."""
    return torch.stack([gradient.double().square().sum() for gradient in gradients]).sum()

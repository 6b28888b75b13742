"""The running statistics of a run's model, computed anew over its training data."""

from collections.abc import Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path

from torch import Tensor

from etude.app.runs.run import Run
from etude.base.errors import ConfigError
from etude.base.says import Say
from etude.data.nest import move
from etude.train.device import choose_device
from etude.train.evaluate import undisturbed
from etude.train.step.batch_norm import renew_statistics
from etude.train.step.pieces import evaluated
from etude.train.step.precision import Precision


def with_new_statistics(run: Run, checkpoint: Path, most: int | None, say: Say) -> tuple[Mapping[str, Tensor], int]:
    """The weights in a folder with statistics of batch normalisation over an epoch of training data, or over its first
    `most` batches; and how many batches there were.

    Batches are those of training, and what is drawn at random is drawn by the run's seed.
    """
    if most is not None and most < 1:
        raise ConfigError(f"--recompute-statistics must be at least 1 batch, but is {most}.")
    data = run.data("train")
    config, device = run.loaded.config, choose_device("auto")
    task = run.trained(str(checkpoint))
    data.attend(task)
    precision = Precision(config.train.precision, device)
    feed = data.feed("train", training=True, say=say)
    step, deliveries = evaluated(
        task,
        task.step_without_learning,
        feed.epoch(0),
        steps=config.train.tbptt_steps,
        carry=config.train.carry_hiddens,
    )

    def forward(batch: object) -> None:
        with precision.forward():
            step(move(batch, device))

    with undisturbed(config.run.seed), closing(feed):
        task.metrics = task.configure_metrics()
        count = renew_statistics(task, (delivery.batch for delivery in islice(deliveries, most)), forward)
    return task.cpu().state_dict(), count

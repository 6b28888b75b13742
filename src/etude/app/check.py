"""What can be known of a run before it is trained: data, shapes, memory, time; nothing of it stays on the disk."""

import dataclasses
import math
import os
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from etude.app.dry_run import dry_run
from etude.app.layout import batches
from etude.app.phases import Phases, told
from etude.app.runs.folder import CONFIG, compare
from etude.base.config.loading import Loaded
from etude.base.errors import StorageError
from etude.base.horizon import Horizon
from etude.base.says import Say
from etude.callbacks.line import paced, span
from etude.data.feeds.feed import Feed
from etude.tasks.config import Config, LoadedConfig
from etude.tasks.kept import stored_processor
from etude.tasks.own import task_type
from etude.tasks.task_type import TOKENIZERS
from etude.train.fit import Job, as_durations
from etude.train.fit import prepare as prepare_run
from etude.train.interrupt import Interrupts
from etude.train.length import horizon as horizon_of
from etude.train.run import Run
from etude.train.step.precision import Precision

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WARM_STEPS, STEPS = 2, 8
SECONDS = 20.0
"""Steps are measured no longer than this."""

MIB = 2**20


@dataclass(frozen=True)
class Fact:
    """One thing found out."""

    name: str
    told: str

    def __str__(self) -> str:
        """As a line."""
        return f"{self.name:<10}  {self.told}"


def check(loaded: LoadedConfig, say: Say = print) -> Iterator[Fact]:
    """Find out, one thing after the other, what a run of this config would be; each fact as soon as it is known.

    Everything is read, built and computed as in training, in a folder that is removed afterwards. Raises what
    training would raise.
    """
    folder = loaded.config.folder
    for note in loaded.notes:
        say(note)
    yield Fact("config", f"{loaded.path}: valid; the run's folder is {folder}, {_standing(loaded, folder)}")
    with dry_run(loaded, "check", say) as (job, config):
        if config.data.test is not None:
            yield Fact("test", _test(config, say))
        yield from _facts(job)


def _test(config: Config, say: Say) -> str:
    """How large the test split is."""
    kind = task_type(config)
    held = kind.open(config, ["test"], say, stored_processor(kind, config, config.folder / TOKENIZERS))
    return held.size("test")


def _facts(job: Job) -> Iterator[Fact]:
    """What the run is, tried out on the validation data and in a few steps."""
    run = prepare_run(job, Interrupts())
    device = run.learner.device
    yield Fact("model", _model(run.learner.task))
    if isinstance(job.structure, Phases):
        yield from (Fact("growth", told(one)) for one in job.structure.changes)
    yield Fact("device", f"{device}, {Precision(job.config.precision, device).name}")
    begun = perf_counter()
    run.begin()
    yield Fact("validation", _validation(run.validation.tried, job.val, perf_counter() - begun))
    taken = _take(run)
    yield Fact("batch", f"the first: {taken.shapes}; loss {taken.loss:.4g} after {len(taken.seconds)} steps")
    yield Fact("step", f"{taken.seconds_a_step:.3g} s, {paced(run.state.progress, taken.tokens_a_second)}")
    yield Fact("memory", memory(run))
    horizon = job.horizon or horizon_of(as_durations(job.config.max_duration), job.train, job.config.accumulate)
    yield from _lengths(horizon, taken.seconds_a_step)


def _model(task: nn.Module) -> str:
    """How many parameters there are, and of them are trained."""
    count = _count(task.parameters())
    trained = _count(_trained(task.parameters()))
    return f"{count:,} parameters" + ("" if trained == count else f", {trained:,} of them trained")


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _trained(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def _validation(tried: int, feed: Feed | None, seconds: float) -> str:
    """How trying out the validation went."""
    if feed is None:
        return "none: data.val is not set, so best is last"
    if tried == 0:
        return "not tried: train.sanity_batches is 0"
    if not feed.batches:
        return f"tried with {batches(tried)}"
    tried = min(tried, feed.batches)
    whole = span(seconds / tried * feed.batches)
    return f"tried with {batches(tried)} of {feed.batches:,}; all of it takes about {whole}"


class _Taken(NamedTuple):
    """A few steps that were taken."""

    shapes: str
    """What the first batch holds."""
    loss: float
    """That of the last step."""
    seconds: Sequence[float]
    tokens: Sequence[int]

    @property
    def measured(self) -> slice:
        """The steps whose time counts: those after the first ones, which are slow."""
        return slice(min(WARM_STEPS, len(self.seconds) - 1), None)

    @property
    def seconds_a_step(self) -> float:
        """How long a step takes."""
        seconds = self.seconds[self.measured]
        return sum(seconds) / len(seconds)

    @property
    def tokens_a_second(self) -> float:
        """How many targets are learnt from in a second."""
        return sum(self.tokens[self.measured]) / max(sum(self.seconds[self.measured]), 1e-9)


def _take(run: Run) -> _Taken:
    """Take a few steps, and measure them."""
    seconds: list[float] = []
    tokens: list[int] = []
    shapes, begun = "", perf_counter()
    groups = run.groups()
    for group in islice(groups, WARM_STEPS + STEPS):
        shapes = shapes or ", ".join(shapes_of(group[0].batch))
        start = perf_counter()
        before, now = run.step(group)
        _wait_for(run.learner.device)
        seconds.append(perf_counter() - start)
        tokens.append(now.tokens - before.tokens)
        if perf_counter() - begun > SECONDS:
            break
    groups.close()  # type: ignore[attr-defined]
    run.log()
    return _Taken(shapes, run.record.last.get("train/loss", math.nan), seconds, tokens)


def _lengths(horizon: Horizon, seconds: float) -> Iterator[Fact]:
    """How long an epoch and the run are, where steps take so many seconds."""
    for name, steps in (("epoch", horizon.steps_per_epoch), ("run", horizon.steps)):
        if steps is not None:
            yield Fact(name, f"{steps:,.0f} steps, about {span(steps * seconds)} without validation")


def memory(run: Run) -> str:
    """What weights, gradients and optimizer hold, and the most that the steps needed."""
    parameters = list(run.learner.task.parameters())
    whose, peak = _peak(run.learner.device)
    parts = {
        "weights": bytes_of(parameters),
        "gradients": bytes_of(_trained(parameters)),
        "optimizer": sum(bytes_of(slot.state_dict()) for slot in run.learner.slots),
        whose: peak,
    }
    return ", ".join(f"{size / MIB:,.0f} MiB {name}" for name, size in parts.items())


def _peak(device: torch.device) -> tuple[str, int]:
    """The most memory that was needed, and whose it was."""
    if device.type == "cuda":
        return "on the device at most", torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return "of this process at most", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def shapes_of(batch: object, name: str = "batch") -> list[str]:
    """The tensors of a batch by name and shape, the two-dimensional and larger ones of a known class alone."""
    if isinstance(batch, Tensor):
        return [f"{name} {' x '.join(map(str, batch.shape)) or 'scalar'}"]
    return [one for key, part in _parts_of(batch, name) for one in shapes_of(part, key)]


def _parts_of(batch: object, name: str) -> Iterable[tuple[str, object]]:
    """What a batch is made of, by name; nothing of what has no parts."""
    if dataclasses.is_dataclass(batch):
        return _matrices(batch)
    match batch:
        case Mapping():
            return [(str(key), part) for key, part in batch.items()]
        case list() | tuple():
            return [(f"{name}[{index}]", part) for index, part in enumerate(batch)]
    return ()


def _matrices(batch: "DataclassInstance | type[DataclassInstance]") -> Iterator[tuple[str, Tensor]]:
    """Those fields of a class that are tensors of two or more dimensions."""
    for field in dataclasses.fields(batch):
        part = getattr(batch, field.name)
        if isinstance(part, Tensor) and part.ndim > 1:
            yield field.name, part


def bytes_of(nest: object) -> int:
    """Bytes of all tensors in a nest."""
    match nest:
        case Tensor():
            return nest.numel() * nest.element_size()
        case Mapping():
            return sum(map(bytes_of, nest.values()))
        case list() | tuple():
            return sum(map(bytes_of, nest))
    return 0


def _standing(loaded: Loaded[Config], folder: Path) -> str:
    """Whether the run is new, goes on, or cannot be written."""
    if (folder / CONFIG).is_file():
        notes = " ".join(compare(loaded, folder))
        return "which exists: training resumes" + (f" ({notes})" if notes else "")
    _check_writable(folder)
    return "which is new"


def _check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made."""
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise StorageError(f"The run folder {folder} cannot be created: {above} is not a writable folder.")


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

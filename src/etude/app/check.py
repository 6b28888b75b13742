"""What can be known of a run before it is trained: data, shapes, memory, time; nothing of it stays on the disk."""

import dataclasses
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from etude.app.running import build_job
from etude.app.runs.folder import compare
from etude.base.config.loading import Loaded
from etude.base.errors import StorageError
from etude.callbacks.progress import span
from etude.tasks.config import Config
from etude.tasks.own import task_type
from etude.tasks.task_type import TOKENIZERS
from etude.train.fit import Job, as_durations
from etude.train.fit import prepare as prepare_run
from etude.train.interrupt import Interrupts
from etude.train.length import horizon as horizon_of
from etude.train.run import Run
from etude.train.step.precision import Precision

WARM_STEPS, STEPS = 2, 8
SECONDS = 20.0
"""Steps are measured no longer than this."""

MIB = 2**20
Say = Callable[[str], None]


@dataclass(frozen=True)
class Fact:
    """One thing found out."""

    name: str
    told: str


def check(loaded: Loaded[Config], say: Say = print) -> Iterator[Fact]:
    """Find out, one thing after the other, what a run of this config would be; each fact as soon as it is known.

    Everything is read, built and computed as in training, in a folder that is removed afterwards. Raises what
    training would raise.
    """
    folder = loaded.config.folder
    for note in getattr(loaded, "notes", ()):
        say(note)
    yield Fact("config", f"{loaded.path}: valid; the run's folder is {folder}, {_standing(loaded, folder)}")
    with tempfile.TemporaryDirectory(prefix="etude-check-") as temporary:
        elsewhere = _moved(loaded, Path(temporary))
        with loaded.naming_places():
            yield from _facts(elsewhere, say)


def _facts(loaded: Loaded[Config], say: Say) -> Iterator[Fact]:
    config = loaded.config
    folder = config.folder
    folder.mkdir(parents=True)
    job = build_job(loaded, folder, _without_places(say))
    job.folder, job.callbacks, job.loggers = None, (), ()
    if config.data.test is not None:
        kind = task_type(config)
        held = kind.open(config, ["test"], say, kind.processor(config, folder / TOKENIZERS))
        yield Fact("test", held.size("test"))
    try:
        run = prepare_run(job, Interrupts())
        yield from _model(run, config.train.precision)
        begun = perf_counter()
        run.begin()
        yield from _sanity(run, job, perf_counter() - begun)
        yield from _steps(run, job)
    finally:
        job.train.close()
        if job.val is not None:
            job.val.close()


def _model(run: Run, precision: str) -> Iterator[Fact]:
    parameters = list(run.learner.task.parameters())
    count = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    yield Fact("model", f"{count:,} parameters" + ("" if trained == count else f", {trained:,} of them trained"))
    yield Fact("device", f"{run.learner.device}, {Precision(precision, run.learner.device).name}")


def _sanity(run: Run, job: Job, seconds: float) -> Iterator[Fact]:
    if job.val is None:
        yield Fact("validation", "none: data.val is not set, so best is last")
    elif run.validation.tried == 0:
        yield Fact("validation", "not tried: train.sanity_batches is 0")
    else:
        tried = run.validation.tried
        whole = (
            f"; all {job.val.batches:,} batches take about {span(seconds / tried * job.val.batches)}"
            if job.val.batches
            else ""
        )
        yield Fact("validation", f"{tried} batches work{whole}")


def _steps(run: Run, job: Job) -> Iterator[Fact]:
    """Take a few steps, and tell what they show."""
    times: list[float] = []
    tokens: list[int] = []
    shapes, begun = "", perf_counter()
    groups = run.groups()
    for group in islice(groups, WARM_STEPS + STEPS):
        shapes = shapes or ", ".join(shapes_of(group[0].batch))
        start = perf_counter()
        before, now = run.step(group)
        _wait_for(run.learner.device)
        times.append(perf_counter() - start)
        tokens.append(now.tokens - before.tokens)
        if perf_counter() - begun > SECONDS:
            break
    groups.close()  # type: ignore[attr-defined]
    run.log()
    yield Fact("batch", f"the first: {shapes}; loss {run.record.last['train/loss']:.4g} after {len(times)} steps")
    measured = slice(min(WARM_STEPS, len(times) - 1), None)
    seconds = sum(times[measured]) / len(times[measured])
    rate = sum(tokens[measured]) / max(sum(times[measured]), 1e-9)
    yield Fact("step", f"{seconds:.3g} s, {rate:,.0f} tokens/s")
    yield Fact("memory", memory(run))
    horizon = horizon_of(as_durations(job.config.max_duration), job.train, job.config.accumulate)
    if horizon.steps_per_epoch is not None:
        each = horizon.steps_per_epoch
        yield Fact("epoch", f"{each:,.0f} steps, about {span(each * seconds)} without validation")
    if horizon.steps is not None:
        yield Fact("run", f"{horizon.steps:,.0f} steps, about {span(horizon.steps * seconds)} without validation")


def memory(run: Run) -> str:
    """What weights, gradients and optimizer hold, and the most that the steps needed."""
    parameters = list(run.learner.task.parameters())
    weights = sum(p.numel() * p.element_size() for p in parameters)
    gradients = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    moments = sum(bytes_of(slot.state_dict()) for slot in run.learner.slots)
    if run.learner.device.type == "cuda":
        peak, whose = torch.cuda.max_memory_allocated(run.learner.device), "on the device at most"
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak, whose = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of this process at most"
    parts = {"weights": weights, "gradients": gradients, "optimizer": moments, whose: peak}
    return ", ".join(f"{size / MIB:,.0f} MiB {name}" for name, size in parts.items())


def shapes_of(batch: Any, name: str = "batch") -> list[str]:
    """The tensors of a batch by name and shape, the two-dimensional and larger ones of a known class alone."""
    if isinstance(batch, torch.Tensor):
        return [f"{name} {' x '.join(map(str, batch.shape)) or 'scalar'}"]
    if dataclasses.is_dataclass(batch):
        fields = ((field.name, getattr(batch, field.name)) for field in dataclasses.fields(batch))
        return [one for key, part in fields if getattr(part, "ndim", 0) > 1 for one in shapes_of(part, key)]
    if isinstance(batch, Mapping):
        return [one for key, part in batch.items() for one in shapes_of(part, str(key))]
    if isinstance(batch, list | tuple):
        return [one for index, part in enumerate(batch) for one in shapes_of(part, f"{name}[{index}]")]
    return []


def bytes_of(nest: Any) -> int:
    """Bytes of all tensors in a nest."""
    if isinstance(nest, torch.Tensor):
        return nest.numel() * nest.element_size()
    if isinstance(nest, Mapping):
        return sum(bytes_of(part) for part in nest.values())
    return sum(bytes_of(part) for part in nest) if isinstance(nest, list | tuple) else 0


def _standing(loaded: Loaded[Config], folder: Path) -> str:
    """Whether the run is new, goes on, or cannot be written."""
    if (folder / "config.toml").is_file():
        notes = compare(loaded, folder)
        return "which is there already: training goes on" + (f" ({' '.join(notes)})" if notes else "")
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise StorageError(f"The run folder {folder} cannot be made: {above} is no folder that can be written.")
    return "which is new"


def _moved(loaded: Loaded[Config], folder: Path) -> Loaded[Config]:
    """The same run, in another place."""
    run = loaded.config.run.model_copy(update={"dir": folder})
    data = {**loaded.data, "run": {**loaded.data["run"], "dir": str(folder)}}
    return dataclasses.replace(loaded, config=loaded.config.model_copy(update={"run": run}), data=data)


def _without_places(say: Say) -> Say:
    """Say all but where the run lies, which here is a folder that goes away."""
    return lambda text: None if text.startswith("Run folder") else say(text)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""What must be the same on all ranks: config, data, code, versions, and the weights that they begin with."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import torch

from etude.base.config.composing import dotted
from etude.base.config.nest import leaves
from etude.base.errors import ConfigError, DistributedError
from etude.train.job import Job
from etude.train.step.precision import Precision
from etude.train.task import Task
from etude.train.together import hashed
from etude.train.world import World
from etude.train.world.sharding import Sharding, Whole

_SHOWN = 60
"""Characters of a value that a message shows."""


def check_same(world: World, job: Job) -> None:
    """Raise DistributedError, which names the first difference, where another rank has been given something else."""
    if world.size > 1:
        _compare(world, _what_is_given(job))


def check_pass(world: World, task: Task, about: Mapping[str, str]) -> None:
    """Raise DistributedError where another rank has other weights, or is asked for another pass than `about` tells."""
    if world.size > 1:
        tensors = {**dict(task.named_parameters()), **dict(task.named_buffers())}
        _compare(world, {**about, **_versions(), **{name: str(hashed(tensor)) for name, tensor in tensors.items()}})


def _compare(world: World, own: Mapping[str, str]) -> None:
    """Raise DistributedError, which names the first difference, where another rank has something else than this one."""
    first, *others = world.gather(own)
    for rank, given in enumerate(others, start=1):
        for name in {**first, **given}:  # in the same order on all ranks, so that they name the same difference
            if first.get(name) != given.get(name):
                raise DistributedError(
                    f"Rank {rank} has another {name} than rank 0: {_shown(given, name)} instead of "
                    f"{_shown(first, name)}. All ranks must be started by the same command, with the same files."
                )


def _what_is_given(job: Job) -> dict[str, str]:
    config = {dotted(place): json.dumps(value, default=str) for place, value in leaves(job.about)}
    return config | {f"content of {name}": content for name, content in job.contents.items()} | _versions()


def _versions() -> dict[str, str]:
    return {
        "version of etude": version("etude"),
        "version of torch": torch.__version__,
        "version of numpy": np.__version__,
        "version of Python": platform.python_version(),
    }


def _shown(given: Mapping[str, str], name: str) -> str:
    value = given.get(name, "nothing")
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."


def spread(world: World, task: Task) -> None:
    """Let all ranks begin with the weights and buffers of the first."""
    if world.size > 1:
        world.spread([tensor.detach() for tensor in (*task.parameters(), *task.buffers())])


def sharded(job: Job, world: World, device: torch.device) -> Sharding:
    """Let all ranks begin with the weights of the first, whole or sharded as the config says.

    Raises ConfigError for what cannot be done with sharded weights.
    """
    spread(world, job.task)
    if job.distributed.strategy != "fsdp" or world.size == 1:
        return Whole()
    refused = {
        "train.compile": job.config.compile,
        'train.precision = "float16"': job.config.precision == "float16",
        "train.parameter_noise": job.config.parameter_noise != 0.0,
        'distributed.reduce = "local"': job.distributed.reduce == "local",
    }
    if wrong := [name for name, is_asked in refused.items() if is_asked]:
        raise ConfigError(f'distributed.strategy = "fsdp" cannot be used with {", ".join(wrong)}; take "ddp".')
    from etude.train.world.sharded import Sharded  # a second's import, which other runs do without

    precision = Precision(job.config.precision, device)
    sharding = Sharded(world, device, precision.dtype if precision.dtype is torch.bfloat16 else None)
    sharding.shard(job.task)
    return sharding

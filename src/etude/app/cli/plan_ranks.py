"""`etude plan CONFIG --world N`: what each of many ranks holds, sends and takes."""

import json
from argparse import Namespace
from dataclasses import asdict
from typing import Any

from etude.app.cli.picture import write_file
from etude.app.cli.streams import flushed, put, say
from etude.app.plan.ranks.picture import svg
from etude.app.plan.ranks.ranks import Given, Rank, Ranks, plan_ranks
from etude.app.plan.ranks.speed import read_speed
from etude.app.plan.ranks.text import text
from etude.base.errors import ConfigError
from etude.tasks.config import LoadedConfig


def draw_ranks(loaded: LoadedConfig, arguments: Namespace) -> None:
    """Print the plan of a run for some numbers of ranks, and draw it if asked."""
    given = Given(
        speed=read_speed(arguments.speed, loaded.config.folder),
        bandwidth=arguments.bandwidth,
    )
    made = plan_ranks(loaded, worlds_of(arguments.world), given, say)
    with flushed():
        put(json.dumps(as_json(made), ensure_ascii=False, allow_nan=False) if arguments.json else "\n".join(text(made)))
    if arguments.output is not None:
        write_file(arguments.output, svg(made))


def worlds_of(given: str) -> list[int]:
    """Numbers of ranks, separated by commas, each once and in order.

    >>> worlds_of("64,8,8")
    [8, 64]
    """
    try:
        return sorted({int(one) for one in given.split(",")})
    except ValueError:
        raise ConfigError(f"--world must be a number of ranks, or several such as 8,64,1024, but is {given}.") from None


def check_world(arguments: Namespace) -> None:
    """Refuse flags that do not go together. Raises ConfigError."""
    if arguments.world is None:
        for flag in ("speed", "bandwidth"):
            if getattr(arguments, flag) is not None:
                raise ConfigError(f"--{flag} is for the plan of many ranks: give --world N as well.")
        return
    for flag in ("steps", "csv"):
        if getattr(arguments, flag) is not None:
            raise ConfigError(f"--{flag} is for the plan of the steps, which --world does not show: leave one out.")


def as_json(made: Ranks) -> dict[str, Any]:
    """The plan as one object: bytes and seconds."""
    return asdict(made) | {"ranks": [_flat(rank) for rank in made.ranks]}


def _flat(rank: Rank) -> dict[str, Any]:
    memory = rank.memory._asdict() | {"total": rank.memory.total}
    seconds = rank.time._asdict() | {"least": rank.time.least, "most": rank.time.most}
    return {
        "world": rank.world,
        "strategy": rank.strategy,
        "samples": rank.samples,
        "memory": memory,
        "sent": rank.sent,
        "seconds": seconds,
    }

"""Which rank this process is, as whoever started it has told it by the environment."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from etude.base.errors import DistributedError

PORTS = range(15_000, 35_000)
"""Below those that Linux gives out by itself; a Slurm step's is found by its job's number."""


@dataclass(frozen=True)
class Place:
    """Which rank a process is, and where the ranks meet."""

    rank: int
    size: int
    local_rank: int
    """Which of the ranks on its machine."""
    address: str
    port: int
    is_kept: bool
    """Whether the launcher keeps the store in which the ranks meet; else the first of them does."""


def find_place(environment: Mapping[str, str]) -> Place | None:
    """The place that the environment tells; None for a process that is alone.

    torchrun tells it by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; `srun` of Slurm by variables of its
    step (a batch script has none of its own: SLURM_NTASKS is what was asked for there, not what runs), `mpirun` by
    those of OpenMPI. Raises DistributedError where something is missing.
    """
    for size, found in (
        ("WORLD_SIZE", _of_torchrun),
        ("SLURM_STEP_NUM_TASKS", _of_slurm),
        ("OMPI_COMM_WORLD_SIZE", _of_mpirun),
    ):
        if _number(environment, size, 1) > 1:
            return found(environment)
    return None


def _of_torchrun(environment: Mapping[str, str]) -> Place:
    return Place(
        rank=_number(environment, "RANK"),
        size=_number(environment, "WORLD_SIZE"),
        local_rank=_number(environment, "LOCAL_RANK", 0),
        address=_text(environment, "MASTER_ADDR"),
        port=_number(environment, "MASTER_PORT"),
        is_kept=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _of_slurm(environment: Mapping[str, str]) -> Place:
    job = _number(environment, "SLURM_JOB_ID") + _number(environment, "SLURM_STEP_ID", 0)
    first = next(hosts(_text(environment, "SLURM_STEP_NODELIST")))
    return Place(
        rank=_number(environment, "SLURM_PROCID"),
        size=_number(environment, "SLURM_STEP_NUM_TASKS"),
        local_rank=_number(environment, "SLURM_LOCALID"),
        address=environment.get("MASTER_ADDR") or first,
        port=_number(environment, "MASTER_PORT", PORTS[job % len(PORTS)]),
        is_kept=False,
    )


def _of_mpirun(environment: Mapping[str, str]) -> Place:
    return Place(
        rank=_number(environment, "OMPI_COMM_WORLD_RANK"),
        size=_number(environment, "OMPI_COMM_WORLD_SIZE"),
        local_rank=_number(environment, "OMPI_COMM_WORLD_LOCAL_RANK"),
        address=_text(environment, "MASTER_ADDR"),
        port=_number(environment, "MASTER_PORT"),
        is_kept=False,
    )


def _text(environment: Mapping[str, str], name: str) -> str:
    found = environment.get(name, "")
    if not found:
        raise DistributedError(
            f"This process is one of several ranks, but {name} is not set: it must be the same host and port on all "
            f"ranks (MASTER_ADDR, MASTER_PORT). torchrun sets all that is needed."
        )
    return found


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    found = environment.get(name, "")
    if not found and default is not None:
        return default
    found = _text(environment, name)
    if not found.isdecimal():
        raise DistributedError(f"{name} must be a number, but is {found!r}.")
    return int(found)


def hosts(listed: str) -> Iterator[str]:
    """The hosts of a Slurm node list.

    >>> list(hosts("gpu[01-03,7],login")), list(hosts("a-1"))
    (['gpu01', 'gpu02', 'gpu03', 'gpu7', 'login'], ['a-1'])
    """
    for entry in re.findall(r"[^,\[]+(?:\[[^\]]*\])?[^,\[]*", listed):
        match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", entry)
        if match is None:
            yield entry
            continue
        before, inside, after = match.groups()
        for part in inside.split(","):
            low, _, high = part.partition("-")
            for number in range(int(low), int(high or low) + 1):
                yield f"{before}{number:0{len(low)}}{after}"

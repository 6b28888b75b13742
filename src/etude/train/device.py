"""Devices: what the machine has, and what it computes natively."""

from pathlib import Path

import torch

from etude.base.errors import ConfigError


def choose_device(name: str, key: str = "train.device") -> torch.device:
    """The device called `name`; `auto` is the first of cuda, mps and cpu.

    Raises ConfigError for one that is not there, as the value of `key`.
    """
    if name == "auto":
        return _first_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{key} must be auto, cuda, cuda:N, mps or cpu, but is {name!r}.") from None
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not there.get(device.type, False):
        raise ConfigError(f"{key} is {name!r}, but this machine has no such device.")
    return device


def _first_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not _cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return set()
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return set(next(flags, "").split())

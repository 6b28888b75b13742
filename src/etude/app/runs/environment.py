"""What a run was made with: versions, hardware, commit and command, and never an environment variable."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("etude", "torch", "numpy", "pydantic", "tokenizers", "safetensors", "sacrebleu")
GIT_SECONDS = 3.0
"""Longer than this git is not waited for."""


def environment() -> dict[str, Any]:
    """Versions, hardware, commit of the current folder, and the command line, as JSON."""
    return {
        "versions": versions(),
        "hardware": hardware(),
        "commit": commit(Path.cwd()),
        "command": list(sys.argv),
        "folder": str(Path.cwd()),
    }


def versions() -> dict[str, str]:
    """The versions of Python, the system, and the packages that decide a run's bits; those installed alone."""
    return {"python": platform.python_version(), "system": platform.platform(), **_installed()}


@cache
def _installed() -> Mapping[str, str]:
    """The versions of packages, as they were when this process first asked: what is imported stays what it is."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, threads, memory in bytes, and accelerators."""
    import torch

    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            gpus.append({"name": device.name, "memory": device.total_memory})
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": _memory(),
        "gpus": gpus,
    }


def commit(folder: Path) -> dict[str, Any] | None:
    """The commit of the repository that `folder` lies in, and whether files differ from it; None without one."""
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": head, "dirty": None if changed is None else bool(changed)}


def _git(folder: Path, *command: str) -> str | None:
    """What git says; None where there is no git, no repository, or no answer in time."""
    try:
        # Without optional locks: git would refresh its index, and a run writes nothing outside its folder.
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "--no-optional-locks", "-C", str(folder), *command],  # noqa: S607 - the user's own git
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None

"""What an accelerator proves, in one table: `make gpu`, or python benchmarks/gpu.py --steps 200.

Each line is a run of a language model of Python's own documentation: how many target tokens a second, how much of the
time waited for data, the memory at its peak, the share of the device's arithmetic that was used, and how often a step
waited for the device (by torch's own debug mode, which tells of each synchronisation). Where there is no GPU the same
runs are taken on the CPU, small, with a dash for what only a GPU can tell.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch._dynamo.utils import counters

import etude

RECIPE = Path(__file__).parents[1] / "recipes" / "language_model.toml"
LARGE: Mapping[str, object] = {"model.layers": 12, "model.d_model": 768, "model.heads": 12, "train.batch_size": 64}
SMALL: Mapping[str, object] = {"model.layers": 2, "model.d_model": 64, "model.heads": 2, "train.batch_size": 4}
CASES: Mapping[str, Mapping[str, object]] = {
    "float32": {"train.precision": "float32"},
    "bfloat16": {"train.precision": "bfloat16"},
    "bfloat16, packed documents": {"train.precision": "bfloat16", "data.packing": "documents"},
    "bfloat16, 2 loader workers": {"train.precision": "bfloat16", "data.workers": 2},
    "bfloat16, recomputed activations": {
        "train.precision": "bfloat16",
        "distributed.checkpoint_activations": True,
    },
    "bfloat16, compiled": {"train.precision": "bfloat16", "train.compile": True},
}


class Line(NamedTuple):
    """What one case has shown."""

    case: str
    tokens: float
    waiting: float
    memory: float | None
    used: float | None
    """The share of the device's arithmetic, as `time/flops_utilization` tells it."""
    syncs: float | None
    loss: float
    graphs: int


def main() -> int:
    """Run every case, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    asked = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for case in asked.cases:
            try:
                lines.append(measured(case, asked.steps, Path(folder)))
            except etude.errors.EtudeError as error:
                sys.stdout.write(f"{case}: {error}\n")
    sys.stdout.write(table(lines))
    return 0


def measured(case: str, steps: int, folder: Path) -> Line:
    """Train, and read what the run has logged; the first half of the steps, in which all is made, is left out."""
    there = torch.cuda.is_available()
    if there:
        torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()
    counters.clear()
    counted: list[int] = []
    size = LARGE if there else SMALL
    name = case.replace(", ", "-").replace(" ", "-")
    with counting(counted):
        overrides = {
            **size,
            "run.dir": str(folder),
            "run.name": name,
            "train.max_duration": f"{steps} steps",
            "train.eval_every": f"{steps} steps",
            "train.save_every": f"{steps} steps",
            "train.log_every": f"{max(1, steps // 20)} steps",
            "train.limit_val": 4,
            "optimizer.type": "adamw",
            "optimizer.learning_rate": 1e-3,
            "log.progress": False,
            **CASES[case],
        }
        etude.train(RECIPE, overrides)
        path = folder / name / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    late = [row for row in rows if "train/loss" in row and row["step"] > steps // 2]
    graphs = counters["stats"].get("unique_graphs", 0)
    return Line(
        case,
        tokens=median(row["train/tokens_per_second"] for row in late),
        waiting=median(row["time/loader_share"] for row in late),
        memory=torch.cuda.max_memory_allocated() / 2**30 if there else None,
        used=median(row.get("time/flops_utilization", 0.0) for row in late) if there else None,
        syncs=len(counted) / steps if there else None,
        loss=late[-1]["train/loss"],
        graphs=graphs,
    )


@contextmanager
def counting(found: list[int]) -> Iterator[None]:
    """Note each synchronisation with the device that torch tells of; logging, validation and saving have theirs too."""
    if not torch.cuda.is_available():
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    show = warnings.showwarning

    def note(message: Warning | str, *about: Any, **more: Any) -> None:
        if "synchroniz" in str(message):
            found.append(1)
            return
        show(message, *about, **more)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note
            yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def table(lines: list[Line]) -> str:
    """The lines as a Markdown table."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    head = [
        f"{device}, torch {torch.__version__}",
        "",
        "| run | tokens/s | waiting for data | memory, GiB | arithmetic used | syncs a step | graphs | last loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(row_of, lines)]) + "\n"


def row_of(line: Line) -> str:
    """One line of the table."""
    memory = "-" if line.memory is None else f"{line.memory:.1f}"
    used = "-" if line.used is None else f"{line.used:.1%}"
    syncs = "-" if line.syncs is None else f"{line.syncs:.2f}"
    return (
        f"| {line.case} | {line.tokens:,.0f} | {line.waiting:.1%} | {memory} | {used} | {syncs} | {line.graphs} | "
        f"{line.loss:.3f} |"
    )


if __name__ == "__main__":
    sys.exit(main())

"""What a save of a run with sharded weights takes of each rank: memory above training, and time that training waits.

Layers of one width on the CPU, with Adam: a checkpoint holds three times the parameters. Linux only.

    python benchmarks/sharded_saves.py --ranks 2 --layers 24
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import Section, print_section
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import etude
from etude.train.world.store import keep_store

WIDTH = 2048


class Layers(etude.Task):
    """Linear layers of one width, each of which is sharded."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)])

    def training_step(self, batch: list[Tensor]) -> etude.Loss:
        states = batch[0]
        for layer in self.layers:
            states = layer(states)
        return etude.Loss(states.square().sum(), len(states))


class Watching(etude.Callback):
    """Resident memory before a save and at its peak, and how long the save kept training waiting."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self._begun = 0.0

    def on_step_end(self, run: Any, outcome: Any) -> None:
        del outcome
        if run.progress.step % 2 == 0:
            ctypes.CDLL(None).malloc_trim(0)  # what was freed, the C library keeps; a save would take it first
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            self.found = [_status("VmRSS")]
            self._begun = time.perf_counter()

    def on_save(self, run: Any, folder: Any) -> None:
        del run, folder
        self.found.append(time.perf_counter() - self._begun)

    def on_fit_end(self, run: Any, reason: Any) -> None:
        del run, reason
        self.found.append(_status("VmHWM"))


def _status(name: str) -> float:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def rank(layers: int, folder: Path) -> None:
    """One rank: print what it has seen."""
    torch.set_num_threads(1)
    watching = Watching()
    trainer = etude.Trainer(
        max_duration="2 steps",
        save_every="2 steps",
        batch_size=4,
        device="cpu",
        run_dir=folder,
        distributed={"strategy": "fsdp"},
        callbacks=[watching],
        progress=False,
        say=lambda _: None,
    )
    trainer.fit(Layers(layers), TensorDataset(torch.randn(16, WIDTH)))
    print(json.dumps(watching.found), flush=True)


def section(*, ranks: int, layers: int) -> Section:
    store = keep_store()
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    with tempfile.TemporaryDirectory(dir=".") as folder:
        command = [sys.executable, __file__, "--layers", str(layers), "--as-rank", str(Path(folder) / "run")]
        processes = [
            subprocess.Popen(  # noqa: S603 - our own command
                command, env={**shared, "RANK": str(one), "LOCAL_RANK": str(one)}, stdout=subprocess.PIPE, text=True
            )
            for one in range(ranks)
        ]
        answers = [json.loads(process.communicate()[0]) for process in processes]
    size = layers * WIDTH**2 * 4 * 3
    return Section(
        "Saves of sharded weights",
        f"{ranks} ranks, {layers} layers of width {WIDTH:,}, Adam: a checkpoint of {size / 2**20:,.0f} MiB.",
        ["rank", "resident before, MiB", "at the peak, MiB", "more, of the checkpoint", "training waits, s"],
        [
            [str(one), _mebibytes(before), _mebibytes(peak), f"{(peak - before) / size:.2f}", f"{waits:.1f}"]
            for one, (before, waits, peak) in enumerate(answers)
        ],
    )


def _mebibytes(count: float) -> str:
    return f"{count / 2**20:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--as-rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.as_rank is not None:
        rank(arguments.layers, arguments.as_rank)
        return
    print_section(section(ranks=arguments.ranks, layers=arguments.layers), markdown=arguments.markdown)


if __name__ == "__main__":
    main()

"""Memory of a training step as `etude plan --world 1` foresees it, against what the step then needs.

Three models, each in a fresh process that takes three steps with the largest batch of its run. Measured in the third,
in two ways. Allocated: what torch's allocator has handed out and not got back, of which torch's profiler reports every
change. Resident: the kernel's high-water mark of the process, over what it held before the step, with freed memory
given back at once (MALLOC_MMAP_THRESHOLD_); a kernel's pages that are never touched are not in it. Linux only.

    python benchmarks/plan_memory.py
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import Section, print_section

COMMON = '\n[train]\nmax_duration = "1 epoch"\nsanity_batches = 0\ndevice = "cpu"\nprecision = "float32"\n'
CONFIGS = {
    "decoder of a language model": """
[task]
type = "language_model"
[data]
train = "texts.txt"
block_size = 256
[tokenizer]
type = "char"
[model]
type = "decoder"
layers = 6
heads = 4
d_model = 256
"""
    + COMMON
    + "batch_size = 8\n",
    "translator": """
[task]
type = "translation"
eval_search_samples = 0
[data]
train = "pairs.tsv"
val = "pairs.tsv"
[tokenizer]
type = "word"
[model]
d_model = 256
heads = 4
encoder_layers = 3
decoder_layers = 3
feedforward = 1024
"""
    + COMMON
    + "batch_tokens = 4096\n",
    "BLSTM": """
[task]
type = "classification"
[data]
type = "arrays"
train = "arrays.npz"
val = "arrays.npz"
label = "y"
[model]
type = "blstm"
layers = 3
d_model = 256
"""
    + COMMON
    + "batch_size = 32\n",
}
BLOCKS = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
"""Lets a process give back what it frees, so that its resident memory is what it uses."""


def write_data(folder: Path) -> None:
    """Small data of each kind: random words, and random numbers."""
    import numpy as np

    chance = random.Random(1)
    words = [f"w{number}" for number in range(500)]
    texts = [" ".join(chance.choices(words, k=chance.randint(3, 48))) for _ in range(2000)]
    (folder / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    rows = "".join(f"{text}\t{' '.join(reversed(text.split()))}\n" for text in texts)
    (folder / "pairs.tsv").write_text("source\ttarget\n" + rows, encoding="utf-8")
    numbers = np.random.default_rng(1)
    np.savez(
        folder / "arrays.npz",
        x=numbers.normal(size=(256, 300, 40)).astype(np.float32),
        lengths=numbers.integers(100, 301, 256),
        y=numbers.integers(0, 8, 256),
    )


def write_config(folder: Path, name: str) -> Path:
    path = folder / f"{name.partition(' ')[0].lower()}.toml"
    path.write_text(CONFIGS[name] + f'\n[run]\ndir = "{folder / "runs"}"\n', encoding="utf-8")
    return path


def planned(config: Path) -> int:
    """Bytes that the plan foresees."""
    from etude.app.plan.ranks.ranks import Given, plan_ranks
    from etude.tasks.config import load_config

    return plan_ranks(load_config(config), [1], Given()).ranks[0].memory.total


def status(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("This benchmark reads /proc/self/status, which is there on Linux alone.")


def allocated(prof: Any) -> int:
    """The most that was handed out at once in a profile, over what was there at its begin."""
    changes, left = [], list(prof.profiler.kineto_results.experimental_event_tree())
    while left:
        event = left.pop()
        left += event.children
        if event.tag.name == "Allocation":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    now = most = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        now += change
        most = max(most, now)
    return most


def measure(config: Path) -> dict[str, int]:
    """Bytes of the third step, in this process."""
    from itertools import islice

    import torch

    from etude.app.dry_run import dry_run
    from etude.app.find.prepared import prepared
    from etude.app.plan.ranks.largest import Again, shares
    from etude.base.progress import Progress
    from etude.tasks.config import load_config
    from etude.train.fit import as_durations
    from etude.train.length import horizon
    from etude.train.values import Values

    torch.set_num_threads(1)
    with dry_run(load_config(config), "measure", lambda _: None) as (job, _):
        job.horizon = horizon(as_durations(job.config.max_duration), job.train, job.config.accumulate)
        found = shares(job.train, Values(job.values, job.horizon), [1], 1, 1.0)
        job.train = Again(found.largest[1])
        learner = prepared(job).learner

        def step() -> None:
            learner.step(list(islice(learner.feed.epoch(0), 1)), Progress())

        step()
        states = [value for slot in learner.slots for value in slot.state_dict()["state"].values()]
        kept = sum(p.nbytes for p in learner.task.parameters()) + sum(
            tensor.nbytes for state in states for tensor in state.values()
        )
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # the high-water mark begins anew
        before = status("VmRSS")
        step()
        resident = status("VmHWM") - before
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as prof:
            step()
        return {"allocated": kept + allocated(prof), "resident": kept + resident, "kept": kept}


def measured(config: Path) -> dict[str, int]:
    """The same, of a fresh process."""
    command = [sys.executable, __file__, "--child", str(config)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **BLOCKS})  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(folder: Path, name: str) -> dict[str, int]:
    """Planned and measured bytes of a model."""
    config = write_config(folder, name)
    return {"planned": planned(config), **measured(config)}


def section() -> Section:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_data(folder)
        for name in CONFIGS:
            found = compare(folder, name)
            cells = [f"{found[key] / 2**20:,.1f} MiB" for key in ("kept", "planned", "allocated", "resident")]
            apart = [f"{found['planned'] / found[key] - 1:+.1%}" for key in ("allocated", "resident")]
            rows.append([name, *cells, *apart])
    return Section(
        "Memory of a step, planned and measured",
        "The largest batch of each run, float32, AdamW, one thread. Kept: weights and the optimizer's state. Apart: "
        "the "
        "plan over what torch's allocator handed out, and over resident memory, at their peaks.",
        ["model", "kept", "planned", "allocated", "resident", "apart", "apart"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", metavar="CONFIG", help=argparse.SUPPRESS)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(Path(arguments.child))))
    else:
        print_section(section(), markdown=arguments.markdown)


if __name__ == "__main__":
    main()

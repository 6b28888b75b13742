"""From `etude train` on prepared data to the end of the first step, against `import torch`, in processor time.

Each side is a process of its own, in turns. The run ends right after its first step, by a callback.

    python benchmarks/first_step.py --rounds 5
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import Interleaved, Section, print_section

CONFIG = """
callbacks = ["leaving:Leave"]
[task]
type = "translation"
[data]
train = "pairs.tsv"
val = "pairs.tsv"
[model]
d_model = 32
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 64
[train]
max_duration = "1 step"
batch_size = 8
"""
LEAVING = """
import os
from etude import Callback
class Leave(Callback):
    def on_step_end(self, *_):
        os._exit(0)
"""
TO_THE_FIRST_STEP = """
import os
from etude.__main__ import main
main(["train", "config.toml", "--run.dir", os.environ["RUNS"]])
raise SystemExit("no step was taken")
"""
TORCH, TORCH_LEFT, ETUDE = "import torch", "import torch, left at once", "etude train, to its first step"


def section(rounds: int) -> Section:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
        (folder / "leaving.py").write_text(LEAVING, encoding="utf-8")
        pairs = (f"one two {number}\tuno dos {number}\n" for number in range(200))
        (folder / "pairs.tsv").write_text("source\ttarget\n" + "".join(pairs), encoding="utf-8")
        starts = 0

        def begin() -> float:
            nonlocal starts
            starts += 1
            return run(TO_THE_FIRST_STEP, folder, runs=f"runs/{starts}")

        begin()  # prepares the data and compiles the sources
        sides = {
            TORCH: lambda: run("import torch", folder),
            TORCH_LEFT: lambda: run("import os, torch; os._exit(0)", folder),
            ETUDE: begin,
        }
        costs = Interleaved(sides, clock=children).costs(rounds)
    return Section(
        "First step",
        f"Processor seconds of a process from its start, prepared data, a small translation model: medians of {rounds} "
        f"rounds, alternating. The goal is at most 1.2. The run leaves at once.",
        ["process", "seconds", "of import torch"],
        [[side, f"{costs.median(side):.2f}", f"{costs.ratio(side, TORCH):.2f}"] for side in (TORCH, TORCH_LEFT, ETUDE)],
    )


def run(code: str, folder: Path, *, runs: str = "runs") -> float:
    """Run Python code in a process with one thread; one piece of work."""
    environment = {"OMP_NUM_THREADS": "1", "RUNS": runs, **outer()}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True, capture_output=True)  # noqa: S603 - our own code
    return 1.0


def outer() -> dict[str, str]:
    """What a process needs of this one's environment; that sources are compiled anew is no part of a start."""
    import os

    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def children() -> float:
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    print_section(section(arguments.rounds), markdown=arguments.markdown)


if __name__ == "__main__":
    main()

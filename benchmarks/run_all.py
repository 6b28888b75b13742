"""Run every benchmark and write docs/benchmarks.md, with machine, date and commands.

    python benchmarks/run_all.py                      # about an hour on a quiet machine
    python benchmarks/run_all.py --quick --output /tmp/benchmarks.md

Each script runs in a process of its own. What a benchmark cannot measure here (no data, another system) stands in the
page as the sentence it ended with. Sections that lie in docs/benchmarks/ as files of their own, such as a curve that
took a training run, are put behind the measured ones.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from measuring import ROOT, machine

HERE = Path(__file__).resolve().parent
SCRIPTS: dict[str, tuple[str, str]] = {
    "loop_cost": ("--rounds 40", "--rounds 4"),
    "translation_speed": ("--rounds 12 --steps 12", "--rounds 2 --steps 3"),
    "language_model_speed": ("--rounds 8 --steps 6", "--rounds 2 --steps 2"),
    "lm_loss_memory": ("", ""),
    "transducer_loss": ("--rounds 40", "--rounds 2"),
    "text_baselines": ("", ""),
    "generation": ("--tokens 512", "--tokens 32"),
    "levers": ("--rounds 8 --steps 6", "--rounds 1 --steps 2"),
    "save_cost": ("--saves 8", "--saves 2 --every 5"),
    "sharded_saves": ("--ranks 4", "--layers 2"),
    "seek": ("--repeats 15", "--repeats 3"),
    "first_step": ("--rounds 5", "--rounds 1"),
    "resident": ("--steps 250", "--steps 5"),
    "plan_memory": ("", ""),
    "faults": ("", ""),
    "ranks": ("--rounds 3 --steps 60", "--rounds 1 --steps 5"),
    "loader_share": ("--epochs 3", "--epochs 2"),
    "memory": ("--sizes 100000 1000000 10000000", "--sizes 10000 100000"),
}
HEAD = """# Benchmarks

Written by `{command}` on this machine: {machine}

Both sides of a comparison alternate in one process; figures are medians, ratios are medians of the ratios per round. If
other programs use the machine, the control rows show it in their spread.
"""


def measured(name: str, *, quick: bool) -> str:
    """One script's section; its last words where it failed."""
    options = SCRIPTS[name][1 if quick else 0]
    command = [sys.executable, str(HERE / f"{name}.py"), *shlex.split(options), "--markdown"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own scripts
    if done.returncode == 0:
        return done.stdout.strip() + "\n"
    reason = (done.stderr.strip().splitlines() or ["It ended without a word."])[-1]
    return f"## {name}\n\nNot measured: {reason}\n"


def page(names: list[str], *, quick: bool) -> str:
    command = f"python benchmarks/run_all.py{' --quick' if quick else ''}"
    parts = [HEAD.format(command=command, machine=machine())]
    for name in names:
        print(f"{name} ...", flush=True)
        parts.append(measured(name, quick=quick))
    kept = ROOT / "docs" / "benchmarks"
    parts += [path.read_text("utf-8").strip() + "\n" for path in sorted(kept.glob("*.md"))]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: does everything run?")
    parser.add_argument("--only", nargs="+", choices=list(SCRIPTS), default=list(SCRIPTS))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    text = page(arguments.only, quick=arguments.quick)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, "utf-8")
    print(f"Written: {arguments.output}")


if __name__ == "__main__":
    main()

"""Resident memory of a translation run as batches of new shapes come: what it holds after some steps.

The recipe of Multi30k, its validation left out, in a process of its own as the shell starts it. Linux only.

    python benchmarks/resident.py --steps 250
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import ROOT, Section, data_folder, print_section

from etude.train.watch.record import METRICS, read_rows

POLL_SECONDS = 0.05
SHOWN = (1, 10, 50, 100, 250, 500)


def section(*, steps: int, precision: str) -> Section:
    data = data_folder() / "multi30k"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "etude", "train", str(ROOT / "recipes" / "multi30k.toml")]
        command += ["--run.dir", folder, "--run.name", "run", "--log.progress", "false"]
        command += [
            "--data.train",
            f'{{source = "{data}/train.en", target = "{data}/train.de"}}',
            "--data.val",
            "false",
        ]
        command += ["--train.monitor", "train/loss", "--train.max_duration", f"{steps} steps"]
        command += ["--train.log_every", "1 step", "--train.precision", precision]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - our own command
            seen = watched(process, Path(folder) / "run" / METRICS)
    most = {step: max(held for at, held in seen if at <= step) for step in SHOWN if step <= steps}
    return Section(
        "Resident memory",
        f"Most resident memory of `etude train recipes/multi30k.toml` up to a step, {precision}, "
        f"{os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads; each batch has another shape.",
        ["up to step", "MiB"],
        [[f"{step:,}", f"{held / 2**20:,.0f}"] for step, held in most.items()],
    )


def watched(process: "subprocess.Popen[bytes]", rows: Path) -> list[tuple[int, int]]:
    """(step, resident bytes), seen while the process runs."""
    seen: list[tuple[int, int]] = []
    while process.poll() is None:
        logged = read_rows(rows) if rows.exists() else []
        seen.append((logged[-1]["step"] if logged else 0, resident(process.pid)))
        time.sleep(POLL_SECONDS)
    return seen


def resident(process: int) -> int:
    """Bytes; 0 for a process that is just ending."""
    try:
        lines = Path(f"/proc/{process}/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    print_section(section(steps=arguments.steps, precision=arguments.precision), markdown=arguments.markdown)


if __name__ == "__main__":
    main()

"""BLEU against minutes of a finished run, as a section that run_all.py puts into docs/benchmarks.md.

etude train recipes/multi30k.toml
etude test runs/multi30k
python benchmarks/bleu_curve.py runs/multi30k --output docs/benchmarks/multi30k.md
"""

import argparse
import json
from pathlib import Path
from typing import Any

from measuring import Section, machine, print_section

Row = dict[str, Any]


def read(folder: Path) -> list[Row]:
    """The rows of the run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def minutes(rows: list[Row], step: int) -> float:
    """Minutes from the run's begin to this step, those of earlier starts of a killed run included."""
    return max((row["time/seconds"] for row in rows if row["step"] <= step and "time/seconds" in row), default=0.0) / 60


def section(folder: Path) -> Section:
    """A row for each validation, and what the test search gave, if there was one."""
    rows = read(folder)
    table = [
        [f"{minutes(rows, row['step']):.1f}", f"{row['epoch']:.1f}", f"{row['val/loss']:.3f}", f"{row['val/bleu']:.1f}"]
        for row in rows
        if "val/bleu" in row
    ]
    speeds = sorted(row["train/tokens_per_second"] for row in rows if "train/tokens_per_second" in row)
    tested = [row["test/bleu"] for row in rows if "test/bleu" in row]
    speed = f" {speeds[len(speeds) // 2]:,.0f} target tokens/s (median)." if speeds else ""
    test = f" With the beam, on the test split of the config: {tested[-1]:.2f} BLEU." if tested else ""
    return Section(
        f"BLEU against minutes: {folder.name}",
        f"Validation by greedy search while training.{speed}{test} Machine: {machine()}",
        ["minutes", "epoch", "val/loss", "val/bleu"],
        table,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--output", type=Path, help="write the section there")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    result = section(arguments.run)
    if arguments.output is None:
        print_section(result, markdown=arguments.markdown)
        return
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(result.markdown(), "utf-8")
    print(f"Written: {arguments.output}")


if __name__ == "__main__":
    main()

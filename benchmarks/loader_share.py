"""How long steps on spoken digits wait for their recordings: with 0 and 2 workers, with sound and features kept or not.

Each row is a run of recipes/spoken_digits.toml without validation, on one thread; the first epoch, in which workers
start and caches are made, is left out. The data is that of the recipe.

    python benchmarks/loader_share.py --epochs 3
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import ROOT, Section, data_folder, print_section

AS_THEY_ARE = [f"--data.augment.{name}=0" for name in ("speed", "warp", "gain", "noise")]
KINDS = {
    "changed anew, waves kept": ["--data.keep_waves=true"],
    "changed anew, waves read from files": ["--data.keep_waves=false"],
    "as they are but for masks, waves kept": AS_THEY_ARE,
    "as they are but for masks, features kept": [*AS_THEY_ARE, "--data.keep_features=true"],
}


def trained(data: Path, place: Path, workers: int, epochs: int, given: list[str]) -> list[dict[str, float]]:
    """Train, and give the rows that were logged after the first epoch."""
    name = f"run{len(list(place.glob('run*')))}"
    options = {
        "data.train": data / "train.csv",
        "data.val": "off",
        "data.workers": workers,
        "run.dir": place,
        "run.name": name,
        "train.max_duration": f"{epochs} epochs",
        "train.eval_every": "100 epochs",
        "train.monitor": "train/loss",
        "train.save_outputs": "[]",
        "log.progress": "false",
        "log.tensorboard": "false",
    }
    words = [f"--{key}={value}" for key, value in options.items()]
    command = [sys.executable, "-m", "etude", "train", str(ROOT / "recipes" / "spoken_digits.toml"), *words, *given]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603 - our own command
    rows = map(json.loads, (place / name / "metrics.jsonl").read_text("utf-8").splitlines())
    return [row for row in rows if row.get("epoch", 0) > 1 and "time/loader_share" in row]


def measure(epochs: int) -> list[list[str]]:
    """The table, a row for each kind and number of workers."""
    data, found = data_folder() / "spoken_digits", []
    with tempfile.TemporaryDirectory() as place:
        for kind, given in KINDS.items():
            for workers in (0, 2):
                rows = trained(data, Path(place), workers, epochs, given)
                share = statistics.median(row["time/loader_share"] for row in rows)
                speed = statistics.median(row["train/samples_per_second"] for row in rows)
                found.append([kind, str(workers), f"{share:.1%}", f"{speed:.0f}"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    busy = os.getloadavg()[0]
    section = Section(
        "The loader's share of a step",
        f"Spoken digits, one thread; medians over what is logged after the first of {arguments.epochs} epochs. Load of "
        f"the machine before: {busy:.1f}. The goal is under 5 % with 2 workers.",
        ["recordings", "workers", "loader's share", "recordings a second"],
        measure(arguments.epochs),
    )
    print_section(section, markdown=arguments.markdown)


if __name__ == "__main__":
    main()

"""Two ranks against one process, one thread each: tokens a second, and the bytes that a step sends.

Speed: runs of the same config in turns, by one process, by two ranks, and by two processes at once that have nothing to
do with each other, which is what the machine can give at most. Taken from the rows of each run after its first steps.

Bytes: what the loopback device of a network namespace of the run's own has carried, between a run of few steps and one
of more, against what `etude plan --world N` foresees. Linux, and the right to make a namespace (root).

    python benchmarks/ranks.py --rounds 3 --steps 60
"""

import argparse
import ctypes
import fcntl
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import Measured, Section, print_section

CONFIG = """
[task]
type = "language_model"
[data]
train = "texts.txt"
val = "few.txt"
block_size = 256
[tokenizer]
type = "char"
[model]
type = "decoder"
layers = 6
heads = 4
d_model = 256
[train]
batch_size = 16
log_every = "1 step"
sanity_batches = 0
save_every = "1000 epochs"
device = "cpu"
precision = "float32"
"""
WARM = 10
"""Steps of a run before it is timed."""
FLOAT32 = 4
NEW_NETWORK = 0x40000000
GET_FLAGS, SET_FLAGS, IS_UP = 0x8913, 0x8914, 1


def write(folder: Path) -> None:
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(500)]
    texts = [" ".join(chance.choices(words, k=60)) for _ in range(8000)]
    (folder / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (folder / "few.txt").write_text("\n".join(texts[:4]) + "\n", encoding="utf-8")
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")


def start(
    folder: Path, name: str, ranks: int, steps: int, *more: str, first: Callable[[], None] | None = None
) -> "Run":
    words = ["train", "config.toml", "--run.name", name, "--run.dir", "runs", "--train.max_duration", f"{steps} steps"]
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "etude", *words, "--distributed.processes", str(ranks), *more],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=first,  # noqa: PLW1509 - before there is any thread
    )
    return Run(folder / "runs" / name, process)


class Run:
    """A run that has been started, in a folder."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.folder = folder
        self._process = process

    def ended(self) -> "Run":
        _, said = self._process.communicate()
        if self._process.returncode:
            raise SystemExit(said)
        return self

    def speed(self) -> float:
        """Tokens a second, after its first steps."""
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        rows = [row for row in rows if "train/loss" in row and row["step"] >= WARM]
        return (rows[-1]["tokens"] - rows[0]["tokens"]) / (rows[-1]["time/seconds"] - rows[0]["time/seconds"])


# -- speed -----------------------------------------------------------------------------------------------------------


def speeds(folder: Path, rounds: int, steps: int) -> Section:
    sides = {"one process": (1,), "two ranks": (2,), "two processes apart": (1, 1)}
    found: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in list(sides) if turn % 2 == 0 else list(reversed(sides)):
            started = [
                start(folder, f"{side.replace(' ', '-')}-{turn}-{place}", ranks, steps + WARM)
                for place, ranks in enumerate(sides[side])
            ]
            found[side].append(sum(run.ended().speed() for run in started))
    measured = Measured(found)
    rows = [[side, f"{measured.median(side):,.0f}", f"{measured.ratio(side, 'one process'):.2f}"] for side in sides]
    return Section(
        "Two ranks against one process",
        f"A decoder of 4.9 million weights, 16 samples of 256 tokens a step, float32, one thread a process, {steps} "
        f"steps timed, {rounds} rounds in turns. Apart: two runs at once that do not know of each other.",
        ["", "tokens a second", "of one process"],
        rows,
    )


# -- bytes -----------------------------------------------------------------------------------------------------------


def alone_in_its_network() -> None:
    """Let this process have a network of its own, whose loopback device carries nothing else."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, GET_FLAGS, name))[1]
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh", b"lo", flags | IS_UP))


def carried(pid: int) -> int:
    """Bytes that the loopback device of a process's network has carried."""
    for line in Path(f"/proc/{pid}/net/dev").read_text("ascii").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    raise SystemExit("There is no loopback device.")


def watched(folder: Path, strategy: str, ranks: int, steps: int) -> int:
    """Bytes that a run sends, all ranks together."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            alone_in_its_network()
            more = ["--distributed.strategy", strategy, "--train.batch_size", "4", "--data.block_size", "32"]
            start(folder, f"{strategy}-{ranks}-{steps}", ranks, steps, *more).ended()
            os.write(writing, str(carried(os.getpid())).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        answer = said.read()
    if not answer:
        raise SystemExit("The bytes need a network namespace of their own, which this user may not make.")
    return int(answer)


def foreseen(folder: Path, ranks: int, strategy: str) -> tuple[float, float]:
    """Bytes that all ranks send in a step, by the plan; and as gloo does it, which scatters a sum by a whole one."""
    from etude.app.plan.ranks.ranks import Given, plan_ranks
    from etude.tasks.config import load_config

    loaded = load_config(folder / "config.toml", ["--train.max_duration", "1 epoch"])
    plan = plan_ranks(loaded, [ranks], Given())
    least = ranks * next(rank.sent for rank in plan.ranks if rank.strategy == strategy)
    return least, least + (0 if strategy == "ddp" else (ranks - 1) * plan.trained * FLOAT32)


def sizes(folder: Path) -> Section:
    rows = []
    for strategy in ("ddp", "fsdp"):
        for ranks in (2, 3):
            few, many = (watched(folder, strategy, ranks, steps) for steps in (2, 12))
            found = (*foreseen(folder, ranks, strategy), (many - few) / 10)
            cells = [f"{size / 2**20:,.2f} MiB" for size in found]
            rows.append([strategy, str(ranks), *cells, f"{found[2] / found[1] - 1:+.1%}"])
    return Section(
        "Bytes that a step sends",
        "All ranks together, over the loopback device, with TCP's headers and acknowledgements; planned by the theory "
        "of the ring, and with gloo's scattering sums, each of which is a whole sum. Apart: measured over that.",
        ["strategy", "ranks", "planned", "by gloo", "measured", "apart"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        print_section(sizes(Path(name)), markdown=arguments.markdown)
        print_section(speeds(Path(name), arguments.rounds, arguments.steps), markdown=arguments.markdown)


if __name__ == "__main__":
    main()

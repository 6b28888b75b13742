"""Processes that tokenise a corpus side by side.

They are started as `python -m etude.data.store.crew` rather than by `multiprocessing`, so that a user's script needs no
`if __name__ == "__main__"`, and nothing of this process is copied. A worker reads one line that says what to do, then
lines with a range of samples each; it ends when its input does, so none outlives the process that started it.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from etude.base.errors import DataError
from etude.data.files.lines import Flaw
from etude.data.files.parallel import SIDES, PairSource, open_again
from etude.data.files.skipped import Policy
from etude.data.store.encoding import SHARD_SAMPLES, Shard, encoded_here, id_type
from etude.data.tokens.tokenizers import Tokenizer, load_tokenizer

AHEAD = 2
"""How many ranges a worker has been given beyond the one that is waited for."""

Worker = subprocess.Popen[bytes]


def encoded_by_crew(
    source: PairSource, recipe: str, tokenizers: Mapping[str, Tokenizer], policy: Policy, processes: int
) -> Iterator[Shard]:
    """Give all of `source` as shards, in order, tokenised by `processes` workers that open it anew by its `recipe`."""
    ranges = [(start, min(start + SHARD_SAMPLES, len(source))) for start in range(0, len(source), SHARD_SAMPLES)]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="etude-")))
        paths = {side: str(folder / f"{side}.json") for side in SIDES}
        for side in SIDES:
            tokenizers[side].save(Path(paths[side]))
        order = {"recipe": recipe, "fingerprint": source.fingerprint(), "tokenizers": paths, "policy": policy}
        workers = [_start(order, stack) for _ in range(min(processes, len(ranges)))]
        for number in range(min(len(ranges), AHEAD * len(workers))):
            _ask(workers[number % len(workers)], ranges[number])
        for number in range(len(ranges)):
            worker = workers[number % len(workers)]
            yield from _answers(worker, tokenizers)
            following = number + AHEAD * len(workers)
            if following < len(ranges):
                _ask(worker, ranges[following])


def _start(order: Mapping[str, Any], stack: contextlib.ExitStack) -> Worker:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "etude.data.store.crew"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C goes to the process that started it, which ends it
    )
    stack.callback(_end, worker)
    _say(worker, json.dumps(order))
    return worker


def _end(worker: Worker) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _ask(worker: Worker, samples: tuple[int, int]) -> None:
    _say(worker, json.dumps(samples))


def _say(worker: Worker, line: str) -> None:
    if worker.stdin is None:
        raise _dead(worker)
    try:
        worker.stdin.write(line.encode() + b"\n")
        worker.stdin.flush()
    except OSError as error:
        raise _dead(worker) from error


def _answers(worker: Worker, tokenizers: Mapping[str, Tokenizer]) -> Iterator[Shard]:
    """Read the shards of one range."""
    if worker.stdout is None:
        raise _dead(worker)
    while True:
        head = worker.stdout.readline()
        if not head.endswith(b"\n"):
            raise _dead(worker)
        facts = json.loads(head)
        if "error" in facts:
            raise DataError(facts["error"])
        if "done" in facts:
            return
        parts = [_exactly(worker, worker.stdout, size) for size in facts["sizes"]]
        sides = tuple(
            (np.frombuffer(parts[2 * n], dtype=id_type(tokenizers[side])), np.frombuffer(parts[2 * n + 1], np.int32))
            for n, side in enumerate(SIDES)
        )
        yield Shard(sides, [(index, Flaw(reason, side)) for index, reason, side in facts["flaws"]])


def _exactly(worker: Worker, pipe: IO[bytes], size: int) -> bytes:
    content = pipe.read(size)
    if len(content) != size:
        raise _dead(worker)
    return content


def _dead(worker: Worker) -> DataError:
    code = worker.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return DataError(f"A process that prepared the data {how}; the same command starts the preparation over.")


def _work(orders: IO[bytes], answers: IO[bytes]) -> None:
    """Do what the lines of `orders` say: the life of a worker."""
    try:
        order = json.loads(orders.readline())
        source = open_again(order["recipe"])
        _check_same(source, order["fingerprint"])
        tokenizers = {side: load_tokenizer(path) for side, path in order["tokenizers"].items()}
        policy = Policy(*order["policy"])
        while line := orders.readline():
            for shard in encoded_here(source, tokenizers, policy, *json.loads(line)):
                _answer(answers, shard)
            answers.write(b'{"done": true}\n')
            answers.flush()
    except DataError as error:
        answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        answers.flush()


def _check_same(source: PairSource, fingerprint: str) -> None:
    if source.fingerprint() != fingerprint:
        raise DataError(f"{source.place(0)[0]} has changed while it was prepared.")


def _answer(answers: IO[bytes], shard: Shard) -> None:
    parts = [part.tobytes() for side in shard.sides for part in side]
    flaws = [(index, flaw.reason, flaw.side) for index, flaw in shard.flaws]
    answers.write(json.dumps({"sizes": [len(part) for part in parts], "flaws": flaws}).encode() + b"\n")
    for part in parts:
        answers.write(part)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the process that asked has gone
        _work(sys.stdin.buffer, sys.stdout.buffer)

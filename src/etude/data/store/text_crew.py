"""Processes that tokenise pieces of text side by side.

As in `crew`, they are started as a module of their own and end when their input does. Here they are sent the text,
which one process reads: then any kind of file, and a split that cuts one, can be tokenised in parallel.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO

import numpy as np

from etude.base.errors import DataError
from etude.data.store.encoding import id_type
from etude.data.store.text_encoding import Encoded, Group, PieceTokenizer
from etude.data.tokens.tokenizers import Tokenizer, load_tokenizer


class Crew:
    """`count` processes; each is served by a thread, which sends it a group and waits for the ids."""

    def __init__(self, tokenizer: Tokenizer, count: int) -> None:
        self._type = np.dtype(id_type(tokenizer))
        self._folder = tempfile.TemporaryDirectory(prefix="etude-")
        path = Path(self._folder.name) / "tokenizer.json"
        tokenizer.save(path)
        self._members = [_start(path) for _ in range(count)]
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for member in self._members:
            self._idle.put(member)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="tokenising")

    def encode(self, group: Group) -> "Future[Encoded]":
        """Have a group tokenised; whoever asks for the result hears of a process that died."""
        return self._threads.submit(self._encode, group)

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for member in self._members:
            member.kill()
        self._threads.shutdown(cancel_futures=True)
        for member in self._members:
            member.wait()
            for pipe in (member.stdin, member.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._folder.cleanup()

    def _encode(self, group: Group) -> Encoded:
        member = self._idle.get()
        try:
            return self._asked(member, group)
        finally:
            self._idle.put(member)

    def _asked(self, member: subprocess.Popen[bytes], group: Group) -> Encoded:
        if member.stdin is None or member.stdout is None:
            raise _dead(member)
        try:
            head = {"sizes": [len(text) for text in group.texts], "begins": list(group.begins)}
            member.stdin.write(json.dumps(head).encode() + b"\n")
            member.stdin.writelines(group.texts)
            member.stdin.flush()
            answer = member.stdout.readline()
            if not answer.endswith(b"\n"):
                raise _dead(member)
            facts = json.loads(answer)
            if "error" in facts:
                raise DataError(facts["error"])
            size = sum(facts["lengths"]) * self._type.itemsize
            ids = member.stdout.read(size)
        except OSError as error:
            raise _dead(member) from error
        if len(ids) != size:
            raise _dead(member)
        return Encoded(np.frombuffer(ids, dtype=self._type), facts["lengths"])


def _start(tokenizer: Path) -> subprocess.Popen[bytes]:
    member = subprocess.Popen(
        [sys.executable, "-m", "etude.data.store.text_crew"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C goes to the process that started it, which ends it
    )
    if member.stdin is not None:
        with contextlib.suppress(OSError):  # one that has died is found where it is first asked
            member.stdin.write(json.dumps(str(tokenizer)).encode() + b"\n")
            member.stdin.flush()
    return member


def _dead(member: subprocess.Popen[bytes]) -> DataError:
    code = member.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return DataError(f"A process that tokenised the data {how}; the same command starts the preparation over.")


def _work(orders: IO[bytes], answers: IO[bytes]) -> None:
    """Tokenise what comes until nothing does: the life of a process."""
    try:
        encode = PieceTokenizer(load_tokenizer(json.loads(orders.readline())))
        while line := orders.readline():
            head = json.loads(line)
            group = Group([orders.read(size) for size in head["sizes"]], head["begins"])
            made = encode(group)
            answers.write(json.dumps({"lengths": made.lengths}).encode() + b"\n")
            answers.write(made.ids.tobytes())
            answers.flush()
    except DataError as error:
        answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the process that asked has gone
        _work(sys.stdin.buffer, sys.stdout.buffer)

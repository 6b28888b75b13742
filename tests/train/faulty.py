"""A storage that dies or fails at one call, and code that is killed at one moment."""

import builtins
import io
import os
import signal
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from importlib import import_module
from unittest.mock import patch

CALLS = ("mkdir", "rename", "replace", "symlink", "unlink", "rmdir", "fsync", "truncate", "open")
BEFORE, AFTER, HALF, FAIL = "before", "after", "half", "fail"


class Storage:
    """Counts the calls that change storage, and does what it was told at the `nth` (from 1).

    `how`: killed before or after it, killed after half of a write, or failed with `errno`, once or (`lasting`) from
    there on. A half of a call that is no write is the call not made. Only the process that it was made in is struck: a
    loader's worker forked from it would be struck at the same call each time it is replaced.
    """

    def __init__(self, *, nth=0, how=FAIL, errno=0, lasting=False):
        self.nth, self.how, self.errno, self.lasting = nth, how, errno, lasting
        self.count = 0
        self.names = []
        self.process = os.getpid()

    def call(self, name, made, half):
        if os.getpid() != self.process:
            return made()
        self.count += 1
        self.names.append(name)
        if self.count == self.nth and self.how != FAIL:
            if self.how == AFTER:
                with suppress(OSError):
                    made()
            if self.how == HALF:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == FAIL and self.nth and (self.count == self.nth or (self.lasting and self.count > self.nth)):
            half()
            raise OSError(self.errno, os.strerror(self.errno))
        return made()


class File:
    """An unbuffered file whose writes are counted."""

    def __init__(self, file, storage):
        self._file, self._storage = file, storage

    def write(self, content):
        whole = bytes(content)
        half = whole[: len(whole) // 2]
        return self._storage.call("write", lambda: self._file.write(content), lambda: self._file.write(half))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


@contextmanager
def storage(**options):
    """Put a faulty storage in the place of the system's inside the block."""
    made = Storage(**options)

    def wrapped(name, real):
        def call(*args, **kwargs):
            if name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return real(*args, **kwargs)
            return made.call(name, lambda: real(*args, **kwargs), lambda: None)

        return call

    real_open = io.open

    def opening(path, mode="r", *args, **kwargs):
        if not isinstance(mode, str) or not set(mode) & set("wax+"):
            return real_open(path, mode, *args, **kwargs)
        return File(made.call("open", lambda: real_open(path, mode, *args, **kwargs), lambda: None), made)

    patches = [patch.object(os, name, wrapped(name, getattr(os, name))) for name in CALLS]
    patches += [patch.object(io, "open", opening), patch.object(builtins, "open", opening)]
    for one in patches:
        one.start()
    try:
        yield made
    finally:
        for one in patches:
            one.stop()


_lasting = ExitStack()


def prepare(  # noqa: PLR0913 - the keys of a fault
    *,
    storage_call=None,
    at=None,
    nth=1,
    how=BEFORE,
    number=signal.SIGKILL,
    again=False,
    group=False,
    errno=0,
    lasting=False,
):
    """Let this process be killed at a storage call, or get a signal at the `nth` call of `at` ("module:Class.method").

    The signal comes twice (`again`), or to the whole process group (`group`).
    """
    if storage_call is not None:
        _lasting.enter_context(storage(nth=storage_call, how=how, errno=errno, lasting=lasting))
        return
    module, _, path = at.partition(":")
    owner = import_module(module)
    *owners, name = path.split(".")
    for part in owners:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    count = 0

    def send():
        for _ in range(1 + again):
            (os.killpg if group else os.kill)(os.getpid(), number)

    @wraps(real)  # its signature may be looked at
    def call(*args, **kwargs):
        nonlocal count
        count += 1
        if count == nth and how == BEFORE:
            send()
        result = real(*args, **kwargs)
        if count == nth and how == AFTER:
            send()
        return result

    setattr(owner, name, call)

"""Who writes a checkpoint: one process alone, or ranks that write files of their own into a folder of the first.

The first tells the folder; each of the others writes, and tells the first how its files are to be listed, or what went
wrong; the first tells what came of it all. They speak by post, since training goes on meanwhile.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from time import monotonic, sleep
from typing import Any, Protocol, final

from etude.base.errors import DistributedError, StorageError
from etude.base.files import storage
from etude.train.memory.checkpoint.content import Content, Listed
from etude.train.memory.checkpoint.naming import PARTIAL, step_name
from etude.train.world.post import Post

SEEN_SECONDS, POLL_SECONDS = 15.0, 0.1
"""How long a folder that another machine has made may take to be seen on this one."""
FOLDER, VERDICT = "folder", "verdict"
Said = Mapping[str, Any]
"""What ranks say: the `path` of a folder, the `files` that were written, or an `error`."""


class Writers(Protocol):
    """Those that write checkpoints, as the one sees them that publishes what they have written."""

    @property
    def count(self) -> int:
        """How many there are."""

    def meet(self, folder: Path) -> None:
        """Make sure that all see the folder where checkpoints lie. Raises DistributedError."""

    def led(self) -> AbstractContextManager[None]:
        """Tell the others how a save ends that goes on inside the block."""

    def write(self, folder: Path, content: Content) -> Listed:
        """Let all write their tensors into a folder; how a manifest lists the files. Raises OSError."""


@final
class OneWriter:
    """Writes alone."""

    count = 1

    def meet(self, folder: Path) -> None:
        """There is nobody to meet."""

    @contextmanager
    def led(self) -> Iterator[None]:
        """There is nobody to tell."""
        yield

    def write(self, folder: Path, content: Content) -> Listed:
        """Write the tensors."""
        return content.write_tensors(folder)


@final
class LeadingWriter:
    """The first of several ranks."""

    def __init__(self, post: Post) -> None:
        self.count = post.size
        self._post = post
        self._round = _Round(post, 0)

    def meet(self, folder: Path) -> None:
        """Let each rank look for a folder that is made there."""
        probe = folder / f"{PARTIAL}{token_hex(4)}"
        with storage("write into", folder):
            probe.mkdir()
        try:
            with self.led():
                self._written(probe, None)
        finally:
            with suppress(OSError):
                probe.rmdir()

    @contextmanager
    def led(self) -> Iterator[None]:
        """Tell the others how a save ends, be it by an error."""
        self._round.forget()  # since all ranks have come to this save, all know what came of the one before
        self._round = _Round(self._post, self._post.next_round())
        try:
            yield
        except BaseException as error:
            self._round.leave(VERDICT, _told(error))
            raise
        self._round.leave(VERDICT, {})

    def write(self, folder: Path, content: Content) -> Listed:
        """Let each rank write its files, and wait for all, also where one has failed."""
        return self._written(folder, content)

    def _written(self, folder: Path, content: Content | None) -> Listed:
        self._round.leave(FOLDER, {"path": str(folder.absolute())})
        own = _report(folder, content)
        until = monotonic() + self._post.timeout
        files: dict[str, Any] = {}
        for rank, report in enumerate([own, *[self._heard(rank, until) for rank in range(1, self.count)]]):
            _raise(report, f"Rank {rank}: ")
            files |= report["files"]
        return files

    def _heard(self, rank: int, until: float) -> Said:
        """What a rank says of its files."""
        found = self._round.find([str(rank)], until - monotonic())
        if found is None:
            seconds = self._post.timeout
            return _told(StorageError(f"its part was not written within {seconds:g} s (distributed.timeout)."))
        return found[1]


@final
class FollowingWriter:
    """One of the ranks that are not the first."""

    def __init__(self, post: Post) -> None:
        self.count = post.size
        self._post = post

    def take_part(self, content: Content | None) -> None:
        """Write its own files of a save that the first rank leads; without a content, look for its folder alone.

        Raises StorageError, or DistributedError, where that has not become a checkpoint.
        """
        turn, seconds = _Round(self._post, self._post.next_round()), 2 * self._post.timeout
        found = turn.find([FOLDER, VERDICT], seconds)
        if found is not None and found[0] == FOLDER:
            folder = Path(found[1]["path"])
            turn.leave(str(self._post.rank), _report(folder, content) if _is_seen(folder) else _unseen(folder))
            found = turn.find([VERDICT], seconds)
        if found is None:
            raise DistributedError("Rank 0 has not said in time whether the checkpoint was saved.")
        _raise(found[1])


@final
class _Round:
    """What ranks say to each other about one save."""

    def __init__(self, post: Post, number: int) -> None:
        self._post = post
        self._number = number

    def leave(self, name: str, said: Said) -> None:
        self._post.leave(self._place(name), json.dumps(said))

    def find(self, names: Sequence[str], seconds: float) -> tuple[str, Said] | None:
        places = {self._place(name): name for name in names}
        found = self._post.find(list(places), seconds)
        return found and (places[found[0]], json.loads(found[1]))

    def forget(self) -> None:
        names = [FOLDER, VERDICT, *map(str, range(1, self._post.size))]
        self._post.forget([self._place(name) for name in names])

    def _place(self, name: str) -> str:
        return f"save/{self._number}/{name}"


def _is_seen(folder: Path) -> bool:
    """Whether a folder is there, or comes to be seen."""
    begun = monotonic()
    while not folder.is_dir():
        if monotonic() - begun > SEEN_SECONDS:
            return False
        sleep(POLL_SECONDS)
    return True


def _unseen(folder: Path) -> Said:
    return _told(
        DistributedError(
            f"{folder}, which the first rank has made, is not there on its machine. With sharded weights every rank "
            f"writes into the run folder, which must lie on storage that all of them share."
        )
    )


def _report(folder: Path, content: Content | None) -> Said:
    """How the files are listed that this rank has written into a folder, or what went wrong."""
    if content is None:
        return {"files": {}}
    try:
        with storage("write its part of", folder.parent / step_name(content.step), needs=content.bytes):
            return {"files": content.write_tensors(folder)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the first rank is not to wait for it
        return _told(error)


def _told(error: BaseException) -> Said:
    """An error as one rank tells it to others."""
    return {"error": str(error), "of storage": isinstance(error, StorageError)}


def _raise(said: Said, before: str = "") -> None:
    """Raise the error that another rank has told of, if it has."""
    if "error" in said:
        kind = StorageError if said["of storage"] else DistributedError
        raise kind(before + said["error"])

"""Where a run's checkpoints go: a folder, or, without one, the best weights in memory."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from torch import Tensor

from etude.train.memory.checkpoint.content import AVERAGED, MODEL, Content
from etude.train.memory.checkpoint.store import BEST, LAST, ONE_WRITER, Store
from etude.train.memory.checkpoint.writers import FollowingWriter, Writers
from etude.train.world.post import Post


class Keeper(Protocol):
    """Takes checkpoints."""

    folder: Path | None
    """The run folder."""
    best_weights: Mapping[str, Tensor] | None
    """The best validated weights, averaged where an average is kept; None where they lie in a folder."""

    @property
    def keeps(self) -> bool:
        """Whether anything of what it is given is kept."""

    @property
    def writers(self) -> int:
        """How many ranks write a checkpoint."""

    @property
    def best(self) -> Path | None:
        """The best checkpoint's folder."""

    @property
    def last(self) -> Path | None:
        """The newest checkpoint's folder."""

    def newest(self, say: Callable[[str], None]) -> Path | None:
        """The newest sound checkpoint, to go on from; None where there is none."""

    def newest_before(self, step: int | None) -> Path | None:
        """The newest intact checkpoint of a step before `step` (None: of any); None where there is none."""

    def settle(
        self, step: int, *, best: int | None, ranking: Mapping[int, float], complain: Callable[[str], None]
    ) -> None:
        """Let the checkpoint of `step` be the last, and `best` the best."""

    def save(self, content: Content, *, best: bool, ranking: Mapping[int, float]) -> None:
        """Begin to keep `content`."""

    def wait(self) -> bool:
        """Wait for the save that is being written, raising what went wrong; whether there was one."""

    def close(self) -> None:
        """Give back what was held."""


class FolderKeeper:
    """Keeps checkpoints in the run folder."""

    keeps = True

    def __init__(self, folder: Path, *, keep_last: int, keep_best: int, writers: Writers = ONE_WRITER) -> None:
        self.folder: Path | None = folder
        self.best_weights: Mapping[str, Tensor] | None = None
        self.store = Store(folder / "checkpoints", keep_last=keep_last, keep_best=keep_best, writers=writers)

    @property
    def writers(self) -> int:
        """How many ranks write a checkpoint."""
        return self.store.writers.count

    @property
    def best(self) -> Path | None:
        """The best checkpoint's folder."""
        return self.store.link(BEST)

    @property
    def last(self) -> Path | None:
        """The newest checkpoint's folder."""
        return self.store.link(LAST)

    def newest(self, say: Callable[[str], None]) -> Path | None:
        """The newest sound checkpoint; what a kill has left unfinished is removed."""
        self.store.prepare()
        self.store.writers.meet(self.store.folder)
        return self.store.newest_sound(say)

    def newest_before(self, step: int | None) -> Path | None:
        """The newest intact checkpoint of a step before `step`."""
        return self.store.newest_before(step)

    def settle(
        self, step: int, *, best: int | None, ranking: Mapping[int, float], complain: Callable[[str], None]
    ) -> None:
        """Point the links to where the run goes on, and remove what lies beyond."""
        self.store.settle(step, best=best, ranking=ranking, complain=complain)

    def save(self, content: Content, *, best: bool, ranking: Mapping[int, float]) -> None:
        """Begin to write `content`."""
        self.store.save(content, best=best, ranking=ranking)

    def wait(self) -> bool:
        """Wait for the save that is being written."""
        return self.store.wait() is not None

    def close(self) -> None:
        """End the writing thread."""
        self.store.close()


class MemoryKeeper:
    """Keeps the best weights, and nothing on disk."""

    keeps = True

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.writers = 1
        self.best: Path | None = None
        self.last: Path | None = None
        self.best_weights: Mapping[str, Tensor] | None = None

    def newest(self, say: Callable[[str], None]) -> Path | None:
        """There is none: nothing outlives the process."""
        del say
        return None

    def newest_before(self, step: int | None) -> Path | None:
        """There is none."""
        del step
        return None

    def settle(
        self, step: int, *, best: int | None, ranking: Mapping[int, float], complain: Callable[[str], None]
    ) -> None:
        """Do nothing."""

    def save(self, content: Content, *, best: bool, ranking: Mapping[int, float]) -> None:
        """Keep the weights of the best."""
        del ranking
        if best:
            self.best_weights = _weights_of(content)

    def wait(self) -> bool:
        """Nothing is being written."""
        return False

    def close(self) -> None:
        """Nothing is held."""


class PartKeeper(MemoryKeeper):
    """Writes this rank's part of the checkpoints that the first rank keeps."""

    def __init__(self, post: Post) -> None:
        super().__init__()
        self.writers = post.size
        self._part = FollowingWriter(post)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def newest(self, say: Callable[[str], None]) -> Path | None:
        """The first rank looks for it; that this one sees the same folder is made sure of."""
        del say
        self._part.take_part(None)
        return None

    def save(self, content: Content, *, best: bool, ranking: Mapping[int, float]) -> None:
        """Begin to write this rank's part."""
        del best, ranking
        self.wait()
        self._pending = self._thread.submit(self._part.take_part, content)

    def wait(self) -> bool:
        """Wait for what came of the save that all ranks write."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
        return pending is not None

    def close(self) -> None:
        """End the writing thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


class NoKeeper(MemoryKeeper):
    """Keeps nothing: of several ranks with whole weights the first one keeps checkpoints for all."""

    keeps = False

    def save(self, content: Content, *, best: bool, ranking: Mapping[int, float]) -> None:
        """Do nothing."""


def _weights_of(content: Content) -> dict[str, Tensor]:
    """The weights, averaged where an average is kept, under all their names."""
    name = AVERAGED if AVERAGED in content.tensors else MODEL
    tensors, aliases = content.tensors[name], content.aliases.get(name, {})
    return {**tensors, **{alias: tensors[kept] for alias, kept in aliases.items()}}

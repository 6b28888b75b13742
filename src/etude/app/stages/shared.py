"""Where a stage lies: in its pipeline's folder or, in a sweep, once for all trials in which it is made of the same."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, final

from etude.app.runs.pipelines import shared_by, stages_in
from etude.app.stages.depends import hash_of
from etude.app.stages.node import Node
from etude.base.errors import RefusedError
from etude.base.files import make_folder, replace_link
from etude.base.signals import REQUEUE
from etude.train.lock import Lock, is_locked

GATES = ".held"
"""The folder, in that of the stages, that holds their locks."""
DIGITS = 16


class HeldUpError(RefusedError):
    """A stage is being run for another trial; once that has ended, the same command goes on."""

    exit_code = REQUEUE


class Keeping(Protocol):
    """Says where stages lie."""

    def held(self, node: Node, made: Mapping[str, Any]) -> AbstractContextManager[Path]:
        """Hold a stage that is made of this, and give where its files lie; its folder leads there."""


@final
class Apart:
    """Each stage lies in its own folder, which the lock of its pipeline keeps from others."""

    def held(self, node: Node, made: Mapping[str, Any]) -> AbstractContextManager[Path]:
        """Its own folder."""
        del made
        return nullcontext(node.folder)


@final
class Shared:
    """Stages lie in one folder, by name and by what they are made of; pipelines have links that lead there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def held(self, node: Node, made: Mapping[str, Any]) -> AbstractContextManager[Path]:
        """Let the folder lead to the stage, and keep other pipelines from it.

        A folder that is there and no link, as of a copied trial, is left as it is. Raises HeldUpError where another
        pipeline has the stage.
        """
        if node.folder.is_dir() and not node.folder.is_symlink():
            return nullcontext(node.folder)
        return self._held(node, f"{node.name}-{hash_of(made)[:DIGITS]}")

    @contextmanager
    def _held(self, node: Node, name: str) -> Iterator[Path]:
        place = self._folder / name
        replace_link(node.folder, os.path.relpath(place, node.folder.parent))  # first: `is_held_up` follows it
        with ExitStack() as stack:
            try:
                stack.enter_context(Lock(self._folder / GATES / name))
            except RefusedError:
                raise HeldUpError(f"Stage {node.name} is being run for another trial: it goes on after that.") from None
            make_folder(place)
            yield place


def is_held_up(trial: Path) -> bool:
    """Whether a stage that a trial has come to is being run for another one."""
    places = [Path(os.path.realpath(trial / name)) for name in stages_in(trial) if (trial / name).is_symlink()]
    return any(is_locked(place.parent / GATES / place.name) for place in places)


def keeping_of(pipeline: Path) -> Keeping:
    """What says where the stages of the pipeline in a folder lie."""
    shared = shared_by(pipeline)
    return Apart() if shared is None else Shared(shared)

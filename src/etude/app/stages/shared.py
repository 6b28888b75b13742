"""Where a stage lies: in its pipeline's folder or, in a sweep, once for all trials in which it is made of the same."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, final

from etude.app.runs.pipelines import shared_by
from etude.app.stages.depends import hash_of
from etude.app.stages.node import Node
from etude.base.errors import RefusedError
from etude.base.files import make_folder, replace_link
from etude.base.says import Say
from etude.train.lock import Lock

GATES = ".held"
"""The folder, in that of the stages, that holds their locks."""
DIGITS, POLL_SECONDS = 16, 0.5


class Keeping(Protocol):
    """Says where stages lie."""

    def held(self, node: Node, made: Mapping[str, Any], say: Say) -> AbstractContextManager[Path]:
        """Hold a stage that is made of this, and give where its files lie; its folder leads there."""


@final
class Apart:
    """Each stage lies in its own folder, which the lock of its pipeline keeps from others."""

    def held(self, node: Node, made: Mapping[str, Any], say: Say) -> AbstractContextManager[Path]:
        """Its own folder."""
        del made, say
        return nullcontext(node.folder)


@final
class Shared:
    """Stages lie in one folder, by name and by what they are made of; pipelines have links that lead there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def held(self, node: Node, made: Mapping[str, Any], say: Say) -> AbstractContextManager[Path]:
        """Wait until no other pipeline has the stage, and let the folder lead to it.

        A folder that is there and no link, as of a copied trial, is left as it is.
        """
        if node.folder.is_dir() and not node.folder.is_symlink():
            return nullcontext(node.folder)
        return self._held(node, f"{node.name}-{hash_of(made)[:DIGITS]}", say)

    @contextmanager
    def _held(self, node: Node, name: str, say: Say) -> Iterator[Path]:
        place = self._folder / name
        with ExitStack() as stack:
            if not _is_entered(stack, self._folder / GATES / name):
                say(f"Stage {node.name} is being run for another trial: waiting for it.")
                while not _is_entered(stack, self._folder / GATES / name):
                    time.sleep(POLL_SECONDS)
            make_folder(place)
            replace_link(node.folder, os.path.relpath(place, node.folder.parent))
            yield place


def _is_entered(stack: ExitStack, gate: Path) -> bool:
    """Whether the lock could be taken; the stack lets it go."""
    try:
        stack.enter_context(Lock(gate))
    except RefusedError:
        return False
    return True


def keeping_of(pipeline: Path) -> Keeping:
    """What says where the stages of the pipeline in a folder lie."""
    shared = shared_by(pipeline)
    return Apart() if shared is None else Shared(shared)

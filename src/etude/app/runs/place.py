"""Where a run folder lies, and what may be written there by whoever uses the run."""

import os
import shutil
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import final

from etude.tasks.task_type import CACHE


@final
class Place:
    """The place of a run folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()  # a stage of a sweep is a link to where all trials have it

    @property
    def is_writable(self) -> bool:
        """Whether files can be made in the folder."""
        return os.access(self._folder, os.W_OK | os.X_OK)

    @cached_property
    def cache(self) -> Path:
        """Where data is prepared that the run is used on, which is not where its config says: that is of elsewhere.

        It is the cache beside the folder, where there is one; else one in the folder; and where nothing can be written
        there, one that goes away again.
        """
        beside = self._folder.parent / CACHE
        if beside.is_dir() and os.access(beside, os.W_OK | os.X_OK):
            return beside
        return self._folder / CACHE if self.is_writable else self._passing()

    def _passing(self) -> Path:
        made = tempfile.mkdtemp(prefix="etude-cache-")
        weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        return Path(made)

"""What a run keeps to be used without its data, with the hashes that it is believed by."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.base.errors import StorageError
from etude.base.files import remove, storage
from etude.base.hashes import check_hashes, write_hashes
from etude.tasks.task_type import Processor, TaskType

if TYPE_CHECKING:
    from etude.tasks.config import Config


def stored_processor(kind: TaskType[Any, Any], config: "Config", folder: Path) -> Processor:
    """What a run has kept in `folder`. Raises RefusedError where it is not there, StorageError where it is damaged."""
    check_hashes(folder)
    found: Processor = kind.processor(config, folder)
    return found


def keep_processor(processor: Processor, folder: Path, *, made: bool = True) -> None:
    """Write what a run keeps into `folder`, with hashes, unless it is there: a run keeps what it began with.

    One that was `made` now takes the place of a damaged one, which nothing has been trained with.
    """
    if made:
        _remove_damaged(folder)
    if folder.is_dir():
        return
    processor.save(folder)
    if folder.is_dir():
        write_hashes(folder)


def _remove_damaged(folder: Path) -> None:
    try:
        check_hashes(folder)
    except StorageError:
        with storage("replace", folder), suppress(FileNotFoundError):
            remove(folder)

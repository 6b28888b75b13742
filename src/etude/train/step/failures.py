"""What torch says where a step fails for a reason that a user can mend, as a sentence with what to do."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from etude.base.errors import ConfigError
from etude.data.nest import tensors

T = TypeVar("T")
Failure = RuntimeError | ValueError | MemoryError
FAILURES = (RuntimeError, ValueError, MemoryError)
"""What torch raises."""
_MEMORY = r"MemoryError|OutOfMemory|out of memory|not enough memory|can(no|')t allocate|failed to allocate"
TRAINED, EVALUATED = "batch_size or batch_tokens (accumulate makes a step of several batches)", "eval_batch_size"
"""What takes less memory if it is lower, in training and in an evaluation."""
_SHAPES = 4
"""How many shapes of a batch a sentence lists."""


def refuse(error: Failure, batch: object, *, lower: str) -> None:
    """Raise ConfigError for a failure that is known, on which of `batch`; `lower` says what takes less memory."""
    said = _said(error)
    for pattern, sentence in _SENTENCES.items():
        if _means(error, pattern):
            raise ConfigError(sentence(said, shapes(batch), lower)) from error


@contextmanager
def in_memory(what: str) -> Iterator[None]:
    """Raise ConfigError, naming `what`, where the memory does not suffice for what the block makes."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _means(error, _MEMORY):
            raise
        raise ConfigError(
            f"There is not enough memory for {what} ({_said(error)}). Lower the size of the model."
        ) from error


def _said(error: Exception) -> str:
    """What an error says, without the place in torch's code."""
    return " ".join(str(error).split()).rpartition("] ")[2].rstrip(".") or "no message"


def _means(error: Exception, pattern: str) -> bool:
    return re.search(pattern, f"{type(error).__name__}: {error}", re.IGNORECASE) is not None


def attempted(step: Callable[..., T], batch: object, *more: object, lower: str = EVALUATED, **options: object) -> T:
    """What a step gives for a batch (and what else it takes); raises ConfigError as `refuse` does."""
    try:
        return step(batch, *more, **options)
    except FAILURES as error:
        refuse(error, batch, lower=lower)
        raise


def shapes(batch: object) -> str:
    """The shapes of the tensors in a batch.

    >>> import torch
    >>> shapes([torch.zeros(2, 3), {"y": torch.zeros(2)}])
    '[2, 3] and [2]'
    """
    found = [str(list(tensor.shape)) for tensor in islice(tensors(batch), _SHAPES)]
    return " and ".join(found) or "no tensors"


def _memory(said: str, shape: str, lower: str) -> str:
    return f"There is not enough memory for a batch of {shape} ({said}). Lower {lower}, or the size of the model."


def _batch_norm(said: str, shape: str, lower: str) -> str:
    del said, lower
    return (
        f"Batch normalisation cannot be trained on one value a channel, as in this batch of {shape}. If one sample is "
        f"left over at the end of an epoch, leave it out (drop_last=True of the DataLoader) or take another batch_size."
    )


def _layout(said: str, shape: str, lower: str) -> str:
    del shape, lower
    return (
        f"The optimizer cannot take these gradients: {said}. Sparse ones, of an embedding with sparse=True, go with "
        f"SparseAdam, which takes no others, and with SGD and Adagrad without weight_decay."
    )


def _format(said: str, shape: str, lower: str) -> str:
    del shape, lower
    return f"The model cannot be computed in this precision on this device: {said}. Take float32, which is everywhere."


_SENTENCES: Mapping[str, Callable[[str, str, str], str]] = {
    _MEMORY: _memory,
    r"more than 1 value per channel when training": _batch_norm,
    r"(sparse|dense) gradients|add\(sparse, dense\)": _layout,
    r"not implemented for '(Half|BFloat16)'|could not create a primitive": _format,
}
"""By what an error says: the sentence, from that, the shapes of the batch, and what to lower."""

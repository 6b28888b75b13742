"""Weights of other models in the place of first ones: found, read, matched by name, loaded and listed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from etude.base.errors import ConfigError
from etude.base.paths import user_path
from etude.model.init_source import InitSource
from etude.train.memory.preload.source import Source, read_source
from etude.train.memory.preload.transfer import Transfer, as_json, preload

__all__ = ["Source", "Transfer", "as_json", "load_weights", "preload", "read_source"]


def load_weights(
    module: nn.Module,
    checkpoint: str | Path,
    *,
    match: str | Sequence[str] = "*",
    rename: Mapping[str, str] | None = None,
    required: bool = True,
) -> Transfer:
    """Load weights of another model into a module or task, in place, as a table of `init.from` does; what was loaded.

    `checkpoint` is a run's folder, a checkpoint, what `etude export` wrote, a safetensors file or a state dict that
    `torch.save` wrote. Raises ConfigError where a pattern means nothing or something does not fit, StorageError where
    the file is damaged; nothing is changed then.

    >>> import tempfile, torch
    >>> small, large = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(small.state_dict(), f"{folder}/small.pt")
    ...     loaded = load_weights(large, f"{folder}/small.pt", match="0.*", rename={"*": "0.*"})
    >>> loaded.taken, loaded.left
    ({'0.weight': 'weight', '0.bias': 'bias'}, ['1.weight', '1.bias'])
    """
    patterns = match if isinstance(match, str) else list(match)
    try:
        wanted = InitSource(
            checkpoint=user_path(checkpoint), match=patterns, rename=dict(rename or {}), required=required
        )
    except ValidationError as error:
        raise ConfigError([f"load_weights: {problem['msg']}." for problem in error.errors()]) from error
    return preload(module, [read_source(wanted, "load_weights")])[0]

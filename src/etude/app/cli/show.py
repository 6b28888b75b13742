"""`etude show` and `etude schema`: the composed config with where each value came from, and what a config may hold."""

import json
from argparse import Namespace
from collections import defaultdict
from typing import Any

from etude.app.cli.stages import shown_stages
from etude.app.cli.streams import put
from etude.app.stages.loading import is_pipeline
from etude.base.config.json_schema import schema as schema_of
from etude.base.config.lines import Key, key_lines
from etude.base.config.loading import Loaded
from etude.base.schedules.structural_schema import with_structural
from etude.tasks.config import any_config, load_config


def show(arguments: Namespace, overrides: list[str]) -> int:
    """Print the composed config as TOML, each line with where its value came from."""
    loaded = shown_stages(arguments.config, overrides) if is_pipeline(arguments.config) else None
    put(annotated(loaded or load_config(arguments.config, overrides)).rstrip("\n"))
    return 0


def schema(arguments: Namespace, overrides: list[str]) -> int:
    """Print the JSON Schema of a config."""
    del arguments, overrides
    put(json.dumps(config_schema(), indent=1, ensure_ascii=False))
    return 0


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a config of any task, structural schedules included."""
    return with_structural(schema_of(any_config()))


def annotated(loaded: Loaded[Any]) -> str:
    """The composed config as TOML, with a comment on each line saying where its value came from."""
    text = loaded.toml()
    keys: dict[int, list[Key]] = defaultdict(list)
    for key, line in key_lines(text).items():
        keys[line].append(key)
    lines = text.rstrip("\n").split("\n")
    width = min(max(map(len, lines)), 60)
    return "\n".join(
        line if not line or line.startswith("[") else f"{line:<{width}}  # {_origins(loaded, keys[number])}"
        for number, line in enumerate(lines, 1)
    )


def _origins(loaded: Loaded[Any], keys: list[Key]) -> str:
    """Where the values of one line came from, each place once."""
    leaves = [key for key in keys if not any(other[: len(key)] == key and other != key for other in keys)]
    return "; ".join(dict.fromkeys(str(loaded.origin(key)) for key in leaves)) or "default"

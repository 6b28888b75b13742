"""`etude validate` and `etude test`: metrics of a run's weights, as lines of name and value."""

import json
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from etude.app.cli.loading import open_run
from etude.app.cli.streams import put, say
from etude.app.run import Run


def validate(arguments: Namespace, overrides: list[str]) -> int:
    """Measure on the validation split."""
    run = open_run(arguments, overrides)
    metrics = run.validate(weights=arguments.checkpoint, device=arguments.device)
    _print(run, "val", arguments, metrics)
    return 0


def test(arguments: Namespace, overrides: list[str]) -> int:
    """Measure on the test split, and write its predictions."""
    run = open_run(arguments, overrides)
    metrics = run.test(weights=arguments.checkpoint, device=arguments.device)
    _print(run, "test", arguments, metrics)
    written = run.folder / "outputs" / "test.txt"
    if written.exists():
        say(f"Predictions: {written}")
    return 0


def _print(run: Run, split: str, arguments: Namespace, metrics: Mapping[str, float]) -> None:
    say(f"{split} metrics of {run.folder}, checkpoint {run.checkpoint(arguments.checkpoint).name}:")
    if arguments.json:
        put(json.dumps(dict(metrics)))
        return
    put(table(metrics))


def table(metrics: Mapping[str, float]) -> str:
    """Lines of name and value, aligned."""
    width = max((len(name) for name in metrics), default=0)
    return "\n".join(f"{name:<{width}}  {_figure(value)}" for name, value in metrics.items())


def _figure(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

"""`etude validate` and `etude test`: metrics of a run's weights, as lines of name and value."""

import json
import math
from argparse import Namespace
from collections.abc import Mapping

from etude.app.cli.loading import open_run
from etude.app.cli.streams import put, say
from etude.app.cli.together import together
from etude.app.layout import columns
from etude.app.runs.run import Run
from etude.metrics.text import TEXT_METRICS
from etude.train.world import World


def validate(arguments: Namespace, overrides: list[str]) -> int:
    """Measure on the validation split."""

    def work(_: World) -> int:
        run = open_run(arguments, overrides)
        metrics = run.validate(weights=arguments.checkpoint, device=arguments.device)
        _print(run, "val", arguments, metrics)
        return 0

    return together(arguments, overrides, work)


def test(arguments: Namespace, overrides: list[str]) -> int:
    """Measure on the test split, and write its predictions."""

    def work(_: World) -> int:
        run = open_run(arguments, overrides)
        metrics = run.test(weights=arguments.checkpoint, device=arguments.device)
        _print(run, "test", arguments, metrics)
        _tell_files(run)
        return 0

    return together(arguments, overrides, work)


def _tell_files(run: Run) -> None:
    """Say what a test has written."""
    written = run.folder / "outputs" / "test.txt"
    if written.exists():
        say(f"Predictions: {written}")
    if "test" in run.loaded.config.train.save_outputs:
        for table in sorted(run.folder.glob("outputs/test.parquet")) or sorted(run.folder.glob("outputs/test.jsonl")):
            say(f"Outputs of each sample: {table}")


def _print(run: Run, split: str, arguments: Namespace, metrics: Mapping[str, float]) -> None:
    computed = run.precision(arguments.device)
    checkpoint = run.checkpoint(arguments.checkpoint).name
    say(f"{split} metrics of {run.folder}, checkpoint {checkpoint}, computed in {computed}:")
    told = dict(metrics) | signatures(metrics)
    put(json.dumps({name: plain(value) for name, value in told.items()}) if arguments.json else table(told))


def plain(value: object) -> object:
    """The value as JSON holds it: null for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def signatures(metrics: Mapping[str, float]) -> dict[str, str]:
    """For each metric of text, as `NAME_signature`, how sacrebleu computes it."""
    found = {}
    for name in metrics:
        kind = TEXT_METRICS.get(name.rpartition("/")[2])
        if kind is not None:
            metric = kind()
            metric.update(["a"], ["a"])
            metric.compute()  # only then the signature is whole
            found[f"{name}_signature"] = metric.signature
    return found


def table(metrics: Mapping[str, object]) -> str:
    """Lines of name and value, aligned."""
    return "\n".join(columns([(name, _figure(value)) for name, value in metrics.items()]))


def _figure(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

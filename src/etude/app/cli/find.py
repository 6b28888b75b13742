"""`etude find`: a learning rate by a range test, a batch size by memory and by the noise of gradients."""

import json
import math
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etude.app.cli.picture import check_picture, write_file
from etude.app.cli.streams import put, say
from etude.app.find.critical import Critical, check, critical
from etude.app.find.picture import svg
from etude.app.find.rates import RangeTest, range_test
from etude.app.find.sizes import Largest, largest
from etude.app.layout import columns
from etude.base.errors import ConfigError

RATE, SIZE = "learning_rate", "batch_size"


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Find what is asked for, and print it."""
    if arguments.picture is not None:
        if arguments.what != RATE:
            raise ConfigError(f"--picture is of etude find {RATE}.")
        check_picture(arguments.picture, "picture")
    if arguments.what == RATE:
        _rate(arguments, overrides)
    else:
        _size(arguments, overrides)
    return 0


def _rate(arguments: Namespace, overrides: list[str]) -> None:
    test = range_test(
        arguments.config, overrides, begin=arguments.begin, end=arguments.end, steps=arguments.steps, say=say
    )
    if arguments.json:
        put(json.dumps({"suggested": test.suggested} | asdict(test)))
    else:
        put("\n".join(told(test)))
    if arguments.picture is not None:
        title = f"{Path(arguments.config).name}: loss over the learning rate, {len(test.rates)} steps"
        write_file(arguments.picture, svg(test, title))


def told(test: RangeTest) -> list[str]:
    """What a range test found, in lines."""
    lines = [
        f"suggested peak  {test.suggested:.2g}  (a tenth of the rate at the lowest loss)",
        f"steepest fall   {test.steepest:.2g}",
        f"lowest loss     {test.lowest:.2g}  (smoothed loss {min(test.smoothed):.4g})",
    ]
    if not test.diverged:
        lines.append("The loss did not diverge: a greater --to may show a higher rate.")
    return lines


def _size(arguments: Namespace, overrides: list[str]) -> None:
    check(arguments.batches, arguments.after)
    fits = largest(arguments.config, overrides, say=say)
    noise = critical(arguments.config, overrides, batches=arguments.batches, after=arguments.after)
    if arguments.json:
        put(json.dumps(as_json(fits, noise)))
        return
    rows = [("size", "samples", "s a step", "samples a second", "memory"), *map(_cells, fits.tried)]
    put("\n".join(columns(rows, right=range(len(rows[0])))))
    put(f"largest   {fits.key} = {fits.size:,}; {fits.ended}")
    put("\n".join(noise_told(noise)))


def _cells(tried: Any) -> tuple[str, ...]:
    pace = f"{tried.samples / tried.seconds:,.0f}"
    return f"{tried.size:,}", f"{tried.samples:,}", f"{tried.seconds:.3g}", pace, f"{tried.bytes / 2**30:.2f} GiB"


def noise_told(noise: Critical) -> list[str]:
    """The critical batch size, in lines."""
    samples, low, high = (value * noise.samples for value in (noise.scale.value, noise.scale.low, noise.scale.high))
    tokens = noise.scale.value * noise.tokens
    lines = [f"critical  {_count(samples)} samples in a step (95 %: {_count(low)} to {_count(high)})"]
    if noise.tokens > noise.samples and math.isfinite(tokens):
        lines.append(f"          which count about {_count(tokens)} targets")
    lines.append(
        f"          by the noise of {noise.batches} batches at step {noise.after}; it usually grows in training."
    )
    if not math.isfinite(high):
        lines.append("          More --batches narrow it.")
    return lines


def _count(value: float) -> str:
    """Two digits of it are all that a measurement gives.

    >>> _count(1234.5), _count(0.52), _count(float("inf"))
    ('1,200', '0.52', 'any number of')
    """
    if not math.isfinite(value):
        return "any number of"
    return f"{value:.2g}" if value < 10 else f"{float(f'{value:.2g}'):,.0f}"  # noqa: PLR2004 - two digits


def as_json(fits: Largest, noise: Critical) -> dict[str, Any]:
    """Both as one object; what is not finite is null."""
    scale = {name: value if math.isfinite(value) else None for name, value in asdict(noise.scale).items()}
    samples = {name: value and value * noise.samples for name, value in scale.items()}
    return {
        "largest": {
            "key": fits.key,
            "size": fits.size,
            "ended": fits.ended,
            "bounded_by_memory": fits.bounded,
            "tried": [tried._asdict() for tried in fits.tried],
        },
        "critical": {
            "samples": samples,
            "batches": scale,
            "samples_a_batch": noise.samples,
            "tokens_a_batch": noise.tokens,
            "measured_batches": noise.batches,
            "after_steps": noise.after,
        },
    }

"""A model as ONNX, which other programs run: written by torch's exporter and compared with torch before it is believed.

Legend: B batch, T the length of a batch.
"""

import contextlib
import copy
import io
import logging
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.base.files import write_json
from etude.model.layers.exported_lstm import onnx_translations
from etude.tasks.kept import keep_processor
from etude.tasks.task_type import TOKENIZERS, Kept

GRAPH, FACTS = "model.onnx", "model.json"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""How far a number may lie from torch's, absolutely or as a share of it, whichever is more."""
BATCH, LENGTH = "batch", "length"
"""Sides that may have any size."""
DRAWN = (3, 24)
"""Samples and length of the batch that the exporter sees; nothing of the graph depends on them."""
COMPARED = ((1, 9), (4, 57))
"""Those of the batches that are compared."""

Array: TypeAlias = NDArray[Any]
Kind: TypeAlias = Literal["numbers", "gaps", "ids", "lengths"]
"""Of an input: float32 numbers, those with NaN where there is none, whole numbers from 0 on, or lengths from 1 on."""


@final
@dataclass(frozen=True)
class Given:
    """An input."""

    name: str
    kind: Kind
    sides: tuple[str | int, ...]
    """BATCH, LENGTH or a number each."""
    below: int = 0
    """ids: all are below this."""
    about: str = ""
    """What it holds, for people."""

    def drawn(self, batch: int, length: int) -> Tensor:
        """One that is as good as any: a function of its size alone."""
        draw = torch.Generator().manual_seed(batch)
        sizes: Mapping[str | int, int] = {BATCH: batch, LENGTH: length}
        shape = [int(sizes.get(side, side)) for side in self.sides]
        match self.kind:
            case "lengths":
                return torch.randint(1, length + 1, shape, generator=draw).index_fill(0, torch.tensor([0]), length)
            case "ids":
                return self._padded(torch.randint(min(1, self.below - 1), self.below, shape, generator=draw))
            case "gaps":
                numbers = torch.randn(shape, generator=draw)
                return numbers.masked_fill(numbers > 1, torch.nan)
        return torch.randn(shape, generator=draw)

    def _padded(self, ids: Tensor) -> Tensor:
        """The same; sequences but the first end in zeros."""
        if LENGTH in self.sides:
            ids[1:, (ids.size(1) + 1) // 2 :] = 0
        return ids

    @property
    def dynamic(self) -> dict[int, str]:
        """Its sides of any size."""
        return {place: side for place, side in enumerate(self.sides) if isinstance(side, str)}


@final
@dataclass(frozen=True)
class Drawing:
    """What is written: a network, and what its inputs and outputs are."""

    network: nn.Module
    """Takes the inputs in their order, and gives the outputs in theirs."""
    inputs: Sequence[Given]
    outputs: Mapping[str, str]
    """What each of them is, by name."""
    facts: Mapping[str, object]
    """What else one must know to use it."""
    longest: int = DRAWN[1] + COMPARED[1][1]
    """What it takes at most."""

    def batch(self, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Inputs of so many samples and at most such a length."""
        batch, length = size
        return tuple(given.drawn(batch, min(length, self.longest)) for given in self.inputs)


def write_onnx(drawing: Drawing, kept: Kept, folder: Path) -> str:
    """Write graph, facts and processor into `folder`, and say what they are.

    Raises ConfigError without the libraries, for a network that torch cannot export for any size, and where a number
    lies too far from torch's.
    """
    need_libraries()
    network = drawing.network.eval()
    _write_graph(copy.deepcopy(network), drawing, folder / GRAPH)  # tables of what was exported are of no use any more
    difference = max(_difference(network, drawing, size, folder / GRAPH) for size in COMPARED)
    keep_processor(kept.processor, folder / TOKENIZERS)
    taken = _session(folder / GRAPH).get_inputs()
    sides = {given.name: given for given in drawing.inputs}
    write_json(
        folder / FACTS,
        {
            "task": kept.plain["task"]["type"],
            "name": kept.config.run.name,
            "inputs": {one.name: {"shape": one.shape, "holds": sides[one.name].about} for one in taken},
            "outputs": dict(drawing.outputs),
            **drawing.facts,
            "tolerance": TOLERANCE,
            "difference": difference,
        },
    )
    return (
        f"{GRAPH} gives what torch gives, but for {difference:.1e} (at most {TOLERANCE:g} is allowed); {FACTS} says "
        f"what goes in and comes out: onnxruntime.InferenceSession({shlex.quote(str(kept.place / GRAPH))})"
    )


def need_libraries() -> None:
    """Raise ConfigError where one is missing."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX needs {missing[0]}, which is not installed: run pip install 'etude[onnx]'.")


def refuse_own(kept: Kept) -> ConfigError:
    """What is said of a task or model of the user's own."""
    return ConfigError(
        f"Code of your own has no ONNX form that Etude knows: the weights are {kept.weights}, torch.onnx.export does "
        "the rest."
    )


def _write_graph(network: nn.Module, drawing: Drawing, path: Path) -> None:
    try:
        with _quiet(), torch.no_grad():
            # By itself first: torch.onnx.export would try in more ways what cannot be done, for half a minute.
            names = tuple(given.dynamic for given in drawing.inputs)
            sizes = tuple(dict.fromkeys(sides, torch.export.Dim.DYNAMIC) for sides in names)
            exported = torch.export.export(network, drawing.batch(DRAWN), dynamic_shapes=sizes, strict=False)
            program = torch.onnx.export(
                exported,
                dynamo=True,
                verbose=False,
                input_names=[given.name for given in drawing.inputs],
                output_names=list(drawing.outputs),
                dynamic_shapes=names,
                custom_translation_table=onnx_translations(),
            )
            if program is not None:
                program.save(path)
    except Exception as error:
        raise ConfigError(
            "This model cannot be written as ONNX: torch's exporter does not take it for batches and sequences of any "
            "size (--debug shows where)."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let nothing of the exporter's through: it tells of its own deprecations, and of libraries that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _difference(network: nn.Module, drawing: Drawing, size: tuple[int, int], path: Path) -> float:
    """The largest distance from torch's numbers. Raises ConfigError where one is too large."""
    inputs = drawing.batch(size)
    with torch.no_grad():
        expected = network(*inputs)
    wanted = expected if isinstance(expected, tuple) else (expected,)
    names = [given.name for given in drawing.inputs]
    found = run_graph(_session(path), dict(zip(names, inputs, strict=True)))
    return max(
        _distance(name, one, other.numpy()) for name, one, other in zip(drawing.outputs, found, wanted, strict=True)
    )


def _distance(name: str, found: Array, expected: Array) -> float:
    if found.shape != expected.shape:
        raise ConfigError(f"The exported graph gives {name} of shape {found.shape}, where torch's is {expected.shape}.")
    distance = float(np.abs(found - expected).max(initial=0.0))
    if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise ConfigError(
            f"The exported graph gives {name} that differ from torch's by up to {distance:g}, where {TOLERANCE:g} is "
            "allowed: it is not written."
        )
    return distance


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_graph(session: Any, inputs: Mapping[str, Tensor]) -> list[Array]:
    """What a graph gives of inputs by name; those that it does not look at are left out of it."""
    taken = [one.name for one in session.get_inputs()]
    outputs: list[Array] = session.run(None, {name: inputs[name].numpy() for name in taken})
    return outputs

"""What a language model costs: parameters, operations a token, and what the machine can do at most."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import nn

from etude.model.decoder import Decoder
from etude.model.recurrent import Recurrent

CEILINGS: Mapping[str, tuple[float, float]] = {
    "B200": (2250e12, 1125e12),
    "H200": (989e12, 494e12),
    "H100 NVL": (835e12, 417e12),
    "H100 PCIe": (756e12, 378e12),
    "H100": (989e12, 494e12),
    "A100": (312e12, 156e12),
    "L40S": (362e12, 183e12),
    "L4": (121e12, 60e12),
    "RTX 4090": (165e12, 82e12),
    "RTX 3090": (71e12, 35e12),
}
"""Dense products a second in 16 bits and in TF32, by words of the device's name, of its maker's data sheets."""
SIDE, ROUNDS = 1024, 5
"""Of the product that is timed where no data sheet is known."""


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """How many numbers a model learns."""

    total: int
    """All of them; a shared one counts once."""
    embedding: int
    """Those that are looked up, of tokens and positions, whether they are the output layer as well or not."""

    @property
    def besides(self) -> int:
        """All but the embeddings."""
        return self.total - self.embedding

    def __str__(self) -> str:
        return f"{_millions(self.total)} parameters, {_millions(self.besides)} without embeddings"


def _millions(number: int) -> str:
    return f"{number / 1e6:,.1f} M" if number >= 100_000 else f"{number:,}"  # noqa: PLR2004 - the least that rounds to 0.1 M


def count_parameters(model: nn.Module) -> Parameters:
    """The parameters of a model."""
    looked_up = {p for part in model.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
    return Parameters(sum(p.numel() for p in model.parameters()), sum(p.numel() for p in looked_up))


def flops_per_token(model: nn.Module, length: int) -> float | None:
    """Floating-point operations of forward and backward for one token in a row of `length`; None where not known.

    6 N + 12 L H Q T as in appendix B of Chowdhery et al. 2022 (PaLM): N the weights that take part in a product, the
    output layer among them and embeddings not, L layers, H Q the width of all heads of a layer, T the length. Like
    there, attention is counted as if it were not causal. A recurrent model has no second term.
    """
    if not isinstance(model, Decoder | Recurrent):
        return None
    matrices = sum(p.numel() for p in model.layers.parameters() if p.ndim > 1)
    products = matrices + model.output_weight.numel()
    if isinstance(model, Recurrent):
        return 6.0 * (products + sum(p.numel() for p in model.narrow.parameters()))
    return 6.0 * products + 12.0 * model.config.layers * model.config.d_model * length


@cache
def matmul_ceiling(device: str, dtype: torch.dtype) -> float:
    """The most operations a second that a device (such as "cuda:0") reaches in matrix products of `dtype`.

    Known GPUs by their name, in 16 bits and (for float32) in TF32; everything else is timed once a process, with all
    of its threads, which takes a fraction of a second.
    """
    kind = torch.device(device)
    if kind.type == "cuda":
        words = set(re.split(r"[\s-]", torch.cuda.get_device_name(kind)))
        found = next((speeds for name, speeds in CEILINGS.items() if words.issuperset(name.split())), None)
        if found is not None:
            return found[1] if dtype == torch.float32 else found[0]
    return _timed(kind, dtype)


def _timed(device: torch.device, dtype: torch.dtype) -> float:
    left = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    result = left @ left
    times = []
    for _ in range(ROUNDS):
        _wait(device)
        start = time.perf_counter()
        torch.mm(left, left, out=result)
        _wait(device)
        times.append(time.perf_counter() - start)
    return 2.0 * SIDE**3 / min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""A language model as a careful person writes it in plain torch: nothing here comes from Etude.

A decoder of Llama's kind (rotary positions, rms norm, swiglu, tied output), causal attention in the open (on short rows
the flash kernel's backward is the slower one on a processor), bfloat16 autocast where asked for, AdamW (fused),
clipping.

Legend: B batch, T time, H heads, D width of a head, M width of the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The model, and the batches."""

    vocabulary: int = 4096
    layers: int = 4
    heads: int = 4
    width: int = 256
    inner: int = 704
    rows: int = 16
    length: int = 256


def rotary(length: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine [T, D] of the angles of each position."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * rates
    return torch.cat((angles, angles), 1).cos(), torch.cat((angles, angles), 1).sin()


class Layer(nn.Module):
    """Attention and feed-forward, each normalised before."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm, self.norm2 = nn.RMSNorm(shape.width, eps=1e-6), nn.RMSNorm(shape.width, eps=1e-6)
        self.joint = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.up = nn.Linear(shape.width, 2 * shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x_BTM: Tensor, turn: tuple[Tensor, Tensor], hidden_TT: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]."""
        b, t, m = x_BTM.shape
        joint = self.joint(self.norm(x_BTM)).view(b, t, 3, self.heads, m // self.heads)
        q, k, v = joint.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = turned(q, *turn), turned(k, *turn)
        scores = (q * q.size(-1) ** -0.5) @ k.transpose(-2, -1) + hidden_TT.to(q.dtype)
        x_BTM = x_BTM + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, m))
        gate, value = self.up(self.norm2(x_BTM)).chunk(2, -1)
        return x_BTM + self.down(F.silu(gate) * value)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), -1) * sin.to(x.dtype)


class LanguageModel(nn.Module):
    """Logits of the next token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=1e-6)
        self.turn = rotary(shape.length, shape.width // shape.heads)
        self.mask = torch.full((shape.length, shape.length), -30_000.0).triu(1)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """[B, T] to [B, T, V]."""
        x_BTM = self.embedding(tokens_BT)
        for layer in self.layers:
            x_BTM = layer(x_BTM, self.turn, self.mask)
        return F.linear(self.norm(x_BTM), self.embedding.weight)


class Training:
    """The loop; `train_steps(n)` goes on for n steps and gives the tokens they held."""

    def __init__(
        self, shape: Shape, batches: Iterator[tuple[Tensor, Tensor]], *, chunked: bool, autocast: bool
    ) -> None:
        torch.manual_seed(1)
        self.model = LanguageModel(shape).train()
        self.batches, self.chunked, self.autocast = batches, chunked, autocast
        self.parameters = list(self.model.parameters())
        matrices = [p for p in self.parameters if p.ndim > 1 and p is not self.model.embedding.weight]
        others = [p for p in self.parameters if p.ndim < 2 or p is self.model.embedding.weight]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = self.model(inputs).flatten(0, 1)
        if self.chunked:  # the float32 copy of the logits is made a part at a time
            parts = zip(logits.split(1024), targets.flatten().split(1024), strict=True)
            return sum(F.cross_entropy(a.float(), b, reduction="sum") for a, b in parts) / targets.numel()
        return F.cross_entropy(logits.float(), targets.flatten())

    def train_steps(self, steps: int) -> float:
        tokens = 0
        for _ in range(steps):
            inputs, targets = next(self.batches)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
                loss = self.loss(inputs, targets)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            tokens += targets.numel()
        return float(tokens)

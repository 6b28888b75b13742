"""The best translation training loop that an expert would write by hand in plain PyTorch: what Etude is measured by.

Nothing here imports Etude. Every lever can be released on its own: `levers.py` measures what each is worth, and
`translation_speed.py` runs this loop and Etude's in turns.

Legend: B batch, S source time, T target time, H heads, D width of a head, M width of the model, V vocabulary,
N targets.
"""
# Shapes stand in names, as in Etude's own models; forward and backward promise what torch says they do.
# ruff: noqa: N815, D101

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PAD, BOS, EOS = 0, 2, 3
SPECIALS = ["<pad>", "<unk>", "<bos>", "<eos>"]


@dataclass(frozen=True)
class Levers:
    """What makes the loop fast; each field's default is the fast way."""

    matmul: str = "medium"
    """`torch.set_float32_matmul_precision`."""
    autocast: bool = True
    """Products in bfloat16."""
    residual: bool = False
    """The residual stream in bfloat16 too: fewer casts, at some precision."""
    plain_attention: bool = True
    """An explicit softmax instead of torch's flash kernel."""
    byte_dropout: bool = True
    """Masks from random bytes; the rate is rounded to 1/256."""
    chunked_loss: bool = True
    """Projection and cross entropy over a few rows at a time, gradients in the same pass; no logits are kept."""
    buckets: bool = True
    """Batches of similar lengths instead of random order."""
    fused: bool = True
    """The fused AdamW."""


@dataclass(frozen=True)
class Recipe:
    """Model and optimizer."""

    width: int = 256
    feedforward: int = 1024
    layers: int = 3
    heads: int = 4
    dropout: float = 0.1
    vocabulary: int = 8000
    label_smoothing: float = 0.1
    batch_tokens: int = 4096
    """Samples times the longest sequence of either side."""
    learning_rate: float = 1e-3
    warmup: int = 400
    clip: float = 1.0
    loss_rows: int = 256
    log_every: int = 50
    seed: int = 1


class Corpus(NamedTuple):
    """Token ids: sources end with eos; targets begin with bos and end with eos."""

    pairs: list[tuple[list[int], list[int]]]
    vocabulary: int


def read_corpus(folder: Path, vocabulary: int, limit: int | None = None) -> Corpus:
    """English and German Multi30k in byte-level BPE of one shared vocabulary, trained on the training text."""
    english = (folder / "train.en").read_text("utf-8").splitlines()
    german = (folder / "train.de").read_text("utf-8").splitlines()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*english, *german], trainer)
    sources = tokenizer.encode_batch(english[:limit])
    targets = tokenizer.encode_batch(german[:limit])
    pairs = [([*s.ids, EOS], [BOS, *t.ids, EOS]) for s, t in zip(sources, targets, strict=True)]
    return Corpus(pairs, tokenizer.get_vocab_size())


class Batch(NamedTuple):
    """Padded to the longest of each side; `tokens` counts the targets of the loss."""

    source_BS: Tensor
    target_BT: Tensor
    tokens: int


def plan(
    pairs: list[tuple[list[int], list[int]]], budget: int, draw: random.Random, *, buckets: bool
) -> list[list[int]]:
    """One epoch's batches: shuffled, sorted by length, cut where the budget is full, and shuffled again."""
    order = list(range(len(pairs)))
    draw.shuffle(order)
    if buckets:
        order.sort(key=lambda i: (max(map(len, pairs[i])), (len(pairs[i][0]) - len(pairs[i][1]))))
    batches: list[list[int]] = [[]]
    longest = 0
    for i in order:
        longest = max(longest, *map(len, pairs[i]))
        if batches[-1] and (len(batches[-1]) + 1) * longest > budget:
            batches.append([])
            longest = max(map(len, pairs[i]))
        batches[-1].append(i)
    draw.shuffle(batches)
    return batches


def padded(rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def endless(corpus: Corpus, recipe: Recipe, levers: Levers) -> Iterator[Batch]:
    """Batches, epoch after epoch."""
    draw = random.Random(recipe.seed)
    while True:
        for rows in plan(corpus.pairs, recipe.batch_tokens, draw, buckets=levers.buckets):
            chosen = [corpus.pairs[i] for i in rows]
            tokens = sum(len(target) - 1 for _, target in chosen)
            yield Batch(padded([s for s, _ in chosen]), padded([t for _, t in chosen]), tokens)


class ByteDropout(torch.autograd.Function):
    """Dropout by one random byte an element; the rate is rounded to 1/256."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rate: float) -> Tensor:
        dropped = round(rate * 256)
        draws = torch.empty(-(-value.numel() // 8), dtype=torch.int64).random_(-(1 << 63), None).view(torch.uint8)
        kept = draws[: value.numel()].view(value.shape) >= dropped
        factor = kept.to(value.dtype).mul_(256 / (256 - dropped))
        ctx.save_for_backward(factor)
        return value * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of label-smoothed cross entropies of `hidden_NM @ weight_VM.T`, a few rows of logits at a time.

    The gradient is found on the way forward, so logits are never kept, and a chunk stays in the cache. Smoothing
    touches every logit alike, so its part of loss and gradient is a product with the summed weight: no pass over V.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NM: Tensor,
        weight_VM: Tensor,
        targets_N: Tensor,
        smoothing: float,
        rows: int,
        dtype: torch.dtype,
    ) -> Tensor:
        low_NM, low_VM = hidden_NM.to(dtype), weight_VM.to(dtype)
        hidden_gradient, weight_gradient = torch.empty_like(low_NM), torch.zeros_like(weight_VM)
        share, mean_M = smoothing / len(weight_VM), weight_VM.sum(0)
        total = -share * (hidden_NM.float().sum(0) @ mean_M)
        for start in range(0, len(targets_N), rows):
            chunk, targets = low_NM[start : start + rows], targets_N[start : start + rows, None]
            logits = (chunk @ low_VM.T).float()
            best = logits.amax(1, keepdim=True)
            picked = logits.gather(1, targets).sum()
            mass = logits.sub_(best).exp_().sum(1, keepdim=True)
            total += (mass.log() + best).sum() - (1 - smoothing) * picked
            gradient = logits.mul_(mass.reciprocal_()).scatter_add_(
                1, targets, torch.full(targets.shape, smoothing - 1.0)
            )
            low = gradient.to(dtype)
            hidden_gradient[start : start + rows] = low @ low_VM
            weight_gradient += low.T @ chunk
        hidden_gradient -= (share * mean_M).to(dtype)
        weight_gradient -= share * hidden_NM.float().sum(0)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.hidden_type = hidden_NM.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return (hidden_gradient * outer).to(ctx.hidden_type), weight_gradient * outer, None, None, None, None


class Dropout(nn.Module):
    def __init__(self, rate: float, *, by_bytes: bool) -> None:
        super().__init__()
        self.rate = rate
        self.by_bytes = by_bytes

    def forward(self, value: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return value
        return ByteDropout.apply(value, self.rate) if self.by_bytes else F.dropout(value, self.rate)


class Attention(nn.Module):
    """To itself (one product for query, key and value) or to a memory."""

    def __init__(self, recipe: Recipe, *, plain: bool, crossed: bool) -> None:
        super().__init__()
        width = recipe.width
        self.heads, self.plain = recipe.heads, plain
        self.query = nn.Linear(width, width) if crossed else None
        self.joint = nn.Linear(width, 2 * width if crossed else 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, hidden_BTM: Tensor, mask: Tensor, memory_BSM: Tensor | None = None) -> Tensor:
        if self.query is None or memory_BSM is None:
            parts = self.joint(hidden_BTM).unflatten(-1, (3, self.heads, -1))
            query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            query = self.query(hidden_BTM).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            key, value = self.joint(memory_BSM).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.plain:
            scores_BHTS = (query * (1.0 / math.sqrt(query.size(-1)))) @ key.transpose(-2, -1)
            mixed = scores_BHTS.add_(mask).softmax(-1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Pre-norm; a decoder's layer looks at the memory in between."""

    def __init__(self, recipe: Recipe, levers: Levers, *, decoder: bool) -> None:
        super().__init__()
        width = recipe.width
        self.own = Attention(recipe, plain=levers.plain_attention, crossed=False)
        self.cross = Attention(recipe, plain=levers.plain_attention, crossed=True) if decoder else None
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if decoder else 2))
        self.first, self.second = nn.Linear(width, recipe.feedforward), nn.Linear(recipe.feedforward, width)
        self.dropout = Dropout(recipe.dropout, by_bytes=levers.byte_dropout)

    def forward(
        self, hidden: Tensor, mask: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        hidden = hidden + self.dropout(self.own(self.norms[0](hidden), mask))
        if self.cross is not None and memory_mask is not None:
            hidden = hidden + self.dropout(self.cross(self.norms[1](hidden), memory_mask, memory))
        return hidden + self.dropout(self.second(F.relu(self.first(self.norms[-1](hidden)))))


class Translator(nn.Module):
    """A pre-norm transformer with one embedding for source, target and output; sinusoidal positions."""

    def __init__(self, recipe: Recipe, levers: Levers, vocabulary: int) -> None:
        super().__init__()
        self.recipe, self.levers = recipe, levers
        self.embedding = nn.Parameter(torch.randn(vocabulary, recipe.width) * recipe.width**-0.5)
        self.encoder = nn.ModuleList(Layer(recipe, levers, decoder=False) for _ in range(recipe.layers))
        self.decoder = nn.ModuleList(Layer(recipe, levers, decoder=True) for _ in range(recipe.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(recipe.width) for _ in range(2))
        self.dropout = Dropout(recipe.dropout, by_bytes=levers.byte_dropout)
        self.register_buffer("positions", sinusoids(512, recipe.width), persistent=False)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def embed(self, tokens: Tensor) -> Tensor:
        value = F.embedding(tokens, self.embedding) * math.sqrt(self.recipe.width) + self.positions[: tokens.size(1)]
        value = value.to(torch.bfloat16) if self.levers.autocast and self.levers.residual else value
        return self.dropout(value)

    def forward(self, source_BS: Tensor, decoder_input_BT: Tensor) -> Tensor:
        """The last hidden states [B, T, M]; logits are their product with the embedding."""
        dtype = torch.bfloat16 if self.levers.autocast else torch.float32
        hidden_score = torch.finfo(dtype).min / 4
        source_mask = torch.zeros(source_BS.shape, dtype=dtype).masked_fill_(source_BS == PAD, hidden_score)[
            :, None, None
        ]
        length = decoder_input_BT.size(1)
        causal_mask = torch.full((length, length), hidden_score, dtype=dtype).triu_(1)
        memory = self.embed(source_BS)
        for layer in self.encoder:
            memory = layer(memory, source_mask)
        memory = self.norms[0](memory)
        hidden = self.embed(decoder_input_BT)
        for layer in self.decoder:
            hidden = layer(hidden, causal_mask, memory, source_mask)
        return self.norms[1](hidden)


def sinusoids(length: int, width: int) -> Tensor:
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Training:
    """A model, its batches and its optimizer; `train_steps(n)` goes on where the last call ended."""

    def __init__(self, corpus: Corpus, recipe: Recipe = Recipe(), levers: Levers = Levers()) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.levers = recipe, levers
        self.model = Translator(recipe, levers, corpus.vocabulary).train()
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=levers.fused
        )
        self.batches = endless(corpus, recipe, levers)
        self.step = 0
        self.losses: list[float] = []

    def loss(self, batch: Batch) -> Tensor:
        """The mean over the batch's targets."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.levers.autocast):
            hidden = self.model(batch.source_BS, batch.target_BT[:, :-1]).flatten(0, 1)
        targets = batch.target_BT[:, 1:].flatten()
        if self.levers.chunked_loss:
            real = (targets != PAD).nonzero()[:, 0]
            total = ChunkedCrossEntropy.apply(
                hidden.index_select(0, real),
                self.model.embedding,
                targets[real],
                self.recipe.label_smoothing,
                self.recipe.loss_rows,
                torch.bfloat16 if self.levers.autocast else torch.float32,
            )
            return total / batch.tokens
        with torch.autocast("cpu", torch.bfloat16, enabled=self.levers.autocast):
            logits = F.linear(hidden, self.model.embedding)
        return F.cross_entropy(logits.float(), targets, ignore_index=PAD, label_smoothing=self.recipe.label_smoothing)

    def train_steps(self, steps: int) -> int:
        """Take steps; returns how many targets they had."""
        torch.set_float32_matmul_precision(self.levers.matmul)
        tokens = 0
        for _ in range(steps):
            batch = next(self.batches)
            loss = self.loss(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
            scale = min((self.step + 1) / self.recipe.warmup, (self.recipe.warmup / (self.step + 1)) ** 0.5)
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * scale
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            tokens += batch.tokens
            if self.step % self.recipe.log_every == 0:
                self.losses.append(loss.item())
        return tokens

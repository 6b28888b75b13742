"""Host time of a step in Etude above a hand-written loop that does the same work.

Same small model, same batches from a list, AdamW (fused), clipping, a cosine schedule of the learning rate, and a line
of JSON every 50 steps on both sides; Etude also checks that loss and gradient are finite and keeps its State. A second
hand-written loop shows how much of a difference is noise. The last rows have ten callbacks that do nothing.

    python benchmarks/loop_cost.py --rounds 40
"""

import argparse
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from alternating import ETUDE, Alternating, AlternatingFeed
from measuring import Section, print_section
from torch import Tensor, nn

import etude

CLASSES, LOG_EVERY, PEAK = 10, 50, 1e-3
Batches = list[tuple[Tensor, Tensor]]


def perceptron() -> nn.Module:
    """A multi-layer perceptron of 20 parameter tensors."""
    sizes = [32, *[64] * 9, CLASSES]
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class TinyTransformer(nn.Module):
    """Four layers, 53 parameter tensors, one label for each token."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.embedding = nn.Embedding(100, 32)
        self.layers = nn.TransformerEncoder(layer, 4, norm=nn.LayerNorm(32), enable_nested_tensor=False)
        self.output = nn.Linear(32, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] to [B, T, classes]."""
        return self.output(self.layers(self.embedding(tokens)))


def features(draw: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(16, 32, generator=draw), torch.randint(CLASSES, (16,), generator=draw)


def tokens(draw: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randint(100, (8, 16), generator=draw), torch.randint(CLASSES, (8, 16), generator=draw)


WORKLOADS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator], tuple[Tensor, Tensor]]]] = {
    "perceptron": (perceptron, features),
    "transformer": (TinyTransformer, tokens),
}


class Handwritten:
    """The loop that a careful person writes; `run(n)` goes on for n steps."""

    def __init__(self, model: nn.Module, batches: Batches, total: int, log: Path) -> None:
        self.model, self.total = model.train(), total
        self.parameters = list(model.parameters())
        groups = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=PEAK, fused=True)
        self.batches = itertools.cycle(batches)
        self.log = log.open("w", encoding="utf-8")
        self.step = 0

    def run(self, steps: int) -> float:
        """Take steps; returns how many."""
        for _ in range(steps):
            inputs, targets = next(self.batches)
            loss = F.cross_entropy(self.model(inputs).flatten(0, -2), targets.flatten())
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            rate = PEAK * 0.5 * (1 + math.cos(math.pi * self.step / self.total))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            if self.step % LOG_EVERY == 0:
                line = {"step": self.step, "loss": loss.item(), "grad_norm": norm.item(), "learning_rate": rate}
                self.log.write(json.dumps(line) + "\n")
                self.log.flush()
        return float(steps)


class Empty(etude.Callback):
    """A callback that listens to every event of a step, and does nothing."""

    def on_step_start(self, run: Any) -> None: ...

    def on_batch_start(self, run: Any, batch: Any) -> None: ...

    def on_before_backward(self, run: Any, loss: Any) -> None: ...

    def on_after_backward(self, run: Any) -> None: ...

    def on_before_step(self, run: Any, optimizer: Any) -> None: ...

    def on_batch_end(self, run: Any, batch: Any) -> None: ...

    def on_step_end(self, run: Any, outcome: Any) -> None: ...


class Ending(etude.Callback):
    """The same for the one event that most callbacks want."""

    def on_step_end(self, run: Any, outcome: Any) -> None: ...


def measure(
    workload: str, *, rounds: int, steps: int, own_feed: bool, callbacks: Sequence[Any] = (), kind: str = "none"
) -> list[str]:
    """One row: microseconds of a step by hand, above it with Etude, and above it by hand again."""
    make_model, make_batch = WORKLOADS[workload]
    draw = torch.Generator().manual_seed(1)
    batches = [make_batch(draw) for _ in range(64)]
    model = make_model()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        total = steps * (rounds + 2)
        first = Handwritten(make_model(), batches, total, place / "first.jsonl")
        second = Handwritten(make_model(), batches, total, place / "second.jsonl")
        others = {"by hand": first.run, "by hand again": second.run}

        def forever() -> Iterator[Any]:
            return itertools.cycle(batches)

        data = Alternating(forever, others, steps=steps, rounds=rounds, clock=time.process_time)
        etude.fit(
            model,
            AlternatingFeed(data, samples=lambda batch: len(batch[0])) if own_feed else data,
            loss=etude.losses.CrossEntropy(),
            max_duration=f"{data.total_steps} steps",
            save_every=f"{data.total_steps} steps",
            log_every=f"{LOG_EVERY} steps",
            clip_grad=1.0,
            optimizer="adamw",
            learning_rate={"schedule": "cosine", "peak": PEAK},
            precision="float32",
            device="cpu",
            run_dir=place / "run",
            callbacks=list(callbacks),
            say=lambda _: None,
        )
    costs = data.costs()
    above, noise = costs.difference(ETUDE, "by hand"), costs.difference("by hand again", "by hand")
    tensors = len(list(model.parameters()))
    return [
        f"{workload}, {tensors} tensors",
        "Etude's feed" if own_feed else "any iterable",
        kind,
        f"{costs.median('by hand') * 1e6:.0f}",
        f"{above * 1e6:+.1f}",
        f"{noise * 1e6:+.1f}",
    ]


def section(*, rounds: int, steps: int) -> Section:
    torch.set_num_threads(1)
    return Section(
        "Host cost of a step",
        f"Microseconds of processor time per step (other programs do not disturb it), one thread: "
        f"medians over {rounds} rounds of {steps} steps per side, alternating, in one run. "
        "The goal is at most 30 above a hand-written loop.",
        ["model", "batches from", "callbacks", "by hand", "Etude above it", "a second hand-written loop above it"],
        [
            *[measure(w, rounds=rounds, steps=steps, own_feed=own) for w in WORKLOADS for own in (True, False)],
            *[
                measure("perceptron", rounds=rounds, steps=steps, own_feed=True, callbacks=made, kind=kind)
                for kind, made in (
                    ("ten, on_step_end", [Ending() for _ in range(10)]),
                    ("ten, all seven events of a step", [Empty() for _ in range(10)]),
                )
            ],
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100, help="steps of a side in each round; a multiple of 50")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    print_section(section(rounds=arguments.rounds, steps=arguments.steps), markdown=arguments.markdown)


if __name__ == "__main__":
    main()

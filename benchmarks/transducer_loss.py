"""The transducer loss with its hand-written gradient, against autograd through the lattice, and torch's CTC beside it.

Time is of the forward and the backward of the logits, their softmax included. Memory is the most that a fresh process
held above the logits and their gradient, as the kernel counts it. Linux only.

    python benchmarks/transducer_loss.py --rounds 20
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from measuring import Interleaved, Section, clock, print_section
from torch import Tensor

from etude.model.losses.transducer import Transducer

ETUDE, AUTOGRAD, CTC = "Etude", "autograd through the lattice", "torch's CTC of [T, B, V]"
MEGABYTE = 1e6


def through_the_lattice(logits_BTUV: Tensor, targets_BL: Tensor) -> Tensor:
    """The same loss of sequences that are all as long as the batch, row by row of the lattice, left to autograd."""
    log_probs = logits_BTUV.log_softmax(-1)
    blank_BTU = log_probs[..., 0]
    label_BTL = log_probs[:, :, :-1].gather(-1, targets_BL[:, None, :, None].expand(-1, log_probs.size(1), -1, 1))[
        ..., 0
    ]
    along_BTU = F.pad(label_BTL.cumsum(-1), (1, 0))
    row_BU = along_BTU[:, 0]
    for frame in range(1, logits_BTUV.size(1)):
        above_BU = row_BU + blank_BTU[:, frame - 1]
        row_BU = along_BTU[:, frame] + (above_BU - along_BTU[:, frame]).logcumsumexp(-1)
    return -(row_BU[:, -1] + blank_BTU[:, -1, -1]).sum()


class Case:
    """One batch, whose sequences are all as long."""

    def __init__(self, batch: int, frames: int, labels: int, classes: int) -> None:
        draw = torch.Generator().manual_seed(1)
        self.logits = torch.randn(batch, frames, labels + 1, classes, generator=draw)
        self.targets = torch.randint(1, classes, (batch, labels), generator=draw)
        self.lengths = torch.full((batch,), frames), torch.full((batch,), labels)

    def etude(self, logits: Tensor) -> Tensor:
        frames, labels = self.lengths
        return Transducer()(logits, frames, self.targets, labels).sum

    def autograd(self, logits: Tensor) -> Tensor:
        return through_the_lattice(logits, self.targets)

    def ctc(self, logits: Tensor) -> Tensor:
        return F.ctc_loss(logits.log_softmax(-1), self.targets, *self.lengths, reduction="sum")

    def gradient(self, loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
        leaf = logits.detach().requires_grad_()
        loss(leaf).backward()
        assert leaf.grad is not None
        return leaf.grad


def resident(field: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def most_held(case: Case, side: str) -> int:
    """Bytes above the logits and their gradient, in this process."""
    loss = case.etude if side == ETUDE else case.autograd
    Case(2, 3, 2, 4).gradient(Case(2, 3, 2, 4).etude, torch.zeros(2, 3, 3, 4))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the kernel counts its peak anew
    gradient = case.gradient(loss, case.logits)
    return resident("VmHWM") - before - gradient.nbytes


def section(sizes: list[int], rounds: int) -> Section:
    case = Case(*sizes)
    frames_TBV = case.logits[:, :, 0].transpose(0, 1).contiguous()
    sides = {
        ETUDE: partial(case.gradient, case.etude, case.logits),
        AUTOGRAD: partial(case.gradient, case.autograd, case.logits),
        CTC: partial(case.gradient, case.ctc, frames_TBV),
    }
    exact = case.gradient(case.autograd, case.logits.double())
    errors = {side: f"{float((sides[side]() - exact).abs().max()):.1e}" for side in (ETUDE, AUTOGRAD)}

    def once(side: str) -> float:
        sides[side]()
        return 1

    costs = Interleaved({side: partial(once, side) for side in sides}, clock(1)).costs(rounds)
    rows = [
        [side, f"{1000 * costs.median(side):.1f}", f"{1000 * min(costs.values[side]):.1f}", held(side, sizes), error]
        for side in sides
        for error in [errors.get(side, "")]
    ]
    batch, frames, labels, classes = sizes
    return Section(
        "Transducer loss",
        f"Forward and backward, {batch} sequences of {frames} frames, {labels} labels, {classes} classes; 1 thread, in "
        f"processor time, {rounds} rounds. Memory is above the logits and their gradient, the largest error of the "
        "gradient is against float64.",
        ["loss", "ms (median)", "ms (least)", "MB", "error"],
        rows,
    )


def held(side: str, sizes: list[int]) -> str:
    """What a fresh process held at most, in MB; nothing of CTC, whose logits are others."""
    if side == CTC:
        return ""
    command = [sys.executable, __file__, "--side", side, "--sizes", *map(str, sizes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this very script
    return f"{int(done.stdout) / MEGABYTE:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=4, default=[16, 100, 25, 30], help="B T L V")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--side", choices=[ETUDE, AUTOGRAD], help=argparse.SUPPRESS)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.side:
        print(most_held(Case(*arguments.sizes), arguments.side))
    else:
        print_section(section(arguments.sizes, arguments.rounds), markdown=arguments.markdown)


if __name__ == "__main__":
    main()

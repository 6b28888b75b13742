"""Memory of one training step of a small language model with a large vocabulary: Etude's loss against plain logits.

Each side is a fresh process, which counts the most anonymous memory of its steps above what it had before the model was
made. Linux only.

    python benchmarks/lm_loss_memory.py --vocabulary 50000 --tokens 4096
"""

import argparse
import subprocess
import sys

from measuring import Section, print_section
from memory import Peak, anonymous

SIDES = ("plain logits", "from the hidden layer")


def peak_of(side: str, *, vocabulary: int, tokens: int, steps: int) -> int:
    """Bytes that training needs at most, in this process."""
    import torch
    import torch.nn.functional as F

    from etude.model.decoder import Decoder
    from etude.model.decoder_config import DecoderConfig
    from etude.model.losses import CrossEntropy

    length = 256
    rows = torch.randint(vocabulary, (tokens // length, length + 1))
    before = anonymous()
    model = Decoder(DecoderConfig(size="tiny", max_positions=length), vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    with Peak() as peak:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = model.hidden(rows[:, :-1])
                if side == SIDES[0]:
                    logits = F.linear(hidden, model.output_weight)
                    loss = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())
                else:
                    loss = CrossEntropy().from_hidden(hidden, model.output_weight, rows[:, 1:]).value
            loss.backward()
            optimizer.step()
    return peak.most - before


def section(*, vocabulary: int, tokens: int, steps: int) -> Section:
    """Both sides, each in a process of its own."""
    sizes = []
    for side in SIDES:
        command = [sys.executable, __file__, "--side", side, "--vocabulary", str(vocabulary)]
        command += ["--tokens", str(tokens), "--steps", str(steps)]
        sizes.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))  # noqa: S603
    rows = [
        [side, f"{size / 2**20:,.0f}", f"{1 - size / sizes[0]:.0%}"] for side, size in zip(SIDES, sizes, strict=True)
    ]
    return Section(
        "Memory of the loss over a large vocabulary",
        f"A decoder of size tiny, {vocabulary:,} tokens of vocabulary, {tokens:,} tokens per step, bfloat16 autocast, "
        f"AdamW, on the CPU; peak memory of {steps} steps, model and optimizer included.",
        ["loss", "MiB", "less by"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=50_000)
    parser.add_argument("--tokens", type=int, default=4096, help="of a step")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    sizes = {"vocabulary": arguments.vocabulary, "tokens": arguments.tokens, "steps": arguments.steps}
    if arguments.side:
        print(peak_of(arguments.side, **sizes))
    else:
        print_section(section(**sizes), markdown=arguments.markdown)


if __name__ == "__main__":
    main()

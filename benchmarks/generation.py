"""Generation with the cache against computing the whole context for every token.

The cached side generates all the tokens. The other would take minutes: its time is that of single tokens at several
lengths, spread over the way, times the number of tokens.

    python benchmarks/generation.py --tokens 512
"""

import argparse
import os
import statistics
import time

import torch
from measuring import Section, print_section

from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.recurrent import Recurrent, RecurrentConfig
from etude.search.next_token import Options
from etude.search.sampling import generate

POINTS = 8


def cached_seconds(model: torch.nn.Module, tokens: int, rows: int) -> float:
    """Of generating `tokens` tokens in each of so many rows."""
    prompts = [[1 + row] for row in range(rows)]
    start = time.perf_counter()
    generate(model, prompts, Options(max_tokens=tokens, temperature=0.0))
    return time.perf_counter() - start


def uncached_seconds(model: torch.nn.Module, tokens: int) -> float:
    """Of the same for one row, from the time of single tokens at `POINTS` lengths."""
    single = []
    for point in range(POINTS):
        length = int((point + 0.5) * tokens / POINTS)
        start = time.perf_counter()
        generate(model, [list(range(1, length + 1))], Options(max_tokens=1, temperature=0.0), cached=False)
        single.append(time.perf_counter() - start)
    return statistics.mean(single) * tokens


def section(*, tokens: int, rounds: int, threads: int) -> Section:
    """Both sides in turns, for the 124 M shape and for a small one, with one row and with eight."""
    torch.set_num_threads(threads)
    models: dict[str, torch.nn.Module] = {
        "gpt2 124m": Decoder(DecoderConfig(preset="gpt2", size="124m"), 50_257).eval(),
        "llama 110m": Decoder(DecoderConfig(preset="llama", size="110m"), 32_000).eval(),
        "lstm 2 x 1024": Recurrent(RecurrentConfig(d_model=1024), 10_000).eval(),
    }
    rows = []
    for name, model in models.items():
        cached_seconds(model, 4, 1)
        ones, eights, whole = [], [], []
        for _ in range(rounds):
            ones.append(cached_seconds(model, tokens, 1))
            whole.append(uncached_seconds(model, tokens))
            eights.append(cached_seconds(model, tokens, 8))
        faster = statistics.median(b / a for a, b in zip(ones, whole, strict=True))
        one, eight, slow = (statistics.median(times) for times in (ones, eights, whole))
        rows.append(
            [name, f"{tokens / one:,.1f}", f"{8 * tokens / eight:,.1f}", f"{tokens / slow:,.1f}", f"{faster:.1f}"]
        )
    return Section(
        "Generation",
        f"Tokens/s over {tokens} greedy tokens from a prompt of one, float32, threads: {threads}, wall time; "
        f"medians of {rounds} rounds.",
        ["model", "cached", "cached, 8 rows together", "uncached", "cached is faster by"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    result = section(tokens=arguments.tokens, rounds=arguments.rounds, threads=arguments.threads)
    print_section(result, markdown=arguments.markdown)


if __name__ == "__main__":
    main()

"""From a checkpoint at step 1,000,000 to its next batch, in corpora of computed samples.

python benchmarks/seek.py
"""

import argparse

from measuring import Section, print_section
from next_batch import next_batch_seconds

SIZES = (10**6, 10**8, 10**9)


def section(*, repeats: int) -> Section:
    rows = []
    for samples in SIZES:
        by_count = next_batch_seconds(samples, repeats=repeats, batch_size=64)
        by_tokens = next_batch_seconds(samples, repeats=repeats, batch_tokens=4096)
        rows.append([f"{samples:,}", f"{by_count * 1e3:.2f} ms", f"{by_tokens * 1e3:.1f} ms"])
    return Section(
        "From a checkpoint to its next batch",
        f"A fresh feed is asked for the batch after step 1,000,000: medians of {repeats}. "
        "The goals are 10 ms by count and "
        "100 ms by tokens.",
        ["samples", "batches of 64", "batches of 4,096 tokens"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    print_section(section(repeats=arguments.repeats), markdown=arguments.markdown)


if __name__ == "__main__":
    main()

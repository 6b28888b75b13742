"""Flags of `etude predict` that a model of the transformers library takes."""

from etude.tasks.flags import (
    BEST_LINES,
    MAX_TOKENS,
    PROMPT,
    PROMPT_OR_FILE,
    REPETITION_PENALTY,
    SCORE,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
)

FLAGS = (*BEST_LINES, PROMPT, SCORE, MAX_TOKENS, TEMPERATURE, TOP_K, TOP_P, REPETITION_PENALTY, SEED)

TOGETHER = PROMPT_OR_FILE | {
    ("score", word): f"--score tells how likely text is and completes nothing: leave out --{word.replace('_', '-')}"
    for word in ("n_best", "beam_size", "max_tokens", "temperature")
}
"""Flags that contradict each other, and what to do."""

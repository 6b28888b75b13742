"""Flags of `etude predict` that a language model takes."""

from etude.tasks.flags import (
    ELSEWHERE,
    MAX_TOKENS,
    PROMPT,
    REPETITION_PENALTY,
    SCORE,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    Flag,
)

WHOLE = Flag("whole", "the whole input is one prompt", refused=ELSEWHERE)
RAW = Flag("raw", "write completions unescaped, with their line breaks", refused=ELSEWHERE)
SAMPLES = Flag("samples", "completions per prompt", "N", int, key="task.samples", refused=ELSEWHERE)
MIN_P = Flag(
    "min-p",
    "sample from tokens at least P times as likely as the top one",
    "P",
    float,
    key="task.min_p",
    refused=ELSEWHERE,
)
STOP = Flag(
    "stop",
    "end a completion before this text; repeatable",
    "TEXT",
    repeats=True,
    key="task.stop",
    refused=ELSEWHERE,
)

FLAGS = (
    PROMPT,
    WHOLE,
    RAW,
    SCORE,
    MAX_TOKENS,
    SAMPLES,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    MIN_P,
    REPETITION_PENALTY,
    STOP,
    SEED,
)

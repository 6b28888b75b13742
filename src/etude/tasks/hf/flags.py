"""Flags of `etude predict` that a model of the transformers library takes."""

from etude.tasks.flags import BEST_LINES, MAX_TOKENS, REPETITION_PENALTY, SEED, TEMPERATURE, TOP_K, TOP_P

FLAGS = (*BEST_LINES, MAX_TOKENS, TEMPERATURE, TOP_K, TOP_P, REPETITION_PENALTY, SEED)

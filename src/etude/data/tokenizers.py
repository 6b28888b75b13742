"""A run's tokenizer for scripts: `load_tokenizer("runs/numbers/tokenizers/shared.json")`."""

from etude.data.tokens.tokenizers import Tokenizer, load_tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]

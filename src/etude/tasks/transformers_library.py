"""The `transformers` library, where it is installed: asked for quietly, and never to run code or fetch anything."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from etude.base.errors import ConfigError
from etude.base.files import fsync_file, fsync_folder


class LibraryTokenizer(Protocol):
    """What is asked of a tokenizer of the library."""

    eos_token_id: int
    pad_token_id: int | None
    chat_template: object
    added_tokens_encoder: Mapping[str, int]
    backend_tokenizer: Any
    special_tokens_map: object

    def __call__(self, *texts: str, **options: object) -> Any:
        """The ids of a text, and what else is asked for, by name."""

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], **options: object) -> Any:
        """A conversation as text, or as ids."""

    def convert_ids_to_tokens(self, ids: int) -> str:
        """A token as text."""

    def save_pretrained(self, folder: Path) -> object:
        """Write it."""


class LibraryModel(Protocol):
    """What is asked of a model of the library."""

    config: Any
    generation_config: Any
    device: torch.device

    def generate(self, **options: object) -> torch.Tensor:
        """Prompts with what follows them."""

    def save_pretrained(self, folder: Path) -> object:
        """Write config and weights."""


def transformers() -> Any:
    """The library. Raises ConfigError where it is not installed."""
    try:
        import transformers as library
    except ImportError as error:
        raise ConfigError(
            "transformers is needed for this, and is not installed: run pip install 'etude[hf]'."
        ) from error
    return library


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let the library neither log, warn nor draw bars inside the block: Etude says itself what must be said."""
    logging = transformers().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def write_parts(model: LibraryModel, tokenizer: LibraryTokenizer, folder: Path) -> None:
    """Write all but the weights into the existing `folder`, durable. Raises OSError."""
    with quiet():
        model.config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            fsync_file(file)
    fsync_folder(folder)


def write_model(model: LibraryModel, tokenizer: LibraryTokenizer, folder: Path) -> str:
    """Write a model with its tokenizer into the existing `folder`; say what it is."""
    with quiet():
        model.save_pretrained(folder)
    write_parts(model, tokenizer, folder)
    kind = "Seq2SeqLM" if model.config.is_encoder_decoder else "CausalLM"
    return f"{type(model).__name__} of transformers, which AutoModelFor{kind}.from_pretrained reads, and its tokenizer."

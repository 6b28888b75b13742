"""The `[tokenizer]` section: one kind for both sides of the pairs, or one for each."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import CoreSchema, PydanticCustomError

from etude.base.config.components import Component, is_import_path
from etude.base.config.fields import PathField
from etude.base.config.section import Section

LARGEST = 2**31
"""Vocabularies stay below this: ids have 32 bits."""


class Trained(Section):
    """What every kind that Etude makes has in common."""

    lowercase: bool = False
    """Convert text to lower case first; decoding does not restore capitals."""

    normalize: Literal["nfc", "nfkc", False] = False
    """Unicode form to normalise text to first; by default text stays unchanged."""


class BpeConfig(Trained):
    """Byte-pair encoding on bytes (Sennrich et al. 2016): the pairs that occur most often become tokens."""

    type: Literal["bpe"] = "bpe"

    vocab_size: int = Field(default=8000, ge=260, lt=LARGEST)
    """How many tokens at most: 4 special ones, 256 bytes, and what is learned; data may yield fewer."""

    min_frequency: int = Field(default=2, ge=1)
    """How often a pair must occur to become a token."""


class WordpieceConfig(Trained):
    """The vocabulary of `bpe`, used from the longest match on (Schuster and Nakajima 2012)."""

    type: Literal["wordpiece"] = "wordpiece"

    vocab_size: int = Field(default=8000, ge=260, lt=LARGEST)
    """How many tokens at most: 4 special ones, 256 bytes, and what is learned; data may yield fewer."""

    min_frequency: int = Field(default=2, ge=1)
    """How often a pair must occur to become a token."""


class UnigramConfig(Trained):
    """A unigram language model over pieces (Kudo 2018), on bytes: the most probable segmentation is taken."""

    type: Literal["unigram"] = "unigram"

    vocab_size: int = Field(default=8000, ge=260, lt=LARGEST)
    """How many tokens at most: 4 special ones, 256 bytes, and what is learned; data may yield fewer."""


class WordConfig(Trained):
    """Words and signs as they stand; what training has not seen is unknown. Spaces are kept."""

    type: Literal["word"] = "word"

    vocab_size: int = Field(default=8000, ge=5, lt=LARGEST)
    """How many tokens at most, the most frequent ones, with 4 special ones."""

    min_frequency: int = Field(default=1, ge=1)
    """How often a word must occur to be known."""


class CharConfig(Trained):
    """Single characters (code points); what training has not seen is unknown."""

    type: Literal["char"] = "char"

    vocab_size: int = Field(default=8000, ge=5, lt=LARGEST)
    """How many tokens at most, the most frequent ones, with 4 special ones."""

    min_frequency: int = Field(default=1, ge=1)
    """How often a character must occur to be known."""


class ByteConfig(Trained):
    """The bytes of UTF-8: byte b is id 4 + b, and the size is 260."""

    type: Literal["byte"] = "byte"


class FileConfig(Section):
    """A `tokenizer.json` that Etude or the `tokenizers` library wrote, used as it is."""

    type: Literal["file"] = "file"

    path: PathField
    """Where the file is."""


TokenizerConfig = BpeConfig | WordpieceConfig | UnigramConfig | WordConfig | CharConfig | ByteConfig | FileConfig
TOKENIZERS: dict[str, type[Section]] = {
    "bpe": BpeConfig,
    "unigram": UnigramConfig,
    "wordpiece": WordpieceConfig,
    "word": WordConfig,
    "char": CharConfig,
    "byte": ByteConfig,
    "file": FileConfig,
}
"""The kinds by the name that `type` takes."""


@dataclass(frozen=True)
class TokenizerKind(Component):
    """A field that holds one of the kinds; no import path, since a run's tokenizer is kept as a file."""

    def section(self, value: Any) -> type[Section] | None:
        """Find the section that a table is validated as; None for an import path."""
        if is_import_path(value.get("type") if isinstance(value, dict) else value):
            return None
        return super().section(value)


class TokenizerPair(Section):
    """A tokenizer for each side: `[tokenizer.source]` and `[tokenizer.target]`."""

    source: Annotated[TokenizerConfig, TokenizerKind(TOKENIZERS, "bpe")] = BpeConfig()
    """How the source text becomes tokens."""

    target: Annotated[TokenizerConfig, TokenizerKind(TOKENIZERS, "bpe")] = BpeConfig()
    """How the target text becomes tokens."""


@dataclass(frozen=True)
class TokenizerChoice(TokenizerKind):
    """The type of the `[tokenizer]` field: a kind that both sides share, or a table with `source` and `target`."""

    def section(self, value: Any) -> type[Section] | None:
        """Find the section that a table is validated as: a pair where it names a side and no type."""
        if isinstance(value, dict) and "type" not in value and not value.keys().isdisjoint(("source", "target")):
            return TokenizerPair
        return super().section(value)

    def _read(self, value: Any) -> Section:
        if isinstance(value, dict) and "type" in value and not value.keys().isdisjoint(("source", "target")):
            raise PydanticCustomError("tokenizer", "must be one kind or a table for each side, but is both")
        return value if isinstance(value, TokenizerPair) else super()._read(value)

    def _write(self, value: Section, info: Any) -> dict[str, Any]:
        if isinstance(value, TokenizerPair):
            return value.model_dump(mode=info.mode, by_alias=info.by_alias, exclude_unset=info.exclude_unset)
        return super()._write(value, info)

    def _describe(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        shared = super()._describe(schema, handler)
        two = {"title": "two"} | dict(handler(TokenizerPair.__pydantic_core_schema__))
        return shared | {"oneOf": [*shared["oneOf"], two]}


TokenizerField = Annotated[TokenizerConfig | TokenizerPair, TokenizerChoice(TOKENIZERS, "bpe")]
"""The type of the `tokenizer` key."""

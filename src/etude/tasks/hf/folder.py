"""A `transformers` folder: its config, tokenizer and weights, read without ever running code of its own or a pickle."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, final

import torch

from etude.base.config.fields import PathField
from etude.base.config.section import Section
from etude.base.errors import ConfigError, RefusedError, StorageError
from etude.base.files import whole_folder
from etude.base.regular import read_regular
from etude.data.tokens.tokenizers import is_failure
from etude.tasks.task_type import Processor
from etude.tasks.transformers_library import LibraryModel, quiet, transformers, write_parts

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST_JSON = 1 << 26
"""Bytes; a larger file is no config."""

Made = TypeVar("Made")
Kind = Literal["auto", "causal", "seq2seq"]


class HfModelConfig(Section):
    """`[model] type = "hf"`: a model of the transformers library, from a folder."""

    type: Literal["hf"] = "hf"
    path: PathField
    """The folder that the library's `save_pretrained` wrote: config.json, weights in safetensors, a tokenizer."""
    kind: Kind = "auto"
    """How to load it: as a causal language model, as a sequence-to-sequence model, or as its config says."""
    from_scratch: bool = False
    """Draw new weights from the folder's config and the seed, instead of reading its weights."""


@final
@dataclass(frozen=True)
class HfParts(Processor):
    """What a folder gives."""

    model: Any
    """A `PreTrainedModel` with float32 weights."""
    tokenizer: Any
    """A `PreTrainedTokenizerFast`."""
    seq2seq: bool
    """Whether the model reads a source and writes a target."""

    def save(self, folder: Path) -> None:
        """Write config and tokenizer, but no weights, whole or not at all; a run keeps those it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            write_parts(self.model, self.tokenizer, part)


def load_parts(config: HfModelConfig, *, seed: int = 1) -> HfParts:
    """Read model and tokenizer of `config.path`; with `from_scratch` the weights are drawn from `seed`.

    Nothing is looked for outside the folder. Raises RefusedError for a folder that needs code of its own or keeps its
    weights as pickles, ConfigError and StorageError for one that cannot be used.
    """
    known = read_config(config.path)
    tokenizer = read_tokenizer(config.path)
    seq2seq = _is_seq2seq(known, config)
    if config.from_scratch:
        model = drawn(known, seq2seq=seq2seq, seed=seed)
    else:
        _check_weights(config.path)
        model = _loaded(config.path, known, seq2seq=seq2seq)
    return HfParts(model, tokenizer, seq2seq)


def stored_parts(folder: Path, kind: Kind = "auto") -> HfParts:
    """Make again what `HfParts.save` wrote; the weights are to be loaded from a checkpoint."""
    config = HfModelConfig(path=folder, kind=kind)
    known = read_config(folder)
    seq2seq = _is_seq2seq(known, config)
    return HfParts(drawn(known, seq2seq=seq2seq, seed=0), read_tokenizer(folder), seq2seq)


def read_config(folder: Path) -> Any:
    """The model's config. Raises RefusedError where only code in the folder knows its kind."""
    library = transformers()
    plain = _json(folder, CONFIG)
    kind = plain.get("model_type")
    if kind not in library.CONFIG_MAPPING:
        if "auto_map" in plain:
            raise RefusedError(
                f"{folder} needs its own code (auto_map in {CONFIG}), which Etude never runs: take a model that "
                "transformers itself knows."
            )
        raise ConfigError(f'model.path {folder} is of model_type "{kind}", which transformers does not know.')
    if plain.get("quantization_config"):
        raise ConfigError(f"model.path {folder} holds quantised weights, which cannot be trained: take the full ones.")
    for hidden in ("_attn_implementation", "attn_implementation", "_attn_implementation_internal"):
        if "/" in str(plain.get(hidden, "")):
            raise RefusedError(f"{folder} needs foreign code in {CONFIG} ({hidden}), which Etude never fetches.")
    with quiet(), _sentence(folder, CONFIG):
        return library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def read_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, of the fast kind. Raises ConfigError where there is none."""
    library = transformers()
    given = folder / "tokenizer_config.json"
    plain = _json(folder, given.name) if given.is_file() else {}
    with quiet():
        try:
            made = library.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_fast=True
            )
        except Exception as error:
            if "AutoTokenizer" in (plain.get("auto_map") or {}):
                raise RefusedError(
                    f"{folder} needs code of its own for its tokenizer (auto_map in {given.name}), which Etude never "
                    "runs: give a tokenizer.json."
                ) from error
            raise ConfigError(f"model.path {folder} holds no tokenizer that can be read: {_said(error)}.") from error
    if not any((folder / name).is_file() for name in {"tokenizer.json", *made.vocab_files_names.values()}):
        raise ConfigError(
            f"model.path {folder} holds no tokenizer: put the tokenizer.json there that belongs to the model."
        )
    if not getattr(made, "is_fast", False):
        raise ConfigError(f"model.path {folder} needs a tokenizer.json: only tokenizers of the fast kind are used.")
    if made.eos_token_id is None:
        raise ConfigError(f"The tokenizer of {folder} needs an eos_token, which ends every text.")
    return made


def drawn(config: object, *, seq2seq: bool, seed: int) -> Any:
    """A model with new weights, a function of config and seed."""
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _with_attention(
            lambda kind: _auto(seq2seq=seq2seq).from_config(config, attn_implementation=kind)
        ).float()


def longest(model: LibraryModel) -> int | None:
    """The most positions that the model has; None where its config sets no bound."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else None


def _is_seq2seq(known: Any, config: HfModelConfig) -> bool:
    library = transformers()
    seq2seq = bool(known.is_encoder_decoder) if config.kind == "auto" else config.kind == "seq2seq"
    table = library.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if seq2seq else library.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(known) not in table:
        what = "sequence-to-sequence" if seq2seq else "causal language"
        raise ConfigError(f"model.path {config.path} is a {known.model_type}, of which there is no {what} model.")
    return seq2seq


def _auto(*, seq2seq: bool) -> Any:
    library = transformers()
    return library.AutoModelForSeq2SeqLM if seq2seq else library.AutoModelForCausalLM


def _check_weights(folder: Path) -> None:
    """Refuse what is no safetensors, and an index that leads out of the folder."""
    if (folder / WEIGHTS).is_file():
        return
    if (folder / INDEX).is_file():
        _check_index(folder)
        return
    pickles = sorted(
        path.name for ending in ("bin", "pt", "pth", "ckpt", "h5", "msgpack") for path in folder.glob(f"*.{ending}")
    )
    if pickles:
        raise RefusedError(
            f"{folder} keeps its weights in {pickles[0]}, and Etude reads no pickle: save the model again as "
            "safetensors, or set model.from_scratch = true."
        )
    raise ConfigError(f"model.path {folder} holds no {WEIGHTS}: give it, or set model.from_scratch = true.")


def _check_index(folder: Path) -> None:
    match _json(folder, INDEX).get("weight_map"):
        case dict() as named:
            files = sorted({str(name) for name in named.values()})
        case _:
            files = []
    for file in files:
        if Path(file).name != file or file == ".." or not file.endswith(".safetensors"):
            raise RefusedError(f"{folder / INDEX} names {file!r}, which is not a safetensors file of the folder.")


def _loaded(folder: Path, config: object, *, seq2seq: bool) -> Any:
    def load(kind: str) -> Any:
        return _auto(seq2seq=seq2seq).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation=kind,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )

    with quiet(), _sentence(folder, WEIGHTS):
        model, info = _with_attention(load)
    missing = sorted(map(str, info["missing_keys"]))
    if missing:
        raise StorageError(
            f"The weights in {folder} lack {missing[0]} ({len(missing)} in all), which would be drawn again: take a "
            "folder of the whole model, or set model.from_scratch = true."
        )
    return model.float()


def _with_attention(make: Callable[[str], Made]) -> Made:
    """What `make` gives with torch's fused attention or, of a model that does not have it, with the plain one."""
    try:
        return make("sdpa")
    except (ValueError, ImportError) as error:
        if "attention" not in str(error).lower():
            raise
        return make("eager")


@contextlib.contextmanager
def _sentence(folder: Path, file: str) -> Iterator[None]:
    """Turn whatever the library raises about a file into a sentence."""
    try:
        yield
    except (ConfigError, RefusedError, StorageError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise StorageError(f"{folder / file} cannot be used: {_said(error)}.") from error


def _json(folder: Path, name: str) -> Mapping[str, Any]:
    path = folder / name
    try:
        value = json.loads(read_regular(path, LARGEST_JSON).decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"model.path {folder} is not a folder of a transformers model: it has no {name}."
            if folder.is_dir()
            else f"model.path {folder} is not a folder."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} cannot be read: {_said(error)}.") from error
    if not isinstance(value, dict):
        raise StorageError(f"{path} cannot be read: it is not a JSON object.")
    return value


def _said(error: BaseException) -> str:
    """The first sentence of an error, on one line."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[0].split()).rstrip(".")[:200]

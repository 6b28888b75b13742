"""Small samples of data, for a folder to begin with: files of a task's own kind, the same every time.

Pairs and labelled texts lie in the package, since the corpora that they are of need libraries; the others are made.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from math import tau
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from etude.base.files import write_json, write_text
from etude.base.randomness import seed_of
from etude.data.corpora.chance import Chance
from etude.data.corpora.python_sources import documents
from etude.data.corpora.recorded import generate_audio
from etude.data.corpora.sounds import uniform
from etude.data.corpora.writing import LABEL, generate

TEMPLATES: Final = Path(__file__).parent / "templates"
SIZES: Final = {"train": 400, "val": 50, "test": 50}
TABULAR_SIZES: Final = {"train": 600, "val": 100, "test": 100}
SOUND_SIZES: Final = {"train": 160, "val": 40, "test": 40}
SPEECH_SIZES: Final = {"train": 120, "val": 20, "test": 20}
ARRAY_SIZES: Final = {"train": 300, "val": 60, "test": 60}
TEXTS: Final = 30
SPECIALS: Final = ("<pad>", "<s>", "</s>")
KINDS: Final = {"slow": (0.02,), "fast": (0.06,), "both": (0.02, 0.06)}
"""The waves in a kind of sequence: how many times each turns from a place to the next."""
LONGEST, FEATURES = 40, 3

Sample = Callable[[Path], None]
"""Writes files into a folder."""


def shipped(name: str) -> Sample:
    """Tables that lie in the package."""

    def write(folder: Path) -> None:
        for split in SIZES:
            shutil.copyfile(TEMPLATES / name / f"{split}.tsv", folder / f"{split}.tsv")

    return write


def loans(folder: Path) -> None:
    """A table of requests for a loan."""
    generate("loans", folder, sizes=TABULAR_SIZES)
    (folder / LABEL).unlink()


def sounds(name: str, sizes: dict[str, int]) -> Sample:
    """Recordings, and the tables that list them."""

    def write(folder: Path) -> None:
        generate_audio(name, folder, sizes=sizes)
        (folder / LABEL).unlink()

    return write


def texts(folder: Path) -> None:
    """Some topics of Python's help, a file each."""
    (folder / "text").mkdir()
    for number, (_, text) in enumerate(islice(documents("python_docs"), TEXTS), 1):
        write_text(folder / "text" / f"{number:02}.txt", text)


def arrays(folder: Path) -> None:
    """Sequences of three kinds, of any length, in .npz files."""
    for split, size in ARRAY_SIZES.items():
        kinds, sequences = zip(*map(partial(_sequence, split), range(size)), strict=True)
        lengths = np.array(list(map(len, sequences)))
        padded = np.zeros((size, LONGEST, FEATURES), dtype=np.float32)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = sequence
        np.savez(folder / f"{split}.npz", x=padded, lengths=lengths, kind=np.array(kinds))
    np.save(folder / "one.npy", sequences[0].astype(np.float32))


def _sequence(split: str, index: int) -> tuple[str, NDArray[np.float64]]:
    """A kind, and numbers [T, F] of it: waves of its paces, and noise."""
    chance = Chance(seed_of(1, "arrays", split, index))
    kind = chance.pick(sorted(KINDS))
    place = np.arange(chance.between(LONGEST // 2, LONGEST))[:, None]
    phases = _drawn(chance, FEATURES, 0, 1)
    waves = np.sin(tau * (np.multiply.outer(KINDS[kind], place) + phases)).sum(0)
    return kind, waves + _drawn(chance, waves.size, -0.5, 0.5).reshape(waves.shape)


def _drawn(chance: Chance, count: int, low: float, high: float) -> NDArray[np.float64]:
    """So many even draws."""
    return np.array([uniform(chance, low, high) for _ in range(count)])


def prompts(folder: Path) -> None:
    """Prompts with their answers as JSON lines, and a folder of a tiny model without weights."""
    for split in ("train", "val"):
        write_text(folder / f"{split}.jsonl", "".join(map(_line, _pairs(split))))
    _write_model(folder / "model", list(chain.from_iterable(_pairs("train"))))


def _line(pair: list[str]) -> str:
    return json.dumps(dict(zip(("prompt", "answer"), pair, strict=True)), ensure_ascii=False) + "\n"


def _pairs(split: str) -> Iterator[list[str]]:
    lines = (TEMPLATES / "translation" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    return (line.split("\t") for line in lines[1:])


def _write_model(folder: Path, said: list[str]) -> None:
    """A Llama of two layers as `save_pretrained` describes one, with a tokenizer learnt from these texts."""
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(said, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    pad, begin, end = SPECIALS
    named = {"pad_token": pad, "bos_token": begin, "eos_token": end}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **named})
    write_json(
        folder / "config.json",
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 256,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )

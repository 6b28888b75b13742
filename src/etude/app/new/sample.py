"""Small samples of data, for a folder to begin with: files of a task's own kind, the same every time.

Pairs and labelled texts lie in the package, since the corpora that they are of need libraries; the others are made.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from math import tau
from pathlib import Path
from typing import Any, Final

import numpy as np
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
KINDS: Final = {"slow": 0.02, "fast": 0.06, "both": 0.0}
"""Turns a place of a kind of sequence; the last kind has those of both."""
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
        sequences = [_sequence(Chance(seed_of(1, "arrays", split, index))) for index in range(size)]
        lengths = np.array([len(sequence) for _, sequence in sequences])
        padded = np.zeros((size, LONGEST, FEATURES), dtype=np.float32)
        for row, (_, sequence) in zip(padded, sequences, strict=True):
            row[: len(sequence)] = sequence
        kinds = np.array([kind for kind, _ in sequences])
        np.savez(folder / f"{split}.npz", x=padded, lengths=lengths, kind=kinds)
    np.save(folder / "one.npy", padded[0, : lengths[0]])


def _sequence(chance: Chance) -> tuple[str, "np.typing.NDArray[np.float64]"]:
    """A kind, and numbers [T, F] of it: waves of its pace, and noise."""
    kind = chance.pick(sorted(KINDS))
    place = np.arange(chance.between(LONGEST // 2, LONGEST))[:, None]
    phases = [uniform(chance, 0, 1) for _ in range(FEATURES)]
    paces = [KINDS[kind]] if KINDS[kind] else [pace for pace in KINDS.values() if pace]
    waves = sum(np.sin(tau * (pace * place + phases)) for pace in paces)
    noise = [[uniform(chance, -0.5, 0.5) for _ in range(FEATURES)] for _ in place]
    return kind, waves + np.array(noise)


def prompts(folder: Path) -> None:
    """Prompts with their answers as JSON lines, and a folder of a tiny model without weights."""
    pairs = {split: list(_pairs(split)) for split in ("train", "val")}
    for split, found in pairs.items():
        lines = [json.dumps({"prompt": a, "answer": b}, ensure_ascii=False) for a, b in found]
        write_text(folder / f"{split}.jsonl", "\n".join(lines) + "\n")
    _write_model(folder / "model", [text for pair in pairs["train"] for text in pair])


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

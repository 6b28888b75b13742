"""Generated corpora of audio as files: recordings of 16 bits and a manifest for each split, made once."""

import wave
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from etude.base.errors import ConfigError
from etude.base.files import make_folder, sha256_of, storage, whole_folder, write_json, write_text
from etude.base.paths import user_path
from etude.base.says import Say, unheard
from etude.data.corpora.audio import AUDIO, CLASSED
from etude.data.corpora.sounds import Sounded
from etude.data.corpora.values import SPLITS
from etude.data.corpora.writing import LABEL, generator_version, holds

FULL_SCALE: Final = 32767


def generate_audio(
    name: str, folder: Path | str, *, seed: int = 1, sizes: Mapping[str, int] | None = None, notice: Say = unheard
) -> dict[str, Path]:
    """Write the corpus `name` as WAV files and a manifest for each split into `folder`; give the manifests by split.

    A manifest, such as `train.tsv`, has the columns path, transcript (or label) and speaker. `sizes` changes how many
    recordings a split has. What the same generator wrote for the same seed and sizes is used again. Raises ConfigError
    for an unknown name or where a program is missing, and StorageError when `folder` cannot be written.
    """
    if name not in AUDIO:
        raise ConfigError(f"There is no generated corpus of audio {name!r}; there is: {', '.join(AUDIO)}.")
    folder = user_path(folder)
    asked = {split: len(AUDIO[name](split, seed, (sizes or {}).get(split))) for split in SPLITS}
    label = {"corpus": name, "generator": generator_version(), "seed": seed, "sizes": asked}
    paths = {split: folder / f"{split}.tsv" for split in SPLITS}
    if holds(folder, label, paths):
        return paths
    notice(f"Generating the corpus {name} ({sum(asked.values()):,} recordings) in {folder}.")
    make_folder(folder)
    with storage("replace", folder / LABEL), suppress(FileNotFoundError):
        (folder / LABEL).unlink()
    column = "label" if name in CLASSED else "transcript"
    for split, path in paths.items():
        with whole_folder(folder / split, "write", replace=True) as part:
            rows = list(_written(name, split, seed, asked[split], part))
        lines = [f"path\t{column}\tspeaker\n", *(f"{split}/{file}\t{text}\t{who}\n" for file, text, who in rows)]
        write_text(path, "".join(lines))
    write_json(folder / LABEL, {**label, "sha256": {split: sha256_of(path) for split, path in paths.items()}})
    return paths


def _written(name: str, split: str, seed: int, size: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Write the recordings of a split; give the file, text and speaker of each."""
    corpus = AUDIO[name](split, seed, size)
    for number in range(size):
        sounded: Sounded = corpus[number]
        file = f"{number:06d}.wav"
        with wave.open(str(folder / file), "wb") as written:
            written.setparams((1, 2, corpus.rate, 0, "NONE", ""))
            written.writeframes(np.round(np.clip(sounded.wave, -1, 1) * FULL_SCALE).astype("<i2").tobytes())
        yield file, sounded.text, sounded.speaker

"""Aligns what a run is of with its labels, and keeps that in the run's folder."""

from pathlib import Path

from etude.app.runs.place import Place
from etude.app.runs.run import Run, Weights
from etude.base.says import Say, unheard
from etude.tasks.aligners import AlignmentAsked, Stored
from etude.tasks.kept import stored_processor
from etude.tasks.task_type import TOKENIZERS
from etude.train.memory.checkpoint.store import BEST

ALIGNMENTS = "alignments"
"""The folder of a run that holds its alignments, each in a folder of its own."""


def align(
    run: Run,
    split: str,
    asked: AlignmentAsked,
    *,
    name: str = "",
    weights: Weights = BEST,
    device: str = "auto",
    say: Say = unheard,
) -> tuple[Path, Stored]:
    """Align a split by a run's weights, and store that in its `alignments/NAME`, by default the name of the split.

    What a call before it has stored of the same is kept, so that one that was interrupted goes on. Raises ConfigError
    where the run's task has nothing to align.
    """
    folder = run.folder / ALIGNMENTS / (name or split)
    return folder, align_into(folder, run, split, asked, weights=weights, device=device, say=say)


def align_into(
    folder: Path,
    run: Run,
    split: str,
    asked: AlignmentAsked,
    *,
    weights: Weights = BEST,
    device: str = "auto",
    say: Say = unheard,
) -> Stored:
    """Align a split by a run's weights, and store that in `folder`, as `align` does."""
    place = Place(run.folder)
    config = run.loaded.config.with_cache(place.cache)
    processor = stored_processor(run.kind, config, run.folder / TOKENIZERS)
    aligner = run.kind.aligner(run.load(weights, device=device), config, processor)
    aligner.check(asked)
    with run.precision(device).forward():
        return aligner.align(split, folder, asked, say)

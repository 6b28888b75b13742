"""slangmod's `[train]` section (as of slangmod 0.1.4; the defaults are those of its guide), and what it means in Etude.

All counts of slangmod's schedules are batches. A step of its schedules is the update that follows a batch, or, with
`step_freq` above 1, a group of them.
"""

import math
from collections.abc import Iterator, Mapping

from etude.app.convert.words import Given, Tool, Translation, Word, number, one_of, or_off, setting, whole
from etude.base.config.command import Override

WORDS = (
    Word("batch_size", 64, whole(1)),
    Word("step_freq", 1, whole(1)),
    Word("clip_grad", 0.8, number("more than 0", lambda value: value > 0)),
    Word("label_smoothing", 0.1, number("at least 0 and at most 1", lambda value: 0 <= value <= 1)),
    Word("optimizer", "adamw", one_of("adamw", "adafactor")),
    Word("max_epochs", 16, whole(1)),
    Word("patience", None, or_off(whole(2))),
    Word("learning_rate", 0.001, number("a finite number above 0", lambda value: 0 < value < math.inf)),
    Word("warmup", 8000, whole(0)),
    Word("scaling", "inverse", one_of("inverse", "exponential", "cosine")),
    Word("power", 0.5, number("at least 0.5 and at most 1", lambda value: 0.5 <= value <= 1)),  # noqa: PLR2004 - slangmod's interval
    Word("gamma", 0.95, number("more than 0 and less than 1", lambda value: 0 < value < 1)),
    Word("cooldown", 100_000, whole(1)),
    Word("cb_freq", 1, whole(1)),
)

_SHAPES = {"inverse": "power", "exponential": "gamma", "cosine": "cooldown"}
"""The word that each scaling has for itself."""

_RATE = "optimizer.learning_rate"

_DATA = "data come from the second file or from flags, as in --data.train FILE"
LEFT_OUT = {
    "data": f"{_DATA} (its device and precision are --train.device and --train.precision)",
    "model": "the model comes from the second file or from flags, as in --model.d_model 512",
    "tokens": "the tokenizer comes from the second file or from flags, as in --tokenizer.vocab_size 8000",
    "files": _DATA,
    "chat": "Etude predicts by etude predict RUN",
    "work_dir": "the folder of the runs is --run.dir",
    "workdir": "the folder of the runs is --run.dir",
    "name": "a run is named after the file, or by --run.name",
    "progress": "the display is switched off by --log.progress false",
    "log_level": "what Etude says goes to standard error",
    "size": "a preset of slangmod's is not read: write its values into the file",
    "toml": "Etude reads one file of slangmod's",
}

_FORMULAS = {
    "inverse": 'scaling = "inverse": the rate falls from its peak as (batches / warmup) ** -power, where the code of '
    "slangmod 0.1.4 takes (batches - warmup) ** -power.",
    "exponential": 'scaling = "exponential": the first factor gamma acts one step earlier than in slangmod 0.1.4.',
    "cosine": 'scaling = "cosine": the quarter wave of slangmod\'s guide, where its code (0.1.4) draws half a wave.',
}


def translate(given: Mapping[str, Given]) -> Translation:
    """Say a value of every word in Etude's keys."""
    return Translation(list(_settings(given)), list(_notes(given)))


def _settings(given: Mapping[str, Given]) -> Iterator[Override]:
    def of(key: str, word: str, value: object = None) -> Override:
        return setting(key, given[word].value if value is None else value, given[word])

    clip, patience = given["clip_grad"].value, given["patience"].value
    yield of("train.batch_size", "batch_size")
    yield of("train.accumulate", "step_freq")
    yield of("train.clip_grad", "clip_grad", False if math.isinf(clip) else clip)
    yield of("train.max_duration", "max_epochs", _counted(given["max_epochs"].value, "epoch"))
    yield of("train.patience", "patience", False if patience is None else _counted(patience, "epoch"))
    yield of("train.log_every", "cb_freq", _counted(given["cb_freq"].value, "step"))
    yield of("loss.label_smoothing", "label_smoothing")
    yield of("optimizer.type", "optimizer")
    # torch's optimizers, as slangmod makes them, know no parameters to spare.
    yield of("optimizer.decay_all", "optimizer", value=True)
    yield from _schedule(given)


def _schedule(given: Mapping[str, Given]) -> Iterator[Override]:
    scaling, warmup = given["scaling"].value, given["warmup"].value
    yield setting(f"{_RATE}.schedule", scaling, given["scaling"])
    if scaling == "cosine":
        yield setting(f"{_RATE}.wave", "quarter", given["scaling"])
    yield setting(f"{_RATE}.peak", given["learning_rate"].value, given["learning_rate"])
    # A power law is measured in warm-ups: without one, in first steps.
    least = 1 if scaling == "inverse" else 0
    yield setting(f"{_RATE}.warmup", _counted(max(warmup, least), "batch"), given["warmup"])
    yield from _shape(scaling, given[_SHAPES[scaling]])


def _shape(scaling: str, own: Given) -> Iterator[Override]:
    """What a scaling has for itself."""
    value = _counted(own.value, "batch") if scaling == "cosine" else own.value
    yield setting(f"{_RATE}.{_SHAPES[scaling]}", value, own)
    if scaling == "exponential":
        yield setting(f"{_RATE}.every", _counted(1, "batch"), own)


def _notes(given: Mapping[str, Given]) -> Iterator[str]:
    scaling = given["scaling"].value
    yield _FORMULAS[scaling]
    yield from _of_other_scalings(scaling, given)
    if given["step_freq"].value > 1:
        yield (
            "step_freq: the gradient is clipped once a step, and the batches that are left at the end of an epoch take "
            "a step too, where slangmod clips after every batch and leaves these out; cb_freq counts steps."
        )


def _of_other_scalings(scaling: str, given: Mapping[str, Given]) -> Iterator[str]:
    """What was given for a scaling that was not chosen."""
    for other, word in _SHAPES.items():
        if other != scaling and not given[word].is_default:
            where = given[word].where
            yield f'{word} is left out: it belongs to scaling = "{other}", and this is "{scaling}" ({where}).'


def _counted(count: int, unit: str) -> str:
    """A duration as Etude writes it."""
    plural = {"batch": "batches"}.get(unit, f"{unit}s")
    return f"{count} {unit if count == 1 else plural}"


SLANGMOD = Tool("slangmod", "train", WORDS, LEFT_OUT, translate)

"""What every key of a config means when a run is resumed, forked or compared."""

from collections.abc import Mapping
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from etude.app.python.options import TrainerOptions
from etude.app.runs.identity import class_of_keys
from etude.base.config.components import Component, Imported
from etude.base.config.json_schema import schema
from etude.base.config.meaning import meaning_of
from etude.base.config.structure import alternatives, annotated, fields_of
from etude.tasks.config import any_config
from etude.tasks.table import built_in

Config = any_config()
OF_TASKS = {config.__name__: config for task_type in built_in().values() for config in task_type.configs()}
PLACE = ("run.name", "run.dir")
SILENT = (
    *PLACE,
    "log",
    "data.test",
    "data.workers",
    "train.save_every",
    "train.keep_last",
    "train.keep_best",
    "train.log_every",
    "train.save_outputs",
    "train.save_outputs_every",
    "train.sanity_batches",
    "train.max_failed_saves",
    "run.requeue_signals",
    "distributed.check_every",
    "distributed.timeout",
    "run.continue_training",
    "run.remove_continued",
    "train.limit_test",
    "sweep",
)
"""What changes no number of training or validation."""
HARMLESS = (
    *SILENT,
    "distributed",
    "task.beam_size",
    "task.length_penalty",
    "task.ctc_weight",
    "task.language_model",
    "task.language_model_unit",
    "task.language_model_weight",
    "task.token_bonus",
    "task.hot_words",
    "task.hot_word_bonus",
    "train.max_duration",
    "train.min_duration",
    "train.patience",
    "train.min_delta",
    "train.max_skipped_steps",
    "train.eval_batch_size",
    "train.device",
)
"""What may change between two starts of one run."""
NEVER = ("task.type", "tokenizer", "optimizer.type", "optimizer.amsgrad", "init", "run.stage")
"""What no run can change on its way."""
AT_AN_EPOCHS_END = (
    "data",
    "run.seed",
    "train.batch_size",
    "train.batch_tokens",
    "train.limit_train",
    "train.overfit",
    "train.tbptt_steps",
)
AT_ANY_STEP = ("data.val", "data.test", "data.workers")
"""What of it may change in the middle of an epoch nevertheless."""
GOVERNING = {
    "weights": ("model", "task", "loss"),
    "optimizer": ("optimizer", "train.freeze"),
    "average": ("train.ema_decay",),
    "stopping": ("train.monitor", "train.mode", "data.val", "train.limit_val", "train.overfit", "loss.type"),
}
"""What each part of a run's state is made from."""


def is_below(key, places):
    return any(key == place or key.startswith((f"{place}.", f"{place}[")) for place in places)


def keys_of(annotation, place="", depth=6):
    """Every dotted key that a config of this type may have, `NAME` where a table takes any name."""
    for part in alternatives(annotation):
        if isinstance(part, Component):
            yield f"{place}.type"
            for section in (*part.table.values(), part.imported):
                yield from keys_of(section, place, depth)
        elif isinstance(part, type) and issubclass(part, BaseModel):
            for name, field in fields_of(part).items():
                key = f"{place}.{name}" if place else name
                yield key
                yield from keys_of(annotated(field), key, depth - 1) if depth else ()
            yield from [f"{place}.mine"] if issubclass(part, Imported) else []
        elif isinstance(get_origin(part), type) and issubclass(get_origin(part), Mapping):
            yield f"{place}.NAME"
            yield from keys_of(get_args(part)[1], f"{place}.NAME", depth - 1) if depth else ()


KEYS = sorted(set(keys_of(Config)))


def test_there_are_keys_of_every_section():
    assert {key.partition(".")[0] for key in KEYS} == set(Config.model_fields)
    assert {"data.block_size", "model.mine", "loss.terms.NAME.weight", "optimizer.learning_rate.peak"} <= set(KEYS)


@pytest.mark.parametrize("root", [Config, *OF_TASKS.values(), TrainerOptions], ids=lambda root: root.__name__)
def test_every_key_means_what_it_always_has(root):
    keys = sorted(set(keys_of(root)))

    for key in [*keys, "train.patiences", "another.section", "data.tests"]:
        meaning = meaning_of(Config, key)
        assert meaning.place == is_below(key, PLACE), key
        assert (meaning.identity == "none") == is_below(key, SILENT), key
        assert meaning.resumable == is_below(key, HARMLESS), key
        assert (meaning.shared == "never") == is_below(key, NEVER), key
        assert bool(meaning.why) == is_below(key, NEVER), key
        at_an_end = is_below(key, AT_AN_EPOCHS_END) and not is_below(key, AT_ANY_STEP)
        assert (meaning.shared == "epoch") == at_an_end, key
        assert meaning.governs == {part for part, places in GOVERNING.items() if is_below(key, places)}, key


@pytest.mark.parametrize("root", OF_TASKS.values(), ids=OF_TASKS)
def test_a_key_means_the_same_in_every_kind_of_config(root):
    for key in set(keys_of(root)):
        assert meaning_of(root, key) == meaning_of(Config, key), key


@pytest.mark.parametrize("name", built_in())
def test_the_keys_of_a_task_are_asked_of_it_alone(name):
    assert class_of_keys({"task": {"type": name}}) in built_in()[name].configs()


@pytest.mark.parametrize("task", [{"type": "my.module:Mine"}, {"type": "unknown"}, {}])
def test_the_keys_of_another_task_are_asked_of_all(task):
    assert class_of_keys({"task": task}) is Config


def test_options_of_a_trainer_may_change_as_those_of_a_config_may():
    for key in set(keys_of(TrainerOptions)):
        assert meaning_of(TrainerOptions, key).resumable == meaning_of(Config, key).resumable, key


def test_what_alone_judges_training_is_not_of_its_result():
    judging = {key for key in KEYS if meaning_of(Config, key).identity == "validation"}

    assert {"data.val", "train.monitor", "train.limit_val", "task.eval_search_samples"} <= judging
    assert not {"train.batch_size", "train.patience", "model.heads", "train.overfit"} & judging


def test_the_json_schema_shows_it():
    described = schema(Config)
    train = described["$defs"]["TrainConfig"]["properties"]

    assert train["keep_last"]["identity"] == "none"
    assert train["monitor"]["identity"] == "validation"
    assert train["batch_size"]["shared"] == "epoch"
    assert described["properties"]["tokenizer"]["shared"] == "never"
    assert described["properties"]["log"]["identity"] == "none"

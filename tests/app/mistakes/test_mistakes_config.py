"""Mistakes in a config: each is one line with the key, what is allowed, the nearest name, file and line."""

import pytest
from mistaken import Mistake, check, config, write

RATE = "learning_rate = "


def misspelt(section, line, nearest, **more):
    key = line.partition(" = ")[0]
    return Mistake(f"{section} {key}", (key, f"did you mean {nearest}?"), edit={section: line}, at=line, **more)


def wrong(section, line, *says):
    """A value that cannot be."""
    key = line.partition(" = ")[0]
    return Mistake(f"{section} {line}", (key, *says), edit={section: line}, at=line)


TWO = {"tokenizer": None}

MISSPELT = [
    misspelt("run", 'naem = "a"', "run.name"),
    misspelt("task", "beam_sise = 2", "task.beam_size"),
    misspelt("data", 'trian = "train.tsv"', "data.train"),
    misspelt("data", "max_lenght = 9", "data.max_length"),
    misspelt("tokenizer", "lowercas = true", "tokenizer.lowercase"),
    Mistake(
        "tokenizer.source",
        ("tokenizer.source.vocab_sise is not a key of [tokenizer.source]", "did you mean tokenizer.source.vocab_size?"),
        edit={**TWO, "tokenizer.source": 'type = "bpe"\nvocab_sise = 300'},
        at="vocab_sise",
    ),
    Mistake(
        "tokenizer.taget",
        ("tokenizer.taget", "did you mean tokenizer.target?"),
        edit={**TWO, "tokenizer.source": 'type = "byte"', "tokenizer.taget": 'type = "byte"'},
        at="[tokenizer.taget]",
    ),
    misspelt("model", "d_modle = 16", "model.d_model"),
    misspelt("init", 'wieghts = { "*" = "zeros" }', "init.weights"),
    misspelt("loss", "label_smothing = 0.1", "loss.label_smoothing"),
    misspelt("optimizer", "learning_rat = 1e-3", "optimizer.learning_rate"),
    misspelt("optimizer", "beta = [0.9, 0.99]", "optimizer.betas"),
    misspelt("train", "clip_gard = 1.0", "train.clip_grad"),
    misspelt("train", 'evalevery = "1 epoch"', "train.eval_every"),
    misspelt("log", "progres = true", "log.progress"),
    Mistake(
        "optimizer.groups",
        ("weight_deca", "did you mean"),
        edit={"[optimizer.groups]": 'match = "*"\nweight_deca = 0.0'},
        at="weight_deca",
    ),
    Mistake(
        "a schedule's key",
        ("optimizer.learning_rate.peek", "did you mean optimizer.learning_rate.peak?"),
        edit={"optimizer": 'learning_rate = { schedule = "cosine", peak = 1e-3, peek = 2e-3 }'},
        at=RATE,
    ),
    Mistake("a section", ("modle", "section", "did you mean model?"), edit={"modle": "d_model = 8"}, at="[modle]"),
    Mistake(
        "a spelling of another English", ("optimiser", "did you mean optimizer?"), edit={"optimiser": 'type = "sgd"'}
    ),
    Mistake(
        "a key outside of its section",
        ("max_duration is not a section of the config", "train.max_duration"),
        edit={"": 'max_duration = "1 epoch"'},
        at='max_duration = "1 epoch"',
    ),
    Mistake(
        "a key in another section",
        ("train.learning_rate", "optimizer.learning_rate"),
        edit={"train": "learning_rate = 0.1"},
        at="learning_rate = 0.1",
    ),
    Mistake("an unknown section", ("zebra is not a section", "train"), edit={"zebra": "host = 1"}, at="[zebra]"),
]

VALUES = [
    wrong("run", "name = 7", "must be text", "7"),
    wrong("run", 'name = "a/b"', "must be the name of one folder"),
    wrong("run", "seed = -1", "at least 0", "-1"),
    wrong("run", "seed = 99999999999999999999", "less than 9223372036854775808"),
    wrong("run", 'seed = "one"', "must be a whole number"),
    wrong("run", "seed = 1.5", "must be a whole number", "1.5"),
    wrong("train", 'clip_grad = "one"', "must be a number", '"one"'),
    wrong("train", "clip_grad = -1.0", "must be positive, but is -1.0"),
    wrong("train", "clip_grad = true", "must be a number", "true"),
    wrong("train", "clip_grad = [1.0]", "must be a number"),
    wrong("train", "clip_grad = { norm = 1.0 }", "must be a number"),
    wrong("train", "clip_grad = nan", "clip_grad must be", "nan"),
    wrong("train", "clip_grad = inf", "clip_grad must be", "inf"),
    wrong("train", "batch_size = 0", "at least 1", "0"),
    wrong("train", "batch_size = 2.5", "whole number", "2.5"),
    wrong("train", "accumulate = 0", "at least 1"),
    wrong("train", "keep_last = 0", "at least 1"),
    wrong("train", "ema_decay = 1.0", "more than 0 and less than 1"),
    wrong("train", "limit_train = 1.5", "limit_train must be"),
    wrong("train", "limit_val = 0", "limit_val must be"),
    wrong("train", 'precision = "float8"', '"float16"'),
    wrong("train", 'mode = "minimum"', '"min"', '"max"'),
    wrong("train", 'device = "cupu"', "cpu"),
    wrong("train", 'freeze = "encoder.*"', "must be a list"),
    wrong("train", "monitor = 3", "must be text"),
    wrong("task", "beam_size = 0", "at least 1"),
    wrong("task", "length_penalty = -0.5", "at least 0"),
    wrong("task", 'metrics = ["blue"]', '"bleu"'),
    wrong("data", "workers = -1", "at least 0"),
    wrong("data", "max_length = 0", "at least 1"),
    wrong("data", 'on_bad_sample = "ignore"', '"error", "skip"'),
    wrong("data", 'max_skipped = "many"', 'such as 100 or "1%"'),
    wrong("data", 'max_skipped = "200%"', "100%"),
    wrong("data", "train = 5", "must be"),
    wrong("data", "train = []", "at least 1"),
    wrong("data", 'train = { source = "train.en" }', "data.train.target is missing"),
    wrong("data", "source = 0", "at least 1"),
    wrong("tokenizer", 'type = "bqe"', '"bpe"'),
    wrong("tokenizer", 'normalize = "nfd"', '"nfc"'),
    wrong("model", "dropout = 1.0", "less than 1"),
    wrong("model", "d_model = 0", "at least 1"),
    wrong("model", "encoder_layers = 1.5", "whole number"),
    wrong("model", "heads = 3", "model.heads", "d_model"),
    wrong("model", 'positions = "relative"', '"rotary"'),
    wrong("model", 'type = "transfomer"', '"transformer"'),
    wrong("loss", "label_smoothing = 2.0", "label_smoothing must be"),
    wrong("loss", 'type = "crossentropy"', '"cross_entropy"'),
    wrong("optimizer", 'type = "adamv"', 'did you mean "adam"?'),
    wrong("optimizer", "betas = [0.9]", "betas"),
    wrong("optimizer", "betas = [0.9, 1.0]", "betas", "less than 1"),
    wrong("optimizer", "learning_rate = -1e-3", "at least 0"),
    wrong("optimizer", "learning_rate = nan", "learning_rate must be"),
    wrong("optimizer", "weight_decay = true", "must be a number"),
    wrong("optimizer", "eps = inf", "finite"),
    wrong("optimizer", "betas = [0.9, 0.99, 0.999]", "betas"),
    wrong("tokenizer", 'type = "own.py:pieces"', '"byte", "file", but is'),
    wrong("model", "d_model = 1000000000", "model.d_model = 1000000000", "cannot be made"),
    wrong("train", "min_delta = inf", "finite"),
    wrong("log", 'progress = "yes"', "must be true or false"),
    wrong("", 'callbacks = "progress"', "must be a list"),
    wrong("task", 'type = "translate"', 'did you mean "translation"?'),
]

DURATIONS = [
    wrong("train", "max_duration = 16", "must be", '"16 epochs"', "but is 16"),
    wrong("train", 'max_duration = "16"', "must be", "epochs, steps"),
    wrong("train", 'max_duration = "16 fortnights"', "epochs, steps, batches"),
    wrong("train", 'max_duration = "-2 epochs"', "must not be negative"),
    wrong("train", 'max_duration = "0 epochs"', "must be more than 0"),
    wrong("train", 'max_duration = "1.5 steps"', "whole number of steps"),
    wrong("train", 'max_duration = "10 %"', "max_duration must"),
    wrong("train", "max_duration = []", "at least 1"),
    wrong("train", 'eval_every = "soon"', "must be a number with its unit"),
    wrong("train", 'save_every = "120 %"', "at most 100 %"),
    wrong("train", "log_every = true", "must be a number with its unit"),
    wrong("train", "patience = 0", "patience must"),
]


def scheduled(table, *says):
    line = f"learning_rate = {{ {table} }}"
    return Mistake(f"a schedule of {table}", says, edit={"optimizer": line}, at=line)


SCHEDULES = [
    scheduled('schedule = "cosine"', "optimizer.learning_rate.peak is missing"),
    scheduled('schedule = "cosin", peak = 1e-3', 'did you mean "cosine"?'),
    scheduled("peek = 1e-3", "did you mean optimizer.learning_rate.peak?"),
    scheduled('schedule = "exponential", peak = 1e-3, gamma = 1.5', "gamma", "less than 1", "1.5"),
    scheduled('schedule = "exponential", peak = 1e-3', "gamma is missing"),
    scheduled('schedule = "cosine", peak = -1.0', "at least 0", "-1", "at its peak"),
    scheduled('schedule = "cosine", peak = 1e-3, warmup = 100', "warmup must be", "but is 100"),
    scheduled('schedule = "cosine", peak = 1e-3, warmup = "5 min"', "warmup must not be a time"),
    scheduled('schedule = "inverse", peak = 1e-3, warmup = "0 steps"', "warmup must be more than 0"),
    scheduled('schedule = "inverse", peak = 1e-3, warmup = "1 step", power = 2', "power", "at most 1"),
    scheduled('schedule = "stairs", values = [1e-3]', "every or at"),
    scheduled('schedule = "stairs", values = [], every = "1 step"', "values", "at least 1"),
    scheduled('schedule = "stairs", values = [1e-3], every = "1 step", at = ["0 steps"]', "exclude each other"),
    scheduled('schedule = "piecewise", points = [["5 steps", 1e-3], ["1 step", 0]]', "increasing"),
    scheduled('schedule = "linear", peak = 1e-3, from = 1e-3', "peak or from"),
    scheduled('schedule = "plateau", peak = 1e-3, factor = 2.0', "factor", "less than 1"),
    Mistake(
        "a smoothing above its range at its end",
        ("loss.label_smoothing", "2", "at its end"),
        edit={"loss": 'label_smoothing = { schedule = "linear", from = 0.0, to = 2.0, over = "5 steps" }'},
        at="label_smoothing",
    ),
]

TOGETHER = [
    Mistake(
        "patience without validation",
        ("train.patience needs validation data", "data.val"),
        edit={"data": "val", "train": "patience = 3"},
        at="patience",
    ),
    Mistake(
        "one tokenizer and two",
        ("tokenizer must be one kind or a table for each side, but is both",),
        edit={"tokenizer.source": 'type = "byte"'},
        at="[tokenizer]",
    ),
    Mistake(
        "a vocabulary beyond all ids",
        ("tokenizer.vocab_size must be at least 260 and less than 2147483648",),
        edit={"tokenizer": 'type = "bpe"\nvocab_size = 100000000000000000000'},
        at="vocab_size",
    ),
    Mistake(
        "a rotary width that is odd",
        ("model.d_model / heads must be even for rotary positions, but is 3",),
        edit={"model": 'positions = "rotary"\nd_model = 6'},
        at="d_model",
    ),
    Mistake(
        "a group's schedule without a peak",
        ("optimizer.groups[0].learning_rate", "peak is missing"),
        edit={"[optimizer.groups]": 'match = "*"\nlearning_rate = { schedule = "cosine" }'},
        at='schedule = "cosine"',
    ),
    Mistake(
        "a group's rate of another kind",
        ("optimizer.groups[0].learning_rate must be", "a number"),
        edit={"[optimizer.groups]": 'match = "*"\nlearning_rate = "fast"'},
        at="fast",
    ),
    Mistake(
        "a schedule to the end of a run that only time bounds",
        ("optimizer.learning_rate.cooldown must be given", "only time bounds it"),
        edit={
            "train": 'max_duration = "1 min"',
            "optimizer": 'learning_rate = { schedule = "cosine", peak = 1e-3 }',
        },
        at="learning_rate",
    ),
    Mistake(
        "an initialiser that needs a matrix",
        ("init.weights cannot initialise", "of shape"),
        edit={"init": 'weights = { "*" = "orthogonal" }'},
        at="weights",
    ),
    Mistake(
        "an initialiser's argument",
        ("init.weights", "'normal(wide)' must have one number in its brackets"),
        edit={"init": 'weights = { "*" = "normal(wide)" }'},
        at="weights",
    ),
    Mistake(
        "two ways to say a batch",
        ("train.batch_size and train.batch_tokens exclude each other",),
        edit={"train": "batch_tokens = 100"},
        at="batch_size",
    ),
    Mistake(
        "no way to say a batch",
        ("train.batch_size and train.batch_tokens are both off",),
        edit={"train": "batch_size = false"},
        at="batch_size",
    ),
    Mistake("no task", ("task.type is missing", '"translation"'), edit={"task": "type"}),
    Mistake("no training data", ("data.train",), edit={"data": None}),
    Mistake(
        "shared embeddings with two tokenizers",
        ("model.share_embeddings needs one tokenizer",),
        edit={**TWO, "model": "share_embeddings = true", "tokenizer.source": 'type = "byte"'},
        at="share_embeddings",
    ),
    wrong("train", 'freeze = ["encodr.*"]', "encodr.*", "matches no parameter"),
    wrong("train", 'freeze = ["*"]', "no parameter to train"),
    Mistake(
        "a group that matches nothing",
        ("optimizer.groups", "encodr.*", "matches no"),
        edit={"[optimizer.groups]": 'match = "encodr.*"'},
        at="[[optimizer.groups]]",
    ),
    Mistake(
        "a group without a pattern",
        ("optimizer.groups[0].match is missing",),
        edit={"[optimizer.groups]": "learning_rate = 0.1"},
        at="[[optimizer.groups]]",
    ),
    Mistake(
        "an initialiser for no parameter",
        ("init.weights", "encodr.*", "matches no parameter"),
        edit={"init": 'weights = { "encodr.*" = "zeros" }'},
    ),
    Mistake(
        "an unknown initialiser",
        ("init.weights", "did you mean 'normal'?"),
        edit={"init": 'weights = { "*" = "norml" }'},
    ),
    wrong("train", 'monitor = "val/joy"', "joy", "val/bleu, val/chrf"),
    wrong("train", 'monitor = "val/bleu"', "val/bleu", "task.eval_search_samples = 0"),
    wrong("train", 'monitor = "val/accuracy"', "val/bleu, val/chrf", "val/loss, val/perplexity"),
]


TABLE = MISSPELT + VALUES + DURATIONS + SCHEDULES + TOGETHER


def test_a_hundred_different_mistakes_in_a_config_are_known():
    assert len({mistake.name for mistake in TABLE}) == len(TABLE) > 100


@pytest.mark.parametrize("mistake", TABLE, ids=str)
def test_a_mistake_in_a_config_is_one_line_that_names_key_and_place(mistake, home, capsys):
    write(home, {"translate.toml": config(mistake.edit)})

    check(mistake, capsys)

    assert not list(home.glob("runs/*/checkpoints/step-*"))

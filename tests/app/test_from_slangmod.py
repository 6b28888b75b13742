"""slangmod's words in Etude's: what each means, what wins over what, and what a mistake is told."""

import tomllib
from pathlib import Path

import pytest

from etude.__main__ import main
from etude.app.convert.slangmod import LEFT_OUT, SLANGMOD
from etude.base.config.other_words import words
from etude.tasks.config import load_config

SECOND = """
[task]
type = "translation"

[data]
train = "train.tsv"
val = "val.tsv"

[model]
d_model = 8
heads = 2

[train]
device = "cpu"
eval_every = "0.5 epochs"
"""

DEFAULTS = {
    "train.batch_size": 64,
    "train.accumulate": 1,
    "train.clip_grad": 0.8,
    "train.max_duration": "16 epochs",
    "train.patience": False,
    "train.log_every": "1 step",
    "loss.label_smoothing": 0.1,
    "optimizer.type": "adamw",
    "optimizer.decay_all": True,
    "optimizer.learning_rate.schedule": "inverse",
    "optimizer.learning_rate.peak": 0.001,
    "optimizer.learning_rate.warmup": "8000 batches",
    "optimizer.learning_rate.power": 0.5,
}
"""slangmod's own, as its guide gives them."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    (tmp_path / "second.toml").write_text(SECOND)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def converted(place, capsys):
    """Convert `[train]` of a slangmod file; give what it became, by dotted key, and what was said."""

    def convert(train="", *more, whole=""):
        (place / "slang.toml").write_text(whole or f"[train]\n{train}\n")
        code = main(["convert", "slang.toml", "--from", "slangmod", *more])
        out, told = capsys.readouterr()
        assert code == 0, told
        return flat(tomllib.loads(out)), told

    return convert


@pytest.fixture
def refused(place, capsys):
    """What is said of a slangmod file that does not convert."""

    def convert(text, *more):
        (place / "slang.toml").write_text(text)
        code = main(["convert", "slang.toml", "--from", "slangmod", *more])
        out, told = capsys.readouterr()
        assert (code, out) == (2, "")
        return [line.removeprefix("etude: ") for line in told.splitlines()]

    return convert


def flat(tables, above=""):
    """The values of a nest, by dotted key."""
    found = {}
    for key, value in tables.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def test_every_word_that_is_missing_takes_slangmods_own_default(converted):
    assert converted()[0] == DEFAULTS


@pytest.mark.parametrize(
    ("train", "changes"),
    [
        ("batch_size = 32", {"train.batch_size": 32}),
        ("step_freq = 4", {"train.accumulate": 4}),
        ("clip_grad = 2", {"train.clip_grad": 2.0}),
        ("clip_grad = inf", {"train.clip_grad": False}),
        ("label_smoothing = 0.0", {"loss.label_smoothing": 0.0}),
        ('optimizer = "Adafactor"', {"optimizer.type": "adafactor"}),
        ("max_epochs = 1", {"train.max_duration": "1 epoch"}),
        ("patience = 3", {"train.patience": "3 epochs"}),
        ("learning_rate = 0.008", {"optimizer.learning_rate.peak": 0.008}),
        ("warmup = 6_000", {"optimizer.learning_rate.warmup": "6000 batches"}),
        ("warmup = 6e3", {"optimizer.learning_rate.warmup": "6000 batches"}),
        ("warmup = 0", {"optimizer.learning_rate.warmup": "1 batch"}),
        ("power = 0.75", {"optimizer.learning_rate.power": 0.75}),
        ("cb_freq = 10", {"train.log_every": "10 steps"}),
        (
            'scaling = "exponential"\nwarmup = 0\ngamma = 0.99',
            {
                "optimizer.learning_rate.schedule": "exponential",
                "optimizer.learning_rate.warmup": "0 batches",
                "optimizer.learning_rate.gamma": 0.99,
                "optimizer.learning_rate.every": "1 batch",
                "optimizer.learning_rate.power": None,
            },
        ),
        (
            'scaling = "COSINE"\ncooldown = 48_000',
            {
                "optimizer.learning_rate.schedule": "cosine",
                "optimizer.learning_rate.wave": "quarter",
                "optimizer.learning_rate.cooldown": "48000 batches",
                "optimizer.learning_rate.power": None,
            },
        ),
    ],
)
def test_a_word_becomes_the_key_that_means_it(train, changes, converted):
    expected = {key: value for key, value in (DEFAULTS | changes).items() if value is not None}

    assert converted(train)[0] == expected


@pytest.mark.parametrize(
    ("scaling", "own"), [("exponential", {"gamma": 0.95}), ("cosine", {"cooldown": "100000 batches"})]
)
def test_the_other_schedules_have_their_defaults_too(scaling, own, converted):
    found = converted(f'scaling = "{scaling}"')[0]

    assert {key: found[f"optimizer.learning_rate.{key}"] for key in own} == own


def test_the_table_of_words_names_what_is_translated():
    assert {word.name for word in SLANGMOD.words} == {one.word for one in words("slangmod")}


def test_what_converts_is_a_config_that_another_may_extend(place, capsys):
    (place / "slang.toml").write_text("[train]\nmax_epochs = 2\n")
    assert main(["convert", "slang.toml", "--from", "slangmod", "--output", "train.toml"]) == 0
    assert capsys.readouterr().out == ""
    (place / "run.toml").write_text(f'extends = ["train.toml"]\n{SECOND}')

    loaded = load_config(place / "run.toml")

    assert loaded.data["train"]["max_duration"] == "2 epochs"
    assert loaded.data["loss"]["label_smoothing"] == 0.1


@pytest.mark.parametrize("more", [["second.toml"], ["--with", "second.toml"], ["--with=second.toml"]])
def test_with_a_second_file_the_whole_config_is_composed(more, converted):
    found, _ = converted("learning_rate = 0.5", *more)

    assert {key: found[key] for key in DEFAULTS} == DEFAULTS | {"optimizer.learning_rate.peak": 0.5}
    assert found["model.d_model"] == 8
    assert found["train.device"] == "cpu"
    assert found["train.eval_every"] == "0.5 epochs"
    assert found["run.name"] == "slang"


def test_a_task_among_the_flags_takes_the_place_of_a_second_file(converted):
    found, _ = converted("", "--task.type", "translation", "--data.train", "a.tsv", "--data.val", "b.tsv")

    assert Path(found["data.train"]) == Path.cwd() / "a.tsv"
    assert found["train.batch_size"] == 64


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        (["--train.batch_size", "8"], {"train.batch_size": 8}),
        (["--train.step-freq=2"], {"train.accumulate": 2}),
        (["--train.patience", "5"], {"train.patience": "5 epochs"}),
        (["--train.patience", "none"], {"train.patience": False}),
        (["--train.warmup", "10", "--train.warmup", "20"], {"optimizer.learning_rate.warmup": "20 batches"}),
        (["--train.device", "cuda"], {"train.device": "cuda"}),
        (["--train.eval_every", "2 epochs"], {"train.eval_every": "2 epochs"}),
        (["--train.max_duration", "7 steps"], {"train.max_duration": "7 steps"}),
        (["--optimizer.learning_rate.power", "1.0"], {"optimizer.learning_rate.power": 1.0}),
        (["--optimizer.decay_all", "false"], {"optimizer.decay_all": False}),
        (["--train.batch_tokens", "400"], {"train.batch_tokens": 400, "train.batch_size": False}),
        (["--run.name", "other"], {"run.name": "other"}),
    ],
)
def test_a_flag_in_either_tools_words_wins_over_both_files(flags, changes, converted):
    found, _ = converted("batch_size = 16\nwarmup = 5\npatience = 2", "second.toml", *flags)

    assert {key: found[key] for key in changes} == changes


def test_a_rate_of_etudes_on_the_command_line_replaces_slangmods_schedule(converted):
    found, _ = converted("", "second.toml", "--optimizer.learning_rate", "0.25")

    assert {key: value for key, value in found.items() if "learning_rate" in key} == {"optimizer.learning_rate": 0.25}


def test_a_batch_size_and_batch_tokens_on_one_command_line_exclude_each_other(refused):
    told = refused("[train]\n", "second.toml", "--train.batch_tokens", "400", "--train.batch_size", "4")

    assert told[0].startswith("train.batch_size and train.batch_tokens exclude each other")


def test_what_slangmod_does_not_say_of_the_optimizer_comes_from_the_second_file(place, converted):
    (place / "second.toml").write_text(f"{SECOND}\n[optimizer]\nweight_decay = 0.5\ndecay_all = false\n")

    found, _ = converted("", "second.toml")

    assert (found["optimizer.weight_decay"], found["optimizer.decay_all"]) == (0.5, False)


def test_an_own_loss_keeps_its_arguments_and_the_smoothing_left_out_is_told(place, converted):
    (place / "net.py").write_text("def loss(logits, targets): ...\n")
    (place / "second.toml").write_text(f'{SECOND}\n[loss]\ntype = "net.py:loss"\n')

    found, told = converted("", "second.toml")

    assert "loss.label_smoothing" not in found
    assert "loss.label_smoothing is left out: the loss is your own." in told


def test_what_gives_way_in_the_second_file_is_told_in_one_line(place, converted):
    (place / "second.toml").write_text(f'{SECOND}max_duration = "4 steps"\nbatch_tokens = 40\nlog_every = "1 step"\n')

    found, told = converted("", "second.toml")

    assert (found["train.max_duration"], found["train.batch_size"]) == ("16 epochs", 64)
    assert "second.toml sets train.max_duration, train.batch_tokens too: slangmod's values and defaults count" in told


def test_sections_of_slangmods_that_are_left_out_are_told_of_in_one_line_each(converted):
    whole = (
        "log_level = 20\n[data]\nseq_len = 512\njitter = 32\n[model.feedforward]\nfactor = 4\n[train]\n[chat]\nk = 0.1"
    )

    told = converted(whole=whole)[1].splitlines()

    assert [line.split(" is left out: ")[0] for line in told if "is left out" in line] == [
        "log_level = 20",
        "[data] (seq_len, jitter)",
        "[model] (feedforward)",
        "[chat] (k)",
    ]
    assert "(slang.toml, line 2)" in told[1]


@pytest.mark.parametrize("section", LEFT_OUT)
def test_every_other_section_of_slangmods_is_left_out_and_told_of(section, converted):
    _, told = converted(whole=f"[{section}]\n")

    assert f"[{section}] is left out" in told
    assert "slang.toml has no [train]: slangmod's defaults are used." in told


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ("gamma = 0.9", 'gamma is left out: it belongs to scaling = "exponential", and this is "inverse"'),
        ("step_freq = 2", "step_freq: the gradient is clipped once a step"),
        ("", 'scaling = "inverse": the rate falls'),
        ('scaling = "exponential"', "one step earlier"),
        ('scaling = "cosine"', "the quarter wave of slangmod's guide"),
    ],
)
def test_what_has_no_counterpart_or_not_quite_the_same_is_told(train, told, converted):
    assert told in converted(train)[1]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("batch_sise = 8", "is not a key of slangmod's [train]; did you mean train.batch_size? (slang.toml, line 2)."),
        ("frobnicate = 8", "is not a key of slangmod's [train]; it knows batch_size, step_freq"),
        ('max_duration = "4 steps"', "is not a key of slangmod's [train]; slangmod calls this train.max_epochs (slang"),
        ("accumulate = 2", "is not a key of slangmod's [train]; slangmod calls this train.step_freq (slang.toml"),
        ('log_every = "1 step"', "slangmod calls this train.cb_freq (slang.toml, line 2)."),
        ('eval_every = "1 epoch"', "it is Etude's: give it as --train.eval_every or in the second file (slang.toml"),
        ("batch_size = 2.5", "must be a whole number, but is 2.5 (slang.toml, line 2)."),
        ("batch_size = true", "must be a whole number, but is true"),
        ("batch_size = 0", "must be at least 1, but is 0"),
        ('batch_size = "8"', 'must be a whole number, but is "8"'),
        ("step_freq = nan", "must be a whole number, but is nan"),
        ("warmup = inf", "must be a whole number, but is inf"),
        ("max_epochs = 0", "must be at least 1, but is 0"),
        ("warmup = -1", "must be at least 0, but is -1"),
        ("cooldown = 0", "must be at least 1, but is 0"),
        ("cb_freq = 0", "must be at least 1, but is 0"),
        ("patience = 1", "must be at least 2 or none, but is 1"),
        ("clip_grad = 0", "must be more than 0, but is 0"),
        ("clip_grad = nan", "must be more than 0, but is nan"),
        ("clip_grad = [1.0]", "must be a number, but is [1.0]"),
        ("label_smoothing = 1.1", "must be at least 0 and at most 1, but is 1.1"),
        ("learning_rate = 0.0", "must be a finite number above 0, but is 0.0"),
        ("learning_rate = inf", "must be a finite number above 0, but is inf"),
        ("power = 0.4", "must be at least 0.5 and at most 1, but is 0.4"),
        ("gamma = 1.0", "must be more than 0 and less than 1, but is 1.0"),
        ('scaling = "cosin"', 'must be one of "inverse", "exponential", "cosine", but is "cosin"; did you mean "cosin'),
        ("optimizer = 3", 'must be one of "adamw", "adafactor", but is 3'),
    ],
)
def test_a_mistake_is_told_in_slangmods_words_with_its_place(line, told, refused):
    said = refused(f"[train]\n{line}\n")

    assert len(said) == 1
    assert said[0].startswith(f"train.{line.partition(' ')[0]} ")
    assert told in said[0]


def test_all_mistakes_are_told_at_once_those_of_the_flags_too(refused):
    told = refused("nam = 1\n[train]\npower = 2\n[optimizer]\n", "--train.warmpu", "3", "--train.power", "x")

    flag = "--train.{} on the command line"
    assert told == [
        "nam is not a section of slangmod; did you mean name? (slang.toml, line 1).",
        "train.power must be at least 0.5 and at most 1, but is 2 (slang.toml, line 3).",
        "[optimizer] is not a section of slangmod but of Etude: put it into the second file (slang.toml, line 4).",
        f"train.warmpu is not a key of slangmod's [train]; did you mean train.warmup? ({flag.format('warmpu')}).",
        f'train.power must be a number, but is "x" ({flag.format("power")}).',
    ]


def test_many_mistakes_are_six_lines(refused):
    assert len(refused("[train]\n" + "".join(f"x{n} = 1\n" for n in range(9)))) == 6


def test_a_train_that_is_no_table_is_told(refused):
    assert refused("train = 3\n") == ["train must be a table, [train], but is 3 (slang.toml, line 1)."]


def test_what_etude_refuses_is_told_with_the_place_in_slangmods_file(place, refused):
    (place / "second.toml").write_text(SECOND.replace('val = "val.tsv"\n', ""))

    told = refused("[train]\n\npatience = 2\n", "second.toml")

    assert told == ["train.patience needs validation data, but data.val is not set (slang.toml, line 3)."]


MISTAKES = {
    "train slang.toml --from slangmd second.toml": '--from must be "slangmod", but is "slangmd"; did you mean "sl',
    "train slang.toml --from lightning second.toml": "Etude knows the words of this tool, but does not read its files",
    "train slang.toml --from slangmod": "task.type is missing",
    "train slang.toml second.toml": '"second.toml" is one word too many for etude train',
    "train slang.toml --with second.toml": "--with needs --from",
    "train slang.toml second.toml --from slangmod --with second.toml": "keep one of them",
    "train slang.toml second.toml x.toml --from slangmod": '"x.toml" is one word too many',
    "train nowhere.toml second.toml --from slangmod": "nowhere.toml does not exist",
    "train slang.toml nowhere.toml --from slangmod": "nowhere.toml does not exist",
    "convert slang.toml": "the following arguments are required: --from",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_wrong_command_is_told_before_anything_is_made(words, place, capsys):
    (place / "slang.toml").write_text("[train]\n")

    code = main(words.split())

    out, told = capsys.readouterr()
    assert (code, out) == (2, "")
    assert MISTAKES[words] in told.splitlines()[0]
    assert {path.name for path in place.iterdir()} == {"slang.toml", "second.toml"}


def test_who_was_to_give_the_data_is_told_where_nobody_did(place, capsys):
    (place / "slang.toml").write_text("[train]\n")

    main(["train", "slang.toml", "--from", "slangmod"])

    assert "slang.toml gives only the training: add a config" in capsys.readouterr().err

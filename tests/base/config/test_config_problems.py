import pytest

from etude.base.config.other_words import lookup, words

TABLE = [
    ("[train]\nclip_grad = -1.0", "train.clip_grad must be positive, but is -1.0 (run.toml, line 2)."),
    ("[train]\nclip_grad = '1.0'", 'train.clip_grad must be a number, but is "1.0" (run.toml, line 2).'),
    ("[train]\nclip_grad = true", "train.clip_grad must be a number, but is true (run.toml, line 2)."),
    ("[train]\ncompile = 1", "train.compile must be true or false, but is 1 (run.toml, line 2)."),
    ("[train]\ncompile = 'yes'", 'train.compile must be true or false, but is "yes" (run.toml, line 2).'),
    ("[run]\nname = 3", "run.name must be text, but is 3 (run.toml, line 2)."),
    ("[run]\nseed = 1.0", "run.seed must be a whole number, but is 1.0 (run.toml, line 2)."),
    ("[run]\nseed = '1'", 'run.seed must be a whole number, but is "1" (run.toml, line 2).'),
    ("train = 3", "train must be a table, but is 3 (run.toml, line 1)."),
    (
        "[train]\n\nmax_duraton = '1 epoch'",
        "train.max_duraton is not a key of [train]; did you mean train.max_duration? (run.toml, line 3).",
    ),
    (
        "[train]\nname = 'x'",
        "train.name is not a key of [train]; did you mean run.name? (run.toml, line 2).",
    ),
    (
        "[run]\nzzz = 1",
        "run.zzz is not a key of [run]; it knows name, seed (run.toml, line 2).",
    ),
    ("[trian]\nx = 1", "trian is not a section of the config; did you mean train? (run.toml, line 1)."),
    (
        "max_duration = 1",
        "max_duration is not a section of the config; did you mean train.max_duration? (run.toml, line 1).",
    ),
    (
        "[train]\nprecision = 'bfloat61'",
        (
            'train.precision must be one of "auto", "float32", "bfloat16", but is "bfloat61"; '
            'did you mean "bfloat16"? (run.toml, line 2).'
        ),
    ),
    (
        "[train]\nmax_duration = 16",
        (
            "train.max_duration must be a number with its unit (epochs, steps, batches, tokens, samples, seconds, "
            'minutes, hours, %), as in "16 epochs", or a list, but is 16 (run.toml, line 2).'
        ),
    ),
    ("[train]\nmax_duration = []", "train.max_duration must hold at least 1 value(s), but is [] (run.toml, line 2)."),
    ("[train]\nlimit = 1.5", "train.limit must be more than 0 and at most 1, but is 1.5 (run.toml, line 2)."),
    ("[train]\nlimit = 'all'", 'train.limit must be a number, but is "all" (run.toml, line 2).'),
    ("[train]\npatience = 0", "train.patience must be positive, but is 0 (run.toml, line 2)."),
    (
        "[train]\npatience = '2 epoks'",
        (
            "train.patience must have one of the units epochs, steps, batches, tokens, samples, seconds, minutes, "
            'hours, %, as in "16 epochs", but is "2 epoks" (run.toml, line 2).'
        ),
    ),
    ("[data]\ntrain = 3", "data.train must be a path or a list or a table, but is 3 (run.toml, line 2)."),
    ("[data]\ntrain = ['a', 3]", "data.train[1] must be a path, but is 3 (run.toml, line 2)."),
    ("[data]\ntrain = ['a',\n'']", 'data.train[1] must be a path, but is "" (run.toml, line 3).'),
    ("[data]\ntrain = { source = 'a' }", "data.train.target is missing: set it in [data.train] (run.toml, line 2)."),
    (
        "[data]\ntrain = { source = 'a', target = 'b', sorce = 1 }",
        "data.train.sorce is not a key of [data.train]; did you mean data.train.source? (run.toml, line 2).",
    ),
    (
        "[optimizer]\ntype = 'adamv'",
        (
            'optimizer.type must be one of "adamw", "sgd", or "package.module:Class", but is "adamv"; '
            'did you mean "adamw"? (run.toml, line 2).'
        ),
    ),
    ("optimizer = 3", 'optimizer must be a table with a type, as in { type = "name" }, but is 3 (run.toml, line 1).'),
    (
        "[optimizer]\ntype = 'sgd'\nmomentun = 0.9",
        "optimizer.momentun is not a key of [optimizer]; did you mean optimizer.momentum? (run.toml, line 3).",
    ),
    (
        "[optimizer]\ntype = 'sgd'\nmomentum = 2.0",
        "optimizer.momentum must be at least 0 and at most 1, but is 2.0 (run.toml, line 3).",
    ),
    ("[optimizer]\nlearning_rate = -1", "optimizer.learning_rate must be at least 0, but is -1 (run.toml, line 2)."),
    (
        "[optimizer]\nlearning_rate = 'fast'",
        'optimizer.learning_rate must be a number or a table with schedule = ..., but is "fast" (run.toml, line 2).',
    ),
    (
        "[optimizer]\nlearning_rate = { schedule = 'cosin', peak = 1 }",
        (
            'optimizer.learning_rate.schedule must be one of "linear", "cosine", but is "cosin"; '
            'did you mean "cosine"? (run.toml, line 2).'
        ),
    ),
    (
        "[optimizer]\nlearning_rate = { peak = 1 }",
        "optimizer.learning_rate must name its schedule, as in schedule = ... (run.toml, line 2).",
    ),
    (
        "[optimizer]\nlearning_rate = { schedule = 'cosine', peak = 'x' }",
        'optimizer.learning_rate.peak must be a number, but is "x" (run.toml, line 2).',
    ),
    (
        "[optimizer]\nlearning_rate = { schedule = 'cosine' }",
        "optimizer.learning_rate.peak is missing: set it in [optimizer.learning_rate] (run.toml, line 2).",
    ),
    (
        "[optimizer]\nlearning_rate = { schedule = 'linear', form = 1.0 }",
        (
            "optimizer.learning_rate.form is not a key of [optimizer.learning_rate]; "
            "did you mean optimizer.learning_rate.from? (run.toml, line 2)."
        ),
    ),
    (
        "[optimizer]\ntype = 'pkg:Lion'\nlearning_rate = 'x'",
        'optimizer.learning_rate must be a number or a table with schedule = ..., but is "x" (run.toml, line 3).',
    ),
    (
        "[train]\ngradient_clip_val = 1",
        "train.gradient_clip_val is not a key of [train]; Etude calls this train.clip_grad (run.toml, line 2).",
    ),
    (
        "per_device_train_batch_size = 1",
        (
            "per_device_train_batch_size is not a section of the config; Etude calls this train.batch_size, "
            "over all ranks together (run.toml, line 1)."
        ),
    ),
    (
        "[data]\nbatch_size = 1",
        (
            "data.batch_size is not a key of [data]; Etude calls this train.batch_size (slangmod), "
            "train.batch_tokens, counted in frames (RETURNN) (run.toml, line 2)."
        ),
    ),
    (
        "[train]\nepochs = 3",
        'train.epochs is not a key of [train]; Etude calls this train.max_duration = "3 epochs" (run.toml, line 2).',
    ),
    (
        "[data]\naugmentation = 'x'",
        "data.augmentation is not a key of [data]; Etude calls this data.augment (run.toml, line 2).",
    ),
    (
        "[train]\ngrad_clip = 1",
        "train.grad_clip is not a key of [train]; Etude calls this train.clip_grad (run.toml, line 2).",
    ),
    ("[run]\nseed = .5", "run.toml is not valid TOML: .5 is written 0.5 there (run.toml, line 2)."),
    (
        "load_best_model_at_end = true",
        (
            "load_best_model_at_end is not a section of the config; the best weights are always kept and used "
            "(run.toml, line 1)."
        ),
    ),
]


@pytest.mark.parametrize(("text", "sentence"), TABLE, ids=[text.replace("\n", " ") for text, _ in TABLE])
def test_a_mistake_gets_one_sentence(problems, text, sentence):
    assert problems(text) == [sentence]


def test_all_mistakes_come_at_once_in_the_order_of_their_lines(problems):
    found = problems("[train]\nlimit = -1\nclip_grad = 'x'\n[run]\nseed = 'y'\n[foo]\n", "--run.nam", "x")

    assert [sentence.partition(" ")[0] for sentence in found] == [
        "train.limit",
        "train.clip_grad",
        "run.seed",
        "foo",
        "run.nam",
    ]
    assert found[-1].endswith("; did you mean run.name? (in the place of --run.nam on the command line).")


def test_what_is_no_config_at_all_is_not_told_key_by_key(problems):
    found = problems("\n".join(f"k{number} = 1" for number in range(5000)))

    assert len(found) == 101
    assert found[-1] == "There are 4900 more mistakes like these."


def test_a_long_value_is_cut(problems):
    (sentence,) = problems(f"[run]\nseed = '{'x' * 200}'")

    assert len(sentence) < 140
    assert "..." in sentence


def test_another_tools_word_is_found_however_it_is_spelt():
    assert [word.etude for word in lookup("--Max-Epochs")] == [("train.max_duration",)] * 2
    assert lookup("nothing_of_the_kind") == ()


def test_the_table_of_words_is_whole():
    tools = {word.tool for word in words()}

    assert tools >= {"slangmod", "autrainer", "Lightning", "TorchLingo", "RETURNN", "HF Trainer"}
    assert tools >= {"Keras", "nanoGPT", "OpenNMT", "PyTorch scripts"}
    assert {word.word for word in words("slangmod")} >= {"step_freq", "cooldown", "cb_freq"}
    assert len(words()) == len(set(words())) > 120

"""Mistakes in what holds a config, and on the command line."""

import pytest
from mistaken import Mistake, check, config, write

TRAIN = ("train", "translate.toml")


def held(name, content, *says):
    """A config file that cannot be read as one."""
    return Mistake(name, says, files={"translate.toml": content})


def asked(name, words, *says, **more):
    """A command that cannot be."""
    return Mistake(name, says, words=tuple(words.split(" ")) if isinstance(words, str) else words, **more)


FILES = [
    held("a config that is missing", None, "translate.toml does not exist", "config file"),
    held("a config that is empty", "", "translate.toml is empty", "[train]"),
    held("a config of comments", "# later\n", "translate.toml is empty"),
    held("a config in Latin-1", b'[run]\nname = "\xe9tude"\n', "must be UTF-8", "0xe9", "translate.toml, line 2"),
    held("a config of bytes", b"\x80\x04\x95K\x00", "must be UTF-8", "translate.toml, line 1"),
    held("a line without a value", "[train]\nclip_grad =\n", "not valid TOML", "translate.toml, line 2"),
    held("a bracket left open", "[train\nclip_grad = 1.0\n", "not valid TOML", "translate.toml, line 1"),
    held("a string left open", '[run]\nname = "a\n', "not valid TOML", "translate.toml, line 2"),
    held("a bare word", "[model]\ntype = transformer\n", "not valid TOML", "translate.toml, line 2"),
    held("a key twice", "[train]\nclip_grad = 1.0\nclip_grad = 2.0\n", "not valid TOML", "translate.toml, line"),
    held("a section twice", "[train]\n[model]\n[train]\n", "not valid TOML", "translate.toml, line"),
    held("YAML", "train:\n  clip_grad: 1.0\n", "not valid TOML", "translate.toml, line 1"),
    held("JSON", '{"train": {"clip_grad": 1.0}}', "not valid TOML", "translate.toml, line 1"),
    held(
        "a section that is a number",
        'train = 5\ntask = "translation"\n',
        "train must be a table",
        "translate.toml, line 1",
    ),
    held("a table of tables", '[[train]]\nclip_grad = 1.0\n[task]\ntype = "translation"\n', "train must be a table"),
    held(
        "a base that is missing", 'extends = ["base.toml"]\n', '"base.toml"', "is not a file", "translate.toml, line 1"
    ),
    held("a base that is itself", 'extends = "translate.toml"\n', "extends itself"),
    held("a base that is a number", "extends = 3\n", "extends must be the path", "translate.toml, line 1"),
    Mistake(
        "bases in a circle",
        ("extends itself", "translate.toml -> base.toml -> translate.toml"),
        files={"translate.toml": 'extends = "base.toml"\n', "base.toml": 'extends = "translate.toml"\n'},
    ),
    Mistake(
        "a mistake in a base",
        ("train.clip_gard", "did you mean train.clip_grad?", "base.toml, line 2"),
        files={"translate.toml": config({"": 'extends = "base.toml"'}), "base.toml": "[train]\nclip_gard = 1.0\n"},
    ),
]

COMMANDS = [
    asked("a verb misspelt", "trian translate.toml", '"trian" is not a verb', "did you mean train?"),
    asked("a verb of a later version", "replay runs/translate", '"etude replay" is planned'),
    asked("a flag before the verb", "--quiet train", "--quiet is not a flag"),
    asked("no config", "train", "etude train", "CONFIG"),
    asked("two configs", "train translate.toml other.toml", '"other.toml" is one word too many'),
    asked("a folder as a config", "train .", "is a folder"),
    asked("a config that is a TSV", "train train.tsv", "train.tsv is not valid TOML", "line 1"),
    asked("a flag misspelt", "predict run --jsom", "--jsom is not a flag", "did you mean --json?"),
    asked("a flag of another verb", "train translate.toml --json", "--json is not a flag of etude train"),
    asked("a flag without its value", "predict run --output", "--output", "expected one argument"),
    asked("a number that is none", "test run --batch-size many", "--batch-size", "many"),
    asked(
        "an override misspelt", [*TRAIN, "--train.clip_gard", "1"], "train.clip_gard", "did you mean train.clip_grad?"
    ),
    asked("an override without a section", [*TRAIN, "--clip_grad", "1"], "--clip_grad is not a flag of etude train"),
    asked("an override of no section", [*TRAIN, "--trian.clip_grad", "1"], "trian", "did you mean train?"),
    asked("an override without a value", [*TRAIN, "--train.clip_grad"], "--train.clip_grad needs a value"),
    asked(
        "an override before another",
        [*TRAIN, "--train.clip_grad", "--run.seed", "2"],
        "--train.clip_grad needs a value",
    ),
    asked(
        "an override of the wrong kind", [*TRAIN, "--train.clip_grad", "one"], "must be a number", "on the command line"
    ),
    asked("an override out of range", [*TRAIN, "--train.clip_grad=-1"], "must be positive", "on the command line"),
    asked(
        "an override that breaks off",
        [*TRAIN, "--optimizer.learning_rate", '{ schedule = "cosine", peak = 1e-3'],
        "--optimizer.learning_rate must be valid TOML",
    ),
    asked(
        "an override with a bare number", [*TRAIN, "--train.max_duration", "300"], "max_duration must be", "but is 300"
    ),
    asked("an override that is no key", [*TRAIN, "--train..clip_grad", "1"], "--train..clip_grad must name a key"),
    asked("values for a verb without", "schema --train.clip_grad 1", "etude schema takes no config values"),
    asked("too few best", "predict run --n-best 0", "--n-best must be at least 1"),
    asked("more best than the beam", "predict run --n-best 4 --beam-size 2", "--n-best must be at most --beam-size"),
]


@pytest.mark.parametrize("mistake", FILES + COMMANDS, ids=str)
def test_a_command_that_cannot_be_is_answered_in_one_line(mistake, home, capsys):
    write(home, {"translate.toml": config()} | dict(mistake.files))

    check(mistake, capsys)

    assert not (home / "runs").exists()


def test_a_config_that_is_a_link_to_itself_is_answered_in_one_line(home, capsys):
    (home / "translate.toml").symlink_to("translate.toml")

    check(Mistake("a circle of links", ("translate.toml cannot be read",)), capsys)


OWN = """
class Silent:
    pass

class Watch:
    def __init__(self, every):
        self.every = every

class Misnamed:
    def on_epok_end(self, view):
        pass

def optimizer(parameters, strength):
    return parameters

def failing(view=None):
    raise RuntimeError("one line" + chr(10) + "another")

def model(source_vocabulary, width):
    return width

number = 5
"""


def imported(name, edit, *says, own=OWN):
    at = next(iter(edit.values())).splitlines()[0]
    return Mistake(name, says, edit=edit, at=at, files={"own.py": own})


IMPORTS = [
    imported("no such module", {"model": 'type = "nowhere.at_all:Net"'}, "no module nowhere"),
    imported("no such file", {"model": 'type = "net.py:Net"'}, "net.py is not a file"),
    imported("no such name", {"model": 'type = "own.py:modle"'}, "has no modle", 'did you mean "model"?'),
    imported(
        "not to be called", {"model": 'type = "own.py:number"'}, "model.type", "is not something that can be called"
    ),
    Mistake(
        "an argument too few",
        ("model.width is missing",),
        edit={"model": 'type = "own.py:model"'},
        at="[model]",
        files={"own.py": OWN},
    ),
    Mistake(
        "a callback's event",
        ("Misnamed.on_epok_end is not an event", "did you mean on_epoch_end?"),
        edit={"": 'callbacks = ["own.py:Misnamed"]'},
        files={"own.py": OWN},
    ),
    imported(
        "a callback's argument",
        {"": 'callbacks = [{ type = "own.py:Watch", evry = 3 }]'},
        "evry is not an argument of Watch",
        "every",
    ),
    imported("a file with a fault", {"model": 'type = "own.py:Net"'}, "own.py, line 1", own="import nothing_there\n"),
    imported("a file that is not Python", {"model": 'type = "own.py:Net"'}, "own.py, line 2", own="a = 1\nb = = 2\n"),
    imported("a model that is none", {"model": 'type = "own.py:Silent"'}, "must make a torch.nn.Module", "Silent"),
    imported("a loss that is none", {"loss": 'type = "own.py:Silent"'}, "loss.type must make a function", "Silent"),
    imported("a task that is none", {"task": 'type = "own.py:Silent"\neval_search_samples'}, "must make an etude.Task"),
    imported(
        "a part that fails", {"": 'callbacks = ["own.py:failing"]'}, "callbacks[0]", "RuntimeError: one line another"
    ),
    imported("an initialiser of no file", {"init": 'weights = { "*" = "net.py:fill" }'}, "net.py is not a file"),
    imported("no such optimizer", {"optimizer": 'type = "torch.optim:RAdan"\nlearning_rate'}, 'did you mean "RAdam"?'),
    Mistake(
        "an optimizer's argument",
        ("optimizer.betaz is not an argument of RAdam", "did you mean optimizer.betas?"),
        edit={"optimizer": 'type = "torch.optim:RAdam"\nbetaz = 3'},
        at="betaz",
    ),
    imported("a logger of no module", {"log": 'loggers = ["no_such:Logger"]'}, "log.loggers[0]", "no module no_such"),
    imported(
        "a schedule of no module",
        {"model": 'dropout = { schedule = "no_such:decay" }'},
        "model.dropout.schedule",
        "no module no_such",
    ),
    imported("a logger that is none", {"log": 'loggers = ["own.py:Silent"]'}, "must have a method log(row)"),
]


@pytest.mark.parametrize("mistake", IMPORTS, ids=str)
def test_an_import_path_that_leads_nowhere_is_answered_in_one_line(mistake, home, capsys):
    edit = dict(mistake.edit)
    if "model" in edit:  # an imported model has no arguments of the transformer's
        edit["model"] += "".join(
            f"\n{key}" for key in ("d_model", "heads", "encoder_layers", "decoder_layers", "feedforward")
        )
    mistake = Mistake(mistake.name, mistake.says, edit=edit, at=mistake.at, files=mistake.files)
    write(home, {"translate.toml": config(edit)} | dict(mistake.files))

    check(mistake, capsys)

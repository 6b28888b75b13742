"""The verbs of the shell: one table, read by the help, the parser and the dispatcher; nothing heavy is imported."""

import importlib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.tasks.table import predict_flags

LATER = ("sweep", "report", "replay", "align", "rm", "average", "new")
"""Verbs of the design that this version does not have."""


@dataclass(frozen=True)
class Argument:
    """One argument of a verb, as argparse takes it."""

    names: tuple[str, ...]
    options: dict[str, Any]

    def add_to(self, parser: ArgumentParser) -> None:
        """Declare it."""
        parser.add_argument(*self.names, **self.options)


@dataclass(frozen=True)
class Verb:
    """A word of the shell: what it does, an example, its arguments, and the function that does it."""

    name: str
    summary: str
    example: str
    target: str
    """`module:function`; the function takes the parsed arguments and the overrides, and returns the exit code."""
    about: str = ""
    """More than the summary, for its own help."""
    arguments: Sequence[Argument] = field(default_factory=tuple)
    overrides: bool = True
    """Whether `--section.key VALUE` is taken."""

    def run(self, arguments: Namespace, overrides: list[str]) -> int:
        """Import what the verb needs, and do it."""
        module, _, name = self.target.partition(":")
        function: Callable[[Namespace, list[str]], int] = getattr(importlib.import_module(module), name)
        return function(arguments, overrides)


def argument(*names: str, **options: Any) -> Argument:
    """Declare an argument as `add_argument` would."""
    return Argument(names, options)


CONFIG = argument("config", metavar="CONFIG", help="a config file (TOML)")
SECOND = argument("second", metavar="SECOND", nargs="?", help="with --from: a config with task, data and model")
FROM = argument("--from", dest="tool", metavar="NAME", help="CONFIG is a file of this tool: slangmod")
WITH = argument("--with", dest="beside", metavar="SECOND", help="the same as SECOND")
RUN = argument("run", metavar="RUN", help="a run folder, such as runs/numbers")
CHECKPOINT = argument(
    "--checkpoint", metavar="WHICH", default="best", help="best (the default), last, a step, or a checkpoint's folder"
)
DEVICE = argument("--device", metavar="NAME", default="auto", help="cuda, mps or cpu (default: the first there is)")
BATCH_SIZE = argument("--batch-size", metavar="N", type=int, help="samples computed together (changes no result)")
ALLOW_CODE = argument("--allow-code", action="store_true", help="run the user's own code that the run's config names")
JSON = argument("--json", action="store_true", help="one JSON object a line")

_EVALUATE = (RUN, CHECKPOINT, DEVICE, BATCH_SIZE, ALLOW_CODE, JSON)

VERBS: tuple[Verb, ...] = (
    Verb(
        "train",
        "train a run; the same command again continues or finishes it",
        'etude train recipes/translation.toml --train.max_duration "300 steps"',
        "etude.app.cli.train:run",
        "Trains the run that CONFIG describes. Stopped at any moment, even by kill -9, it goes on from its newest\n"
        "checkpoint when the same command is given again, and ends in the same weights.\n\n"
        "With --from slangmod, CONFIG is a file of slangmod's, of which [train] counts; --train.KEY VALUE may be in\n"
        "slangmod's words, and task, data and model come from SECOND or from flags. The composed config is printed.",
        (CONFIG, SECOND, FROM, WITH),
    ),
    Verb(
        "check",
        "everything that can be known without training: config, files, shapes, memory, time",
        "etude check recipes/translation.toml",
        "etude.app.cli.check:run",
        "Reads config and data, builds the model, takes a few steps and validates a little, to say what a run would\n"
        "need; leaves nothing behind.",
        (CONFIG,),
    ),
    Verb(
        "plan",
        "every scheduled value, evaluation, save and the end of a run, without training it",
        "etude plan recipes/translation.toml --output plan.svg",
        "etude.app.cli.plan:run",
        "Reads data and builds every part as training does, and walks through the steps without taking them. Each row\n"
        "holds the values of one step as metrics.jsonl will; leaves nothing behind.",
        (
            CONFIG,
            argument("--steps", metavar="N", type=int, help="plan no more than the first N steps"),
            argument("--output", metavar="FILE", help="draw every value into a file that ends in .svg"),
            argument("--csv", metavar="FILE", help="write the values of the steps as a table"),
            argument("--json", action="store_true", help="print the whole plan as one JSON object"),
            argument("--ascii", action="store_true", help="draw the charts without Unicode"),
        ),
    ),
    Verb(
        "validate",
        "metrics of a run's best weights on its validation split",
        "etude validate runs/translation",
        "etude.app.cli.evaluate:validate",
        "The split can be another: --data.val FILE.",
        _EVALUATE,
    ),
    Verb(
        "test",
        "metrics of a run's best weights on its test split",
        "etude test runs/translation --data.test pairs.tsv",
        "etude.app.cli.evaluate:test",
        "The split can be another: --data.test FILE. The predictions are written to the run's outputs/, the metrics\n"
        "appended to its metrics.jsonl.",
        _EVALUATE,
    ),
    Verb(
        "predict",
        "translate or complete lines of a file or of standard input, as they come",
        'echo "Two dogs are playing." | etude predict runs/translation',
        "etude.app.cli.predict:run",
        "Each line of FILE (standard input without one) gives one line of output, in the same order; an empty line\n"
        "gives an empty one. Answers are written as soon as lines are there. With --n-best N above 1, each line\n"
        "gives up to N lines of its number, a score and a text, separated by tabs, best first. With --json, each\n"
        "line gives one object with source, prediction, score and predictions.\n\n"
        "A language model completes each line as a prompt, an empty one with a text from nothing: on a terminal\n"
        "token by token, elsewhere one line a completion, in which a line break is written as \\n. With --score it\n"
        "gives, for each line, its log-probability in nats, bits per byte and the line, separated by tabs. With\n"
        "--json each prompt gives one object with prompt, prediction and predictions.",
        (
            RUN,
            argument("file", metavar="FILE", nargs="?", help="lines to translate, in UTF-8 (default: standard input)"),
            argument("--output", metavar="FILE", help="write there instead of standard output, whole or not at all"),
            JSON,
            *(argument(f"--{flag.name}", **flag.options) for flag in predict_flags()),
            CHECKPOINT,
            DEVICE,
            BATCH_SIZE,
            ALLOW_CODE,
        ),
    ),
    Verb(
        "show",
        "the composed config, with where each value came from",
        "etude show recipes/translation.toml --train.clip_grad 1.0",
        "etude.app.cli.show:show",
        "",
        (CONFIG,),
    ),
    Verb(
        "convert",
        "a config of another tool, in Etude's words, with what has no counterpart",
        "etude convert --from slangmod slang.toml --output train.toml",
        "etude.app.cli.convert:run",
        "Prints what the file says as a config of Etude's, which another may extend; with SECOND, or with a task\n"
        "among the flags, the whole composed config. What is left out or not quite the same is told on standard error.",
        (
            argument("config", metavar="FILE", help="a file of the other tool"),
            SECOND,
            argument("--from", dest="tool", metavar="NAME", required=True, help="the tool: slangmod"),
            WITH,
            argument("--output", metavar="FILE", help="write there instead of standard output"),
        ),
    ),
    Verb(
        "export",
        "a run's best model as a folder that others can load",
        "etude export runs/language_model exported",
        "etude.app.cli.export:run",
        "A language model becomes a GPT-2 or a Llama of the transformers library, and a tuned model of that library\n"
        "what it was; both with their tokenizer. Any other model is written in Etude's own form, which predict reads.\n"
        "The averaged weights are taken, where an average was kept. DIR must be new or empty; it appears whole or not\n"
        "at all.",
        (RUN, argument("folder", metavar="DIR", help="the folder to write"), CHECKPOINT, ALLOW_CODE),
        overrides=False,
    ),
    Verb(
        "fork",
        "a new run that shares the first steps of another, to the bit",
        'etude fork runs/translation --at "5000 steps" --optimizer.learning_rate 3e-4',
        "etude.app.cli.fork:run",
        "The new run lies beside RUN, as RUN-fork-5000 unless --run.name is given, and trains on to its end with the\n"
        "values that are changed here. Steps of which RUN keeps no checkpoint are taken again with RUN's config.\n"
        "Stopped at any moment, the fork goes on when the same command is given again. Nothing in RUN is changed.",
        (
            RUN,
            argument(
                "--at", metavar="WHEN", required=True, help='where it leaves RUN: "500 steps", "2 epochs", "5 %%"'
            ),
            argument("--no-train", action="store_true", help="make the fork, and do not train it on"),
        ),
    ),
    Verb(
        "diff",
        "how two runs differ, and the first step at which they part",
        "etude diff runs/translation runs/translation-fork-5000",
        "etude.app.cli.diff:run",
        "Compares config, data, code and environment, then the rows that both logged and the checkpoints that both\n"
        "keep, aside from what depends on the clock. The exit code is 0 whether or not they differ.",
        (
            argument("first", metavar="A", help="a run folder"),
            argument("second", metavar="B", help="another"),
            argument("--json", action="store_true", help="one JSON object"),
        ),
        overrides=False,
    ),
    Verb(
        "runs",
        "list runs: state, steps, best metric, age",
        "etude runs runs/",
        "etude.app.cli.runs:run",
        "A run is running, finished, interrupted (it saved, and goes on when trained again) or failed (it ended\n"
        "without saying so; it goes on all the same).",
        (argument("folder", metavar="DIR", nargs="?", default="runs", help="where the runs lie (default: runs)"), JSON),
        overrides=False,
    ),
    Verb(
        "schema",
        "the JSON Schema of a config, with which an editor completes and checks it",
        "etude schema > etude.schema.json",
        "etude.app.cli.show:schema",
        overrides=False,
    ),
    Verb(
        "demo",
        "the first run: train, be killed, go on, test and translate, in a few minutes",
        "etude demo",
        "etude.app.demo:run",
        "Trains a translator of English numbers, dates, times and money into Spanish on a generated corpus, kills its\n"
        "own training with kill -9 on the way, goes on, tests, and translates.",
        (
            argument("--dir", metavar="DIR", default="runs", help="where the run is kept (default: runs)"),
            argument("--fresh", action="store_true", help="remove the demo's earlier run and begin again"),
        ),
    ),
)

BY_NAME = {verb.name: verb for verb in VERBS}

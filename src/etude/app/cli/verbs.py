"""The verbs of the shell: one table, read by the help, the parser and the dispatcher; nothing heavy is imported."""

import importlib
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.tasks.table import predict_flags

LATER = ("replay",)
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


def path(*names: str, **options: Any) -> Argument:
    """Declare an argument that names a file or folder, in which `~` is the home folder."""
    return argument(*names, type=os.path.expanduser, **options)


CONFIG = path("config", metavar="CONFIG", help="a config file (TOML)")
SECOND = path("second", metavar="SECOND", nargs="?", help="with --from: a config with task, data and model")
FROM = argument(
    "--from", dest="tool", metavar="NAME", help="CONFIG is a file of this tool: slangmod; or the stage to start at"
)
ONLY = argument("--only", metavar="STAGE", help="run this stage of CONFIG alone")
FORCE = argument("--force-from", metavar="STAGE", help="run this stage and all that depend on it anew")
WITH = path("--with", dest="beside", metavar="SECOND", help="the same as SECOND")
RUN = path("run", metavar="RUN", help="a run folder, such as runs/numbers")
CHECKPOINT = argument(
    "--checkpoint", metavar="WHICH", default="best", help="best (the default), last, a step, or a checkpoint's folder"
)
DEVICE = argument("--device", metavar="NAME", default="auto", help="cuda, mps or cpu (default: the first available)")
BATCH_SIZE = argument("--batch-size", metavar="N", type=int, help="samples per batch (does not change the result)")
ALLOW_CODE = argument("--allow-code", action="store_true", help="run the custom code that the run's config names")
JSON = argument("--json", action="store_true", help="one JSON object per line")

SPLITS = ("train", "val", "test")
SHELLS = ("bash", "zsh", "fish")

_EVALUATE = (RUN, CHECKPOINT, DEVICE, BATCH_SIZE, ALLOW_CODE, JSON)

VERBS: tuple[Verb, ...] = (
    Verb(
        "train",
        "train a run; the same command again resumes it",
        'etude train recipes/translation.toml --train.max_duration "300 steps"',
        "etude.app.cli.train:run",
        "Trains the run that CONFIG describes. After a stop, even kill -9, run the same command again: it resumes\n"
        "from the newest intact checkpoint and ends with the same weights.\n\n"
        "With --from slangmod, CONFIG is a file of slangmod, whose [train] is used; --train.KEY VALUE may use\n"
        "slangmod's words, and task, data and model come from SECOND or from flags. The composed config is printed.\n\n"
        "If CONFIG has stages, those run that are missing or have changed. --from STAGE uses those before it as they\n"
        "are. --section.key VALUE changes all stages, --stage.NAME.section.key VALUE one of them.",
        (CONFIG, SECOND, FROM, WITH, ONLY, FORCE),
    ),
    Verb(
        "check",
        "a dry run: config, files, shapes, a few batches, memory, time per epoch",
        "etude check recipes/translation.toml",
        "etude.app.cli.check:run",
        "Validates the config, checks the files, builds the model, runs a few training and validation batches, and\n"
        "reports memory and time per epoch. Leaves nothing behind.",
        (CONFIG,),
    ),
    Verb(
        "plan",
        "every scheduled value, validation and save of a run, without training it",
        "etude plan recipes/translation.toml --output plan.svg",
        "etude.app.cli.plan:run",
        "Reads the data and builds the run as training does, then walks through the steps without training. Each row\n"
        "holds the values of one step, as metrics.jsonl will. Leaves nothing behind.\n\n"
        "If CONFIG has stages, their graph is printed and drawn, and which of them are done; --stage NAME plans one.",
        (
            CONFIG,
            argument("--steps", metavar="N", type=int, help="plan no more than the first N steps"),
            argument("--stage", metavar="NAME", help="of a config with stages, the plan of one"),
            path("--output", metavar="FILE", help="draw every value into a file that ends in .svg"),
            path("--csv", metavar="FILE", help="write the values of the steps as a table"),
            argument("--json", action="store_true", help="print the whole plan as one JSON object"),
            argument("--ascii", action="store_true", help="draw the charts without Unicode"),
        ),
    ),
    Verb(
        "find",
        "a learning rate by a range test, or a batch size by memory and the noise of gradients",
        "etude find learning_rate recipes/translation.toml --picture range.svg",
        "etude.app.cli.find:run",
        "learning_rate: the rate grows from step to step until the loss diverges; a tenth of the rate at the lowest\n"
        "loss is suggested as a peak. batch_size: the size is doubled until memory, time or data end it; then the\n"
        "critical batch size is measured, with its interval. Leaves nothing behind.",
        (
            argument(
                "what", metavar="WHAT", choices=("learning_rate", "batch_size"), help="learning_rate or batch_size"
            ),
            CONFIG,
            argument("--from", dest="begin", metavar="X", type=float, default=1e-7, help="first rate (default: 1e-7)"),
            argument("--to", dest="end", metavar="X", type=float, default=10.0, help="last rate (default: 10)"),
            argument("--steps", metavar="N", type=int, default=100, help="steps of the range test (default: 100)"),
            path("--picture", metavar="FILE", help="draw the range test into a file that ends in .svg"),
            argument(
                "--batches", metavar="N", type=int, default=64, help="batches measured for the noise (default: 64)"
            ),
            argument("--after", metavar="N", type=int, default=50, help="steps trained before that (default: 50)"),
            argument("--json", action="store_true", help="print one JSON object"),
        ),
    ),
    Verb(
        "validate",
        "metrics of a run's best weights on its validation split",
        "etude validate runs/translation",
        "etude.app.cli.evaluate:validate",
        "To use another file: --data.val FILE.",
        _EVALUATE,
    ),
    Verb(
        "test",
        "metrics of a run's best weights on its test split",
        "etude test runs/translation --data.test pairs.tsv",
        "etude.app.cli.evaluate:test",
        "To use another file: --data.test FILE. The predictions are written to the run's outputs/, the metrics\n"
        "appended to its metrics.jsonl.",
        _EVALUATE,
    ),
    Verb(
        "predict",
        "translate or complete lines of a file or of standard input, as they come",
        'echo "Two dogs are playing." | etude predict runs/translation',
        "etude.app.cli.predict:run",
        "Each line of FILE (standard input without one) gives one line of output, in the same order; an empty line\n"
        "gives an empty one. Each answer is written as soon as its line is there. With --n-best N above 1, each line\n"
        "gives up to N lines of its number, a score and a text, separated by tabs, best first. With --json, each\n"
        "line gives one object with source, prediction, score and predictions.\n\n"
        "A language model completes each line as a prompt, even an empty one: on a terminal\n"
        "token by token, elsewhere one line per completion, in which \\n stands for a line break. With --score it\n"
        "gives, for each line, its log-probability in nats, bits per byte and the line, separated by tabs. With\n"
        "--json each prompt gives one object with prompt, prediction and predictions.\n\n"
        "A speech recogniser transcribes recordings: FILE is one, or lists them, or each line is the path of one.\n"
        "With --stream it transcribes raw samples of FILE or of standard input as they come, each word once it is\n"
        "final; with --json each word gives one object.",
        (
            RUN,
            path("file", metavar="FILE", nargs="?", help="lines to translate, in UTF-8 (default: standard input)"),
            path("--output", metavar="FILE", help="write there instead of standard output, all or nothing"),
            JSON,
            *(argument(f"--{flag.name}", **flag.options) for flag in predict_flags()),
            CHECKPOINT,
            DEVICE,
            BATCH_SIZE,
            ALLOW_CODE,
        ),
    ),
    Verb(
        "align",
        "where in its recordings a run's transcripts lie, label by label",
        "etude align runs/speech --format textgrid --output grids",
        "etude.app.cli.align:run",
        "Aligns the transcripts of a split, or of the manifest DATA, with their recordings by the best path of\n"
        "the run's network. They are kept in the run's alignments/NAME, where loss.alignments of another run finds\n"
        "them. To go on with an interrupted alignment, run the same command again. A bad recording, or one with\n"
        "fewer frames than its labels need, is named and left out; the exit code is then 3.",
        (
            RUN,
            path("data", metavar="DATA", nargs="?", help="a manifest with transcripts, in the place of a split"),
            argument("--split", choices=SPLITS, default="train", help="train (the default), val or test"),
            argument("--name", metavar="NAME", help="the folder in alignments/ (default: the split, or DATA's name)"),
            argument("--topology", metavar="HOW", help="ctc, hmm, transducer or linear (default: of the loss)"),
            argument(
                "--prior-scale", metavar="X", type=float, default=0.0, help="take X of the log-priors of labels off"
            ),
            argument("--priors", metavar="HOW", help="these: counted in an alignment, or averaged over frames"),
            path("--better-of", metavar="DIR", help="keep each path of this alignment that scores more"),
            argument("--format", dest="form", metavar="FORM", help="write files as well: textgrid, ctm or json"),
            path("--output", metavar="DIR", help="the folder of these files"),
            path("--picture", metavar="DIR", help="draw the first recordings into SVG files in this folder"),
            argument("--pictures", metavar="N", type=int, default=10, help="how many (default: 10)"),
            argument("--shard-size", metavar="N", type=int, default=1000, help="recordings stored at once"),
            CHECKPOINT,
            DEVICE,
            BATCH_SIZE,
            ALLOW_CODE,
        ),
    ),
    Verb(
        "show",
        "the composed config, with the origin of each value",
        "etude show recipes/translation.toml --train.clip_grad 1.0",
        "etude.app.cli.show:show",
        "",
        (CONFIG,),
    ),
    Verb(
        "convert",
        "a config of another tool as a config of Etude, and what has no counterpart",
        "etude convert --from slangmod slang.toml --output train.toml",
        "etude.app.cli.convert:run",
        "Prints the file as a config of Etude, which another can extend; with SECOND, or with a task\n"
        "among the flags, the whole composed config. Standard error lists what is left out or not quite the same.",
        (
            path("config", metavar="FILE", help="a file of the other tool"),
            SECOND,
            argument("--from", dest="tool", metavar="NAME", required=True, help="the tool: slangmod"),
            WITH,
            path("--output", metavar="FILE", help="write there instead of standard output"),
        ),
    ),
    Verb(
        "export",
        "a run's best model as a folder that others can load",
        "etude export runs/language_model exported",
        "etude.app.cli.export:run",
        "A language model becomes a GPT-2 or a Llama of the transformers library; a fine-tuned model of that library\n"
        "stays what it was. Both include their tokenizer. Other models are written in Etude's own form, for predict.\n"
        "With --format onnx a recogniser or classifier becomes a graph that other programs run, compared with torch\n"
        "before it is written. If an average was kept, the averaged weights are used. DIR must be new or empty; it\n"
        "appears whole or not at all.",
        (
            RUN,
            path("folder", metavar="DIR", help="the folder to write"),
            argument("--format", metavar="FORM", default="auto", help="onnx, or auto (the default): as said above"),
            CHECKPOINT,
            ALLOW_CODE,
        ),
        overrides=False,
    ),
    Verb(
        "sweep",
        "runs of a config with other values of some keys: grids, draws, searches",
        "etude sweep recipes/translation.toml --optimizer.learning_rate 1e-3,3e-4 --run.seed 1,2,3",
        "etude.app.cli.sweep:run",
        "Trains a run for every combination of the values that flags and [sweep] give, each in a folder of its own in\n"
        "that of the sweep. The same command again, on any number of machines, runs what is left.\n"
        "Commas part values: --model.d_model 128,256. A list is one value: --key '[1, 2]'. A draw needs\n"
        "--sweep.method and --sweep.trials, and takes ranges: --optimizer.learning_rate '{ min = 1e-5, max = 1e-2 }'.",
        (
            CONFIG,
            argument("--jobs", metavar="N", type=int, default=1, help="runs at once (default: 1)"),
            argument("--threads", metavar="N", type=int, help="threads of each run (default: the cores divided)"),
            argument("--retry", choices=("failed", "pruned", "all"), help="run those again, from where they ended"),
            argument("--status", action="store_true", help="show how the sweep stands, and run nothing"),
            JSON,
        ),
    ),
    Verb(
        "fork",
        "a new run that shares the first steps of another, bit for bit",
        'etude fork runs/translation --at "500 steps" --optimizer.learning_rate 3e-4',
        "etude.app.cli.fork:run",
        "Writes the new run beside RUN, as RUN-fork-500 unless --run.name is given, and trains it to its end with\n"
        "the values changed here. Steps for which RUN has no checkpoint are recomputed with RUN's config.\n"
        "To resume a stopped fork, run the same command again. Nothing in RUN changes.",
        (
            RUN,
            argument(
                "--at", metavar="WHEN", required=True, help='where the fork leaves RUN: "500 steps", "2 epochs", "5 %%"'
            ),
            argument("--no-train", action="store_true", help="create the fork, but do not train it"),
        ),
    ),
    Verb(
        "diff",
        "how two runs differ, and the first step at which they do",
        "etude diff runs/translation runs/translation-fork-500",
        "etude.app.cli.diff:run",
        "Compares config, data, code and environment, then the rows and the checkpoints that both runs\n"
        "have, except what depends on the clock. The exit code is 0 whether or not they differ.",
        (
            path("first", metavar="A", help="a run folder"),
            path("second", metavar="B", help="another"),
            argument("--json", action="store_true", help="one JSON object"),
        ),
        overrides=False,
    ),
    Verb(
        "average",
        "the mean of the weights of several checkpoints of a run",
        "etude average runs/translation --last 5",
        "etude.app.cli.average:run",
        "Writes a folder that test, validate, predict and export take as --checkpoint DIR. If a run keeps a moving\n"
        "average, the mean is of the averaged weights. train.keep_last and train.keep_best say how many checkpoints a\n"
        "run keeps. Statistics of batch normalisation are averaged with the weights, unless they are computed anew.",
        (
            RUN,
            argument("--last", metavar="N", type=int, help="the newest N checkpoints"),
            argument("--best", metavar="N", type=int, help="the best N, by the metric that the run monitors"),
            argument("--steps", metavar="FROM:TO", help='those of these steps, both included; "1000:" has no end'),
            argument(
                "--checkpoints",
                metavar="WHICH",
                nargs="+",
                help="steps, best, last, or folders of checkpoints or runs, which may be others than RUN",
            ),
            argument(
                "--recompute-statistics",
                metavar="BATCHES",
                nargs="?",
                type=int,
                const=0,
                help="statistics of batch normalisation over so many batches of training data (0, or none: an epoch)",
            ),
            path("--output", metavar="DIR", help="the folder to write (default: one in the run's averages/)"),
            ALLOW_CODE,
        ),
        overrides=False,
    ),
    Verb(
        "runs",
        "list runs: state, steps, best metric, age; filtered, sorted, grouped over seeds",
        'etude runs runs/ --where "optimizer.learning_rate < 1e-3 and val/loss < 2" --sort best',
        "etude.app.cli.runs:run",
        "A run is running, finished, interrupted (it saved, and resumes when trained again), forked (made by\n"
        "etude fork --no-train, and not trained since), failed (it ended\n"
        "without a final save; it resumes as well) or unreadable (its config is damaged, or a link leads out of it).\n"
        "Runs in folders inside are listed too, as sweeps leave them.\n\n"
        "KEY is a key of the config, a metric (val/loss: that of the best weights), or one of name, state, step,\n"
        "epoch, best, best_step, monitor, changed (seconds ago) and folder. A condition compares keys with numbers,\n"
        "texts in quotes and lists, by < <= > >= == != in, joined by and, or, not; a key with other signs stands in\n"
        "backticks. "
        "No run is chosen or sorted by a metric of the test split.",
        (
            path("folder", metavar="DIR", nargs="?", default="runs", help="folder of the runs (default: runs)"),
            argument("--where", metavar="CONDITION", action="append", default=[], help="only runs that meet it"),
            argument("--columns", metavar="KEY,KEY", help="what is shown of each run"),
            argument("--sort", metavar="KEY", help="by what, the smallest first (default: changed)"),
            argument("--reverse", action="store_true", help="the other way round"),
            argument("--group", action="store_true", help="runs that differ in their seed alone, as one: their mean"),
            JSON,
            argument("--csv", action="store_true", help="comma-separated values"),
        ),
        overrides=False,
    ),
    Verb(
        "compare",
        "configs and metrics of runs side by side, and how sure it is which is better",
        "etude compare runs/small runs/large",
        "etude.app.cli.compare:run",
        "Compares each run with the first: keys that differ, metrics of the best weights, and a sentence that says\n"
        "how sure the difference is. If both saved the outputs of the split (train.save_outputs), it comes from a\n"
        "paired bootstrap over the samples, for BLEU and chrF that of sacreBLEU. A may also be a folder of runs that\n"
        "differ in their seed alone; with --group, a run stands for all such runs beside it. The interval over seeds\n"
        "is Welch's. etude diff finds the first step at which two runs part.",
        (
            path("runs", metavar="A", nargs="+", help="two or more run folders, or folders of runs"),
            argument("--group", action="store_true", help="take all seeds of each run together"),
            argument("--split", choices=SPLITS, default="val", help="whose saved outputs: val (default), test, train"),
            argument("--resamples", metavar="N", type=int, default=1000, help="of the bootstrap: 1,000 or more"),
            argument("--seed", metavar="N", type=int, default=1, help="of the bootstrap (sacreBLEU has its own)"),
            argument("--json", action="store_true", help="one JSON object"),
        ),
        overrides=False,
    ),
    Verb(
        "rm",
        "remove runs, failed runs, or checkpoints of runs that lost; lists them and asks first",
        "etude rm --failed runs/",
        "etude.app.cli.rm:run",
        "RUN is a run folder. --failed takes the runs in DIR that ended without a final save; --states the\n"
        "checkpoints of the finished runs in DIR that another one beats by the same metric on the same data: their\n"
        "configs, metrics and outputs stay, and etude runs goes on listing them. The best run keeps its own, and a\n"
        "run that is running is never touched. No link is followed.",
        (
            path("runs", metavar="RUN", nargs="*", help="run folders to remove whole"),
            path("--failed", metavar="DIR", help="remove the failed runs in this folder"),
            path("--states", metavar="DIR", help="remove the checkpoints of runs in this folder that lost"),
            argument("--yes", action="store_true", help="do not ask"),
        ),
        overrides=False,
    ),
    Verb(
        "report",
        "runs or a sweep as one page of HTML that needs no network",
        "etude report runs/translation",
        "etude.app.cli.report:run",
        "Curves, scheduled values, throughput, configs, metrics, samples, what was skipped: of one run, several\n"
        "compared, or a sweep, which is a folder of runs. The page is report.html in the folder that is named, or\n"
        "here if there are several. With --watch nothing is written: the page follows its runs at an address of\n"
        "this machine.",
        (
            path("runs", metavar="RUN", nargs="+", help="run folders, or folders of runs"),
            path("--output", metavar="FILE", help="the page, which ends in .html"),
            argument("--watch", action="store_true", help="serve the page on this machine, and follow the runs"),
            argument("--port", metavar="N", type=int, default=0, help="with --watch: the port (default: any free one)"),
        ),
        overrides=False,
    ),
    Verb(
        "new",
        "a folder to begin with: a commented config, a small sample of data, what to do next",
        "etude new translation first",
        "etude.app.cli.new:run",
        "TASK is translation, language_model, hf, classification or speech_recognition. DIR must be new or empty; it\n"
        "appears whole or not at all.",
        (
            argument("task", metavar="TASK", help="a task by name"),
            path("folder", metavar="DIR", help="the folder to write"),
            argument("--data", metavar="KIND", help="of classification: text (the default), tabular, audio or arrays"),
        ),
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
        "completion",
        "complete verbs, flags and keys in your shell",
        'eval "$(etude completion bash)"',
        "etude.app.cli.completion:run",
        "Prints a script for bash, zsh or fish; its first lines say where it belongs.",
        (argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish"),),
        overrides=False,
    ),
    Verb(
        "demo",
        "the first run: train, be killed, resume, test and translate, in a few minutes",
        "etude demo",
        "etude.app.demo:run",
        "Trains a translator of English numbers, dates, times and money into Spanish on a generated corpus, kills its\n"
        "own training with kill -9 halfway, resumes it, tests, and translates.",
        (
            path("--dir", metavar="DIR", default="runs", help="where the run is kept (default: runs)"),
            argument("--fresh", action="store_true", help="remove the demo's earlier run and start over"),
        ),
    ),
)

BY_NAME = {verb.name: verb for verb in VERBS}

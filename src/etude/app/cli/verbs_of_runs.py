"""The verbs that work on runs that are there: branching, comparing, listing and removing them."""

from etude.app.cli.verb import ALLOW_CODE, JSON, RUN, SPLITS, Verb, argument, path

OF_RUNS: tuple[Verb, ...] = (
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
        "ensemble",
        "the averaged probabilities of several runs, or of a sweep: what they predict together",
        "etude ensemble runs/loans --best 5 --output together.parquet",
        "etude.app.cli.ensemble:run",
        "Takes the outputs that runs have saved of a split (train.save_outputs), joins them by sample, and averages\n"
        "their probabilities, or the numbers that they predict. Prints what each run and all together are worth.\n"
        "A folder of runs, such as a sweep, stands for all runs in it; --best N takes the best of them by the metric\n"
        "that they monitor. --process is given the columns (sample, target, prediction, scores, loss) as lists, and\n"
        "returns such columns: these are measured and written. With one run, that is post-processing alone.",
        (
            path("runs", metavar="RUN", nargs="+", help="run folders, or folders of runs"),
            argument("--split", choices=SPLITS, default="val", help="whose saved outputs: val (default), test, train"),
            argument("--best", metavar="N", type=int, help="only the best N runs, by the metric of val they monitor"),
            argument("--softmax", action="store_true", help="scores are logits: make probabilities of them"),
            argument(
                "--process", metavar="FUNCTION", help="package.module:function or file.py:function of the columns"
            ),
            path("--output", metavar="FILE", help="write the rows to FILE, which ends in .parquet or .jsonl"),
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
)

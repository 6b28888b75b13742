"""Verbs around a run: a folder to begin with, values for it, and a page that tells of it."""

from etude.app.cli.verb import CONFIG, Verb, argument, path

FIND = Verb(
    "find",
    "a learning rate by a range test, or a batch size by memory and the noise of gradients",
    "etude find learning_rate recipes/translation.toml --picture range.svg",
    "etude.app.cli.find:run",
    "learning_rate: the rate grows from step to step until the loss diverges; a tenth of the rate at the lowest\n"
    "loss is suggested as a peak. batch_size: the size is doubled until memory, time or data end it; then the\n"
    "critical batch size is measured, with its interval. Leaves nothing behind.",
    (
        argument("what", metavar="WHAT", choices=("learning_rate", "batch_size"), help="learning_rate or batch_size"),
        CONFIG,
        argument("--from", dest="begin", metavar="X", type=float, default=1e-7, help="first rate (default: 1e-7)"),
        argument("--to", dest="end", metavar="X", type=float, default=10.0, help="last rate (default: 10)"),
        argument("--steps", metavar="N", type=int, default=100, help="steps of the range test (default: 100)"),
        path("--picture", metavar="FILE", help="draw the range test into a file that ends in .svg"),
        argument("--batches", metavar="N", type=int, default=64, help="batches measured for the noise (default: 64)"),
        argument("--after", metavar="N", type=int, default=50, help="steps trained before that (default: 50)"),
        argument("--json", action="store_true", help="print one JSON object"),
    ),
)

REPORT = Verb(
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
)

NEW = Verb(
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
)

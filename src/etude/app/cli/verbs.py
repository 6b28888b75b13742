"""The verbs of the shell: one table, read by the help, the parser and the dispatcher; nothing heavy is imported."""

from etude.app.cli.verb import (
    ALLOW_CODE,
    BATCH_SIZE,
    CHECKPOINT,
    CONFIG,
    DEVICE,
    EVALUATE,
    FORCE,
    FROM,
    JSON,
    ONLY,
    RUN,
    SECOND,
    SHELLS,
    SPLITS,
    WITH,
    Verb,
    argument,
    path,
)
from etude.app.cli.verbs_around import FIND, NEW, REPORT
from etude.app.cli.verbs_of_runs import OF_RUNS
from etude.tasks.table import predict_flags

LATER = ("replay",)
"""Verbs of the design that this version does not have."""


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
        "If CONFIG has stages, their graph is printed and drawn, and which of them are done; --stage NAME plans one.\n"
        "\n"
        "With --world N it shows what each of N ranks holds in memory, what it sends in a step and, given --bandwidth\n"
        "and --speed, how long that takes; no weights are made.",
        (
            CONFIG,
            argument("--world", metavar="N[,N...]", help="plan memory, communication and time of N ranks"),
            argument("--bandwidth", metavar="BYTES", type=float, help="bytes a second that a rank sends, as 25e9"),
            argument(
                "--speed",
                metavar="TOKENS",
                help="tokens a second of one rank, or a run folder to take them from (default: this run's)",
            ),
            argument("--steps", metavar="N", type=int, help="plan no more than the first N steps"),
            argument("--stage", metavar="NAME", help="of a config with stages, the plan of one"),
            path("--output", metavar="FILE", help="draw every value into a file that ends in .svg"),
            path("--csv", metavar="FILE", help="write the values of the steps as a table"),
            argument("--json", action="store_true", help="print the whole plan as one JSON object"),
            argument("--ascii", action="store_true", help="draw the charts without Unicode"),
        ),
    ),
    FIND,
    Verb(
        "validate",
        "metrics of a run's best weights on its validation split",
        "etude validate runs/translation",
        "etude.app.cli.evaluate:validate",
        "To use another file: --data.val FILE.",
        EVALUATE,
    ),
    Verb(
        "test",
        "metrics of a run's best weights on its test split",
        "etude test runs/translation --data.test pairs.tsv",
        "etude.app.cli.evaluate:test",
        "To use another file: --data.test FILE. The predictions are written to the run's outputs/, the metrics\n"
        "appended to its metrics.jsonl.",
        EVALUATE,
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
    *OF_RUNS,
    REPORT,
    NEW,
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

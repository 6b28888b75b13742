"""Configs with stages: `etude train`, `plan`, `check` and `show` of a pipeline."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etude.app.cli.naming import command, shell_word
from etude.app.cli.streams import say
from etude.app.interrupted import COMMAND, told
from etude.app.running import build_job
from etude.app.stages.loading import load_pipeline
from etude.app.stages.pipeline import Choice, Pipeline, Report
from etude.app.stages.shown import summary
from etude.base.errors import ConfigError
from etude.train.interrupt import Interrupted


def opened(config: str, overrides: list[str]) -> Pipeline:
    """The pipeline of a config; what should be said about how it was composed is said."""
    pipeline = load_pipeline(config, overrides, build_job)
    for note in pipeline.notes:
        say(note)
    return pipeline


def run_stages(arguments: Namespace, overrides: list[str]) -> int:
    """Run what is missing or has changed of a pipeline."""
    if arguments.second is not None or arguments.beside is not None:
        raise ConfigError("A config with stages takes no second config.")
    pipeline = opened(arguments.config, overrides)
    choice = Choice(begin=arguments.tool or "", only=arguments.only or "", force=arguments.force_from or "")
    say(f"Pipeline folder: {pipeline.folder}")
    _, reports = pipeline.run(say, choice, _telling)
    say(ending(reports))
    return 0


def refuse_stages(arguments: Namespace) -> None:
    """Refuse flags of a pipeline for a config without stages. Raises ConfigError."""
    for flag, value in (("only", arguments.only), ("force-from", arguments.force_from)):
        if value is not None:
            raise ConfigError(f"--{flag} names a stage, but {arguments.config} has none.")


def ending(reports: list[Report]) -> str:
    """What the stages have come to, and what to do next."""
    ran = [report.node.name for report in reports if report.ran]
    head = f"Done: {', '.join(ran)}." if ran else f"Nothing to do: {len(reports)} stages are done."
    trained = [report.node for report in reports if report.node.do == "train"]
    lines = [head, *summary(reports)]
    if trained:
        lines += ["Next:", f"  {command()} test {shell_word(trained[-1].folder)}"]
    return "\n".join(lines)


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Say where an interrupted stage stands, and how it goes on."""
    try:
        yield
    except Interrupted as ending:
        say(told(ending, folder))
        raise
    except KeyboardInterrupt:
        say(f"Interrupted in {folder}. {COMMAND}.")
        raise

"""`etude fork`: a new run that shares the first steps of another, bit for bit."""

from argparse import Namespace
from pathlib import Path

from etude.app.cli.naming import command, shell_word
from etude.app.cli.streams import say
from etude.app.cli.train import summary
from etude.app.cli.waiting import NOTES
from etude.app.fork.plan import plan_fork
from etude.app.fork.start import make
from etude.app.fork.way import is_underway
from etude.app.interrupted import told
from etude.app.running import build_job, train_run
from etude.app.runs.folder import CONFIG, remove_tree
from etude.app.stages.stage import run_stages
from etude.app.stages.table import stages_of
from etude.base.errors import ConfigError, DataError, RefusedError
from etude.base.says import Say
from etude.tasks.config import LoadedConfig, load_config
from etude.train.interrupt import Interrupted
from etude.train.lock import claimed


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Make the fork, bring it to its step, and train it on; the same command again goes on with it."""
    asked = plan_fork(Path(arguments.run), arguments.at, overrides)
    is_new = make(asked, say)
    folder = asked.folder
    loaded = load_config(folder / CONFIG)
    for note in NOTES if arguments.debug else ():
        say(note)
    try:
        bring(loaded, folder, is_new=is_new)
        if arguments.no_train:
            say(f"Next:\n  {command()} train {shell_word(folder / CONFIG)}")
            return 0
        result = train_run(loaded, say=say)
    except Interrupted as ending:
        say(told(ending, folder))
        raise
    say(summary(result, loaded.config))
    return 0


def bring(loaded: LoadedConfig, folder: Path, *, is_new: bool, tell: Say = say) -> None:
    """Bring the fork to its step; one that is refused leaves no folder behind."""
    try:
        with loaded.naming_places(), claimed(folder):
            earlier, training = stages_of(loaded, folder, build_job)
            training.begin(folder, run_stages(earlier, lambda _: folder, tell), tell)
    except (ConfigError, DataError, RefusedError):
        if is_new and is_underway(folder):
            remove_tree(folder)
        raise

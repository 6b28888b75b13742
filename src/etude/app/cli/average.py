"""`etude average`: the mean of the weights of several checkpoints of a run."""

from argparse import Namespace

from etude.app.average import ALL, average
from etude.app.cli.naming import command, shell_word
from etude.app.cli.streams import say


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Write the folder, and say how it is used."""
    del overrides
    statistics = ALL if arguments.recompute_statistics == 0 else arguments.recompute_statistics
    place, said = average(
        arguments.run,
        last=arguments.last,
        best=arguments.best,
        steps=arguments.steps,
        checkpoints=arguments.checkpoints or (),
        output=arguments.output,
        recompute_statistics=statistics,
        allow_code=arguments.allow_code,
        say=say,
    )
    say(f"{place}: {said}")
    say(f"Next:\n  {command()} test {shell_word(arguments.run)} --checkpoint {shell_word(place)}")
    return 0

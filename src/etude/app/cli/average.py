"""`etude average`: the mean of the weights of several checkpoints of a run."""

from argparse import Namespace

from etude.app.average import average
from etude.app.cli.naming import command, shell_word
from etude.app.cli.streams import say
from etude.base.errors import ConfigError


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Write the folder, and say how it is used."""
    del overrides
    if arguments.last is not None and arguments.checkpoints:
        raise ConfigError("--last and --checkpoints both say which checkpoints: leave one of them out.")
    place, said = average(
        arguments.run,
        last=arguments.last,
        checkpoints=arguments.checkpoints or (),
        output=arguments.output,
        allow_code=arguments.allow_code,
    )
    say(f"{place}: {said}")
    say(f"Next:\n  {command()} test {shell_word(arguments.run)} --checkpoint {shell_word(place)}")
    return 0

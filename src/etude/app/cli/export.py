"""`etude export`: a run's model as a folder that others can load."""

from argparse import Namespace

from etude.app.cli.streams import say
from etude.app.export import export


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Write the folder, whole or not at all."""
    del overrides
    said = export(
        arguments.run,
        arguments.folder,
        weights=arguments.checkpoint,
        allow_code=arguments.allow_code,
        form=arguments.format,
    )
    say(f"{arguments.folder}: {said}")
    return 0

"""`etude new`."""

import os
from argparse import Namespace

from etude.app.cli.naming import command, shell_word
from etude.app.cli.streams import put, say
from etude.app.new.project import CONFIG, new


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Write the folder, and say what comes next."""
    del overrides
    needed = new(arguments.task, arguments.folder, data=arguments.data)
    if needed:
        say(needed)
    put(f"Written: {arguments.folder}. Next:")
    put(f"  cd {shell_word(os.fspath(arguments.folder))}")
    for verb in ("check", "train"):
        put(f"  {command()} {verb} {CONFIG}")
    put("README.md there says the rest.")
    return 0

"""`python -m etude`, and the `etude` command."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the shell; return its exit code."""
    from etude.app.cli.main import main as shell

    return shell(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())

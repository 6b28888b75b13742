"""`etude report`: runs or a sweep as one page of HTML; with --watch, a page that follows them."""

import contextlib
from argparse import Namespace
from pathlib import Path

from etude.app.cli.streams import put, say
from etude.app.report.gather import folders
from etude.app.report.library import scripts
from etude.app.report.page import report
from etude.app.report.watch import Watch
from etude.base.errors import ConfigError
from etude.base.named_files import check_named, is_stream, write_named
from etude.base.paths import user_path

NAME = "report.html"


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Write the page, or serve it until Ctrl-C."""
    del overrides
    scripts()
    found = folders(arguments.runs)
    if arguments.watch:
        _watch(found, arguments.port)
        return 0
    target = _target(arguments)
    check_named(target, "output")
    write_named(target, report(found))
    put(str(target))
    return 0


def _target(arguments: Namespace) -> Path:
    """Where the page goes: the file that is named, or `report.html` in the one folder, or in the current one."""
    if arguments.output is None:
        return Path(arguments.runs[0], NAME) if len(arguments.runs) == 1 else Path(NAME)
    target = user_path(arguments.output)
    if target.suffix.lower() not in {".html", ".htm"} and not is_stream(target):
        raise ConfigError(f"--output must end in .html, but is {arguments.output}.")
    return target


def _watch(found: list[Path], port: int) -> None:
    with Watch(found, port) as server:
        say(f"The report follows {len(found)} runs at {server.address}; Ctrl-C ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()

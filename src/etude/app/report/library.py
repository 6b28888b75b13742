"""The plotting library whose JavaScript a report holds: Bokeh's, read from the files of its package."""

import hashlib
from base64 import b64encode
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from etude.base.errors import ConfigError

FILES: Final = ("bokeh.min.js", "bokeh-api.min.js")
SCRIPT: Final = Path(__file__).with_name("page.js")
STYLE: Final = Path(__file__).with_name("page.css")


def is_installed() -> bool:
    """Whether a report can be drawn."""
    return find_spec("bokeh") is not None


@cache
def scripts() -> tuple[str, ...]:
    """The scripts of a page, in their order. Raises ConfigError where Bokeh is missing, or has not these files."""
    found = find_spec("bokeh")
    if found is None or found.origin is None:
        raise ConfigError("A report is drawn by bokeh, which is not installed: run pip install 'etude[report]'.")
    folder = Path(found.origin).parent / "server" / "static" / "js"
    try:
        library = [(folder / name).read_text(encoding="utf-8") for name in FILES]
    except OSError as error:
        raise ConfigError(f"The bokeh that is installed lacks {error.filename}: install bokeh 3.4 or later.") from error
    return tuple(inert(text) for text in (*library, SCRIPT.read_text(encoding="utf-8")))


def inert(script: str) -> str:
    r"""A script that does not end its element before its end, whatever text it holds.

    >>> print(inert('say("</script>")'))
    say("<\/script>")
    """
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def digest(script: str) -> str:
    """What a policy allows exactly this script by."""
    return f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"

"""How tasks write texts and what they know of them: one line each, or an object."""

import json
import math
import re
from collections.abc import Mapping

from etude.tasks.task_type import Asked, Missing

BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Where a reader may see the end of a line."""


def on_one_line(text: str) -> str:
    r"""The text on one line: backslashes doubled, line breaks of any kind written as `\n`, `\r`, `\u2028`.

    >>> print(on_one_line("a\nb"))
    a\nb
    """
    return BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text.replace("\\", "\\\\"))


def object_line(value: Mapping[str, object]) -> str:
    """An object on a line of its own."""
    return json.dumps(value, ensure_ascii=False) + "\n"


def without(name: str, text: str, missing: Missing) -> dict[str, object]:
    """What is written of a text, under its name, that has no answer."""
    return {name: text, "prediction": None, "error": missing.error}


def score_line(text: str, log_probability: float, asked: Asked, **more: object) -> str:
    """How likely a text is: its log-probability in nats, bits a byte, and the text; or an object, with `more`."""
    bits = -log_probability / math.log(2) / max(len(text.encode("utf-8", "surrogateescape")), 1)
    if asked.json:
        return object_line({"text": text, "log_probability": log_probability, "bits_per_byte": bits, **more})
    return f"{log_probability:.6f}\t{bits:.6f}\t{asked.safe(on_one_line(text))}\n"


def unscored_line(text: str, missing: Missing, asked: Asked) -> str:
    """What stands in the place of a score that there is none of."""
    return object_line(without("text", text, missing)) if asked.json else "\n"

"""Reads the command line: the verb, its own flags, and the overrides `--section.key VALUE`."""

import re
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise, starmap
from typing import Never

from etude.app.cli.meant import instead, too_many
from etude.app.cli.verb import Verb
from etude.app.cli.verbs import BY_NAME, LATER, VERBS
from etude.base.errors import ConfigError
from etude.base.near import nearest

WHOLE_KEYS = ("callbacks",)
"""Keys of the config that stand in no section."""

OVERRIDE = re.compile(r"--(?:[^=\s]*\.[^=]*|" + "|".join(WHOLE_KEYS) + r")(?:=.*)?", re.DOTALL)


def overview() -> str:
    """The help of `etude` itself."""
    width = max(len(verb.name) for verb in VERBS)
    verbs = "\n".join(f"  {verb.name:<{width}}  {verb.summary}" for verb in VERBS)
    return (
        "Etude trains sequence models from one config; every run is deterministic, and resumes after a kill.\n\n"
        f"usage: etude VERB ...   (or python -m etude VERB ...)\n\n{verbs}\n\n"
        "  etude VERB --help  explains a verb, with an example\n"
        "  --debug            shows the traceback of an error\n"
        "  --version          prints the version\n\n"
        "To set any value of a config, add --section.key VALUE.\n\n"
        "example:\n  etude demo\n"
    )


def choose(word: str) -> Verb:
    """The verb called `word`. Raises ConfigError naming the nearest."""
    if word in BY_NAME:
        return BY_NAME[word]
    if word in LATER:
        raise ConfigError(f'"etude {word}" is planned, but not in this version; etude --help lists the verbs.')
    if word.startswith("-"):
        raise ConfigError(f"{word} is not a flag of etude itself; the verb comes first, as in etude train CONFIG.")
    raise ConfigError(f'"{word}" is not a verb of etude{_advice(word, BY_NAME, "etude")}')


def parse(verb: Verb, words: Sequence[str]) -> tuple[Namespace, list[str]]:
    """The arguments of a verb, its words as they came among them, and the overrides.

    Raises ConfigError for what it does not take.
    """
    plain, overrides = split(words)
    if overrides and not verb.overrides:
        raise ConfigError(f"etude {verb.name} takes no config values, but got {overrides[0].partition('=')[0]}.")
    arguments = parser(verb).parse_args(plain)
    arguments.words = (verb.name, *words)
    return arguments, overrides


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the words of a command line into plain ones and overrides (flags with their values).

    >>> split(["a.toml", "--train.clip_grad", "1.0", "--json", "--run.name=b"])
    (['a.toml', '--json'], ['--train.clip_grad', '1.0', '--run.name=b'])
    """
    end = words.index("--") if "--" in words else len(words)
    plain: list[str] = []
    overrides: list[str] = []
    left = deque(words[:end])
    while left:
        word = left.popleft()
        if OVERRIDE.fullmatch(word):
            overrides += [word, *_value_behind(word, left)]
        else:
            plain.append(word)
    return [*plain, *words[end:]], overrides


def _value_behind(flag: str, left: deque[str]) -> list[str]:
    """Take the value that stands behind a flag, if it holds none itself."""
    has_value = "=" not in flag and left and not left[0].startswith("--")
    return [left.popleft()] if has_value else []


class Parser(ArgumentParser):
    """An argparse parser whose errors are ours."""

    takes_keys = False
    """Whether values of a config stand beside its flags."""

    def error(self, message: str) -> Never:
        """Raise what is wrong as one sentence."""
        raise ConfigError(f"{self.prog}: {message}; {self.prog} --help shows how.")

    def parse_args(self, words: Sequence[str]) -> Namespace:  # type: ignore[override]
        """Parse all words, flags anywhere among them; what is not known is an error that names the nearest flag."""
        found, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            flags = filter(_begins_a_flag, pairwise([*unknown, ""]))
            raise ConfigError([*starmap(self._unknown, flags)] or too_many(unknown[0], self.prog))
        return found

    def _unknown(self, word: str, behind: str) -> str:
        """Refuse a flag, with the value that may stand behind it."""
        flag, _, text = word.partition("=")
        name, behind = flag.lstrip("-"), "" if behind.startswith("-") else behind
        near = nearest(name, self._flags())
        named = instead(name, text or behind) if self.takes_keys and not near else ""
        advice = f"; Etude calls this {named}." if named else _end(f"--{near}" if near else "", self.prog)
        return f"{flag} is not a flag of {self.prog}{advice}"

    def _flags(self) -> list[str]:
        """The names of its flags."""
        names = chain.from_iterable(action.option_strings for action in self._actions)
        return [name.removeprefix("--") for name in names]


def _begins_a_flag(words: tuple[str, str]) -> bool:
    return words[0].startswith("-")


def parser(verb: Verb) -> Parser:
    """The parser of one verb."""
    takes = "\n\nTo set any value of the config, add --section.key VALUE." if verb.overrides else ""
    made = Parser(
        prog=f"etude {verb.name}",
        description=f"{verb.summary[:1].upper()}{verb.summary[1:]}." + (f"\n\n{verb.about}" if verb.about else ""),
        epilog=f"example:\n  {verb.example}{takes}",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.takes_keys = verb.overrides
    for one in verb.arguments:
        one.add_to(made)
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def _advice(word: str, known: Iterable[str], command: str) -> str:
    """End a sentence with the nearest name, or with where to look."""
    return _end(nearest(word, known), command)


def _end(near: str, command: str) -> str:
    return f"; did you mean {near}?" if near else f"; {command} --help lists them."

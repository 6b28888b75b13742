"""`etude completion`: what a shell needs to complete verbs, flags, and keys of a config."""

import shlex
from argparse import Namespace
from collections.abc import Callable, Iterator

from etude.app.cli.streams import put
from etude.app.cli.verb import SHELLS, Verb
from etude.app.cli.verbs import VERBS


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print the script."""
    del overrides
    scripts: dict[str, Callable[[], Iterator[str]]] = dict(zip(SHELLS, (_bash, _zsh, _fish), strict=True))
    put("\n".join(scripts[arguments.shell]()))
    return 0


def flags_of(verb: Verb) -> list[str]:
    """The flags of a verb, and the keys of a config that it takes whatever the task is."""
    names = [name for one in verb.arguments for name in one.names if name.startswith("--")]
    return [*names, "--help", "--debug", *(_keys() if verb.overrides else ())]


def _keys() -> Iterator[str]:
    from etude.callbacks.config import LogConfig
    from etude.tasks.run_config import RunConfig
    from etude.train.config import TrainConfig

    for section, fields in (("run", RunConfig), ("train", TrainConfig), ("log", LogConfig)):
        yield from (f"--{section}.{name}" for name in fields.model_fields)


def _bash() -> Iterator[str]:
    yield '# Etude\'s words, for bash: eval "$(etude completion bash)" in ~/.bashrc'
    yield "_etude() {"
    yield '  local current="${COMP_WORDS[COMP_CWORD]}" known=""'
    yield "  COMPREPLY=()"
    yield f'  if [ "$COMP_CWORD" -eq 1 ]; then known="{" ".join(verb.name for verb in VERBS)}"'
    yield '  elif [ "${current#-}" != "$current" ]; then case "${COMP_WORDS[1]}" in'
    yield from (f'    {verb.name}) known="{" ".join(flags_of(verb))}" ;;' for verb in VERBS)
    yield "  esac; fi"
    yield '  [ -z "$known" ] || COMPREPLY=($(compgen -W "$known" -- "$current"))'
    yield "}"
    yield "complete -o default -F _etude etude"


def _zsh() -> Iterator[str]:
    yield "#compdef etude"
    yield '# Etude\'s words, for zsh: eval "$(etude completion zsh)" in ~/.zshrc, after compinit'
    yield "_etude() {"
    yield "  local -a known"
    yield "  if (( CURRENT == 2 )); then"
    yield "    known=(" + " ".join(shlex.quote(f"{verb.name}:{verb.summary}") for verb in VERBS) + ")"
    yield "    _describe verb known"
    yield '  elif [[ "$words[CURRENT]" == -* ]]; then'
    yield '    case "$words[2]" in'
    yield from (f"      {verb.name}) known=({' '.join(flags_of(verb))}) ;;" for verb in VERBS)
    yield "    esac"
    yield "    compadd -- $known"
    yield "  else _files; fi"
    yield "}"
    yield 'if [ "$funcstack[1]" = "_etude" ]; then _etude "$@"; else compdef _etude etude; fi'


def _fish() -> Iterator[str]:
    yield "# Etude's words, for fish: etude completion fish > ~/.config/fish/completions/etude.fish"
    for verb in VERBS:
        summary = shlex.quote(verb.summary)
        yield f"complete -c etude -n __fish_use_subcommand -f -a {verb.name} -d {summary}"
        seen = shlex.quote(f"__fish_seen_subcommand_from {verb.name}")
        yield from (f"complete -c etude -n {seen} -l {flag.removeprefix('--')}" for flag in flags_of(verb))

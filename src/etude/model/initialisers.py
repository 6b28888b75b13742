"""How parameters begin: each from (seed, stage, its name) alone, so that adding a layer never changes the others."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from pydantic import Field
from torch import Tensor, nn

from etude.base.config.imports import resolve_import
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.randomness import seed_of

Initialiser = Callable[[Tensor], object]
"""Fills a tensor in place, drawing from torch's global generator."""


class InitConfig(Section):
    """`[init]`: how parameters begin."""

    weights: dict[str, str | float] = Field(default_factory=dict)
    """Initialisers by name pattern, such as "encoder.*.weight" = "normal(0.02)"; of several that match, the last."""


def _kaiming(fill: Callable[..., Tensor]) -> Callable[..., object]:
    return lambda tensor: fill(tensor, nonlinearity="relu")


NAMED: Mapping[str, tuple[Callable[..., object], tuple[float, ...]]] = {
    "xavier_uniform": (nn.init.xavier_uniform_, (1.0,)),
    "xavier_normal": (nn.init.xavier_normal_, (1.0,)),
    "kaiming_uniform": (_kaiming(nn.init.kaiming_uniform_), ()),
    "kaiming_normal": (_kaiming(nn.init.kaiming_normal_), ()),
    "normal": (lambda tensor, std: nn.init.normal_(tensor, std=std), (0.02,)),
    "uniform": (lambda tensor, bound: nn.init.uniform_(tensor, -bound, bound), (0.1,)),
    "trunc_normal": (
        lambda tensor, std: nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std),
        (0.02,),
    ),
    "orthogonal": (nn.init.orthogonal_, (1.0,)),
    "zeros": (nn.init.zeros_, ()),
    "ones": (nn.init.ones_, ()),
}
"""Initialisers by name, with their argument's default: the gain, the deviation (`trunc_normal` cuts at two of them)
or the bound."""

_CALL = re.compile(r"(\w+)(?:\(([^()]*)\))?")


def initialiser(spec: str | float, key: str = "init.weights") -> Initialiser:
    """The initialiser that `spec` names: "normal", "normal(0.02)", a number, or "package.module:function".

    Raises ConfigError naming `key`.
    """
    if isinstance(spec, int | float):
        value = float(spec)
        return lambda tensor: nn.init.constant_(tensor, value)
    if ":" in spec:
        return _imported(spec, key)
    match = _CALL.fullmatch(spec.strip())
    if match is None or match[1] not in NAMED:
        near = get_close_matches(match[1] if match else spec, NAMED, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(NAMED)}."
        raise ConfigError(f"{key} names no initialiser: {spec!r}; {hint}")
    fill, arguments = NAMED[match[1]]
    if match[2] is not None:
        arguments = _arguments(match[2], len(arguments), spec, key)
    return lambda tensor: fill(tensor, *arguments)


def _arguments(text: str, most: int, spec: str, key: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        values = (math.nan,)
    if len(values) != most or not all(math.isfinite(value) for value in values):
        need = "one number" if most else "no argument"
        raise ConfigError(f"{key}: {spec!r} must have {need} in its brackets.")
    return values


def _imported(spec: str, key: str) -> Initialiser:
    found = resolve_import(spec, key)
    if not callable(found):
        raise ConfigError(f"{key} names {spec!r}, which is not a function of a tensor.")
    return found  # type: ignore[no-any-return]


def initialise(module: nn.Module, seed: int, rules: Mapping[str, str | float] | None = None, stage: str = "") -> None:
    """Draw the parameters of `module` anew, in place, without touching torch's global generator.

    Every part that has `reset_parameters` is asked, inner ones first, each after seeding by its own name; then
    `rules` (patterns of parameter names, as in `fnmatch`) are laid over it, each parameter seeded by its name.
    Parameters of parts without `reset_parameters` keep what their constructor drew. Do it before the module
    moves to an accelerator. Raises ConfigError where a pattern matches no parameter.
    """
    chosen = _matched(module, rules or {})
    with _own_generator(), torch.no_grad():
        for name, part in reversed(list(module.named_modules())):
            reset = getattr(part, "reset_parameters", None)
            if reset is not None:
                torch.manual_seed(seed_of(seed, stage, "init", name))
                reset()
        for name, parameter in module.named_parameters():
            if name in chosen:
                torch.manual_seed(seed_of(seed, stage, "init", name))
                _fill(chosen[name], parameter, name)


@contextmanager
def _own_generator() -> Iterator[None]:
    before = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.random.set_rng_state(before)


def _matched(module: nn.Module, rules: Mapping[str, str | float]) -> dict[str, Initialiser]:
    names = [name for name, _ in module.named_parameters()]
    chosen: dict[str, Initialiser] = {}
    problems = []
    for pattern, spec in rules.items():
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            near = get_close_matches(pattern, names, n=3, cutoff=0.4)
            hint = f"near names are {', '.join(near)}" if near else f"the first are {', '.join(names[:3])}"
            problems.append(f"init.weights: {pattern!r} matches no parameter of the model; {hint}.")
        try:
            fill = initialiser(spec, f'init.weights."{pattern}"')
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        chosen.update(dict.fromkeys(matched, fill))
    if problems:
        raise ConfigError(problems)
    return chosen


def _fill(fill: Initialiser, parameter: Tensor, name: str) -> None:
    try:
        fill(parameter)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"init.weights cannot initialise {name} of shape {tuple(parameter.shape)}: {error}. "
            "Give a narrower pattern, or an initialiser that works on vectors (normal, uniform, zeros, ones)."
        ) from error

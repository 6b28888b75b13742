"""How parameters begin: each from (seed, stage, its name) alone, so that adding a layer never changes the others."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from etude.base.config.imports import resolve_import
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.near import near_names, nearest
from etude.base.randomness import seed_of
from etude.model.init_source import InitSources
from etude.model.layers.blocks import AddsToStream

Scheme = Literal["default", "depth_scaled", "mup"]
Initialiser = Callable[[Tensor], object]
"""Fills a tensor in place, drawing from torch's global generator."""


class InitConfig(Section):
    """`[init]`: initial values of parameters."""

    scheme: Scheme = "default"
    """Each model's own; depth_scaled: what adds to the residual stream starts smaller in deeper models, as GPT-2's
    does (a decoder's own is that already); mup: a decoder whose best learning rate stays as its width grows (Yang et
    al. 2022)."""
    base_width: int = Field(128, ge=1)
    """Of mup: the `model.d_model` at which it is the same as default."""
    base_head_width: int = Field(32, ge=1)
    """Of mup: the width of a head at which attention is scaled as without it."""
    weights: dict[str, str | float] = Field(default_factory=dict)
    """Initialisers by name pattern, such as "encoder.*.weight" = "normal(0.02)"; of several that match, the last."""
    from_: InitSources = Field(default_factory=list, alias="from")
    """Weights of other models, loaded before the first step: a table `[[init.from]]` for each, of which later ones win,
    or the path of one checkpoint."""


@dataclass(frozen=True)
class WidthScaling:
    """How a network's numbers follow its width: the maximal update parametrisation, or nothing.

    Yang et al. 2022 ("Tensor Programs V"), table 8, for Adam: hidden matrices begin with a variance of 1 / width and
    learn at a rate of 1 / width; embeddings keep both; logits are divided by width, and attention scores by the
    width of a head instead of its root. All are relative to a base width, where they are what they were.
    """

    width: float = 1.0
    """The width of the model relative to the base."""
    head: float = 1.0
    """The width of a head relative to the base's; 1 as well where scores are scaled as usual."""

    @classmethod
    def of(cls, config: InitConfig | None, d_model: int, head_width: int) -> Self:
        """The scaling that `[init]` asks of a model of this shape."""
        if config is None or config.scheme != "mup":
            return cls()
        return cls(d_model / config.base_width, head_width / config.base_head_width)

    @property
    def deviation(self) -> float:
        """Factor of the deviation that hidden matrices begin with."""
        return 1.0 / math.sqrt(self.width)

    @property
    def rate(self) -> float:
        """Factor of the learning rate of hidden matrices."""
        return 1.0 / self.width

    @property
    def logits(self) -> float:
        """Factor of the logits."""
        return 1.0 / self.width

    @property
    def scores(self) -> float:
        """Factor of attention scores beside the usual 1 / sqrt(width of a head)."""
        return 1.0 / math.sqrt(self.head)


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
    call = _CALL.fullmatch(spec.strip())
    if call is None or call[1] not in NAMED:
        raise ConfigError(f"{key} is not an initialiser: {spec!r}; {_known(call[1] if call else spec)}")
    fill, arguments = NAMED[call[1]]
    if call[2] is not None:
        arguments = _arguments(call[2], len(arguments), spec, key)
    return lambda tensor: fill(tensor, *arguments)


def _known(name: str) -> str:
    near = nearest(name, NAMED)
    return f"did you mean {near!r}?" if near else f"known are {', '.join(NAMED)}."


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


def initialise(
    module: nn.Module,
    seed: int,
    rules: Mapping[str, str | float] | None = None,
    stage: str = "",
    *,
    scheme: Scheme = "default",
) -> None:
    """Draw the parameters of `module` anew, in place, without touching torch's global generator.

    Every part that has `reset_parameters` is asked, inner ones first, each after seeding by its own name; then
    `rules` (patterns of parameter names, as in `fnmatch`) are laid over it, each parameter seeded by its name.
    Parameters of parts without `reset_parameters` keep what their constructor drew. Do it before the module
    moves to an accelerator. `scheme` mup is up to the module, which must have been made for it. Raises ConfigError
    where a pattern matches no parameter, or the module does not know the scheme.
    """
    _check_scheme(module, scheme)
    chosen = _matched(module, rules or {})
    with _own_generator(), torch.no_grad():
        for name, part in reversed(list(module.named_modules())):
            reset = getattr(part, "reset_parameters", None)
            if reset is not None:
                seed_everything(seed_of(seed, stage, "init", name))
                reset()
        if scheme == "depth_scaled":
            _scale_by_depth(module)
        for name, parameter in module.named_parameters():
            if name in chosen:
                seed_everything(seed_of(seed, stage, "init", name))
                _fill(chosen[name], parameter, name)


def _check_scheme(module: nn.Module, scheme: Scheme) -> None:
    if scheme == "mup" and not hasattr(module, "rate_multipliers"):
        raise ConfigError(
            f'init.scheme = "mup" works only for decoders, but the model is a {type(module).__name__}; '
            'take "default", or model.type = "decoder".'
        )
    if scheme == "depth_scaled" and not (hasattr(module, "rate_multipliers") or any(_stacks(module))):
        raise ConfigError(
            f'init.scheme = "depth_scaled" is for layers that add to a residual stream, which {type(module).__name__} '
            'does not have; take "default".'
        )


def _stacks(module: nn.Module) -> Iterator[list[Tensor]]:
    """Of each stack of layers, the matrices whose products are added to its residual stream."""
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            added = [weight for layer in part if isinstance(layer, AddsToStream) for weight in layer.residual_weights()]
            if added:
                yield added


def _scale_by_depth(module: nn.Module) -> None:
    """Let the sum of all that a stack adds begin as large as one addition (Radford et al. 2019, section 2.3)."""
    for added in _stacks(module):
        for weight in added:
            weight.mul_(len(added) ** -0.5)


def seed_everything(seed: int) -> None:
    """Seed torch's global generators; where there is no accelerator, the CPU's alone.

    `torch.manual_seed` notes a stack for every kind of accelerator that might still come: a millisecond each time.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


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
            problems.append(
                f"init.weights: {pattern!r} matches no parameter of the model; {near_names(pattern, names)}."
            )
        try:
            fill = initialiser(spec, f'init.weights."{pattern}"')
        except ConfigError as error:
            problems.extend(error.problems)
        else:
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

"""From a config, or from a class or function of the user's own, to the optimizer of a run."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import filterfalse
from typing import Any

import torch
from torch import nn

from etude.base.config.imports import check_signature
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.train.optim.config import (
    AdafactorConfig,
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
)
from etude.train.optim.freezing import constant_patterns, freeze
from etude.train.optim.fused import QuickAdam, QuickAdamW
from etude.train.optim.grouping import Group, grouped, names_of, trainable, undecayed
from etude.train.optim.muon import Muon
from etude.train.optim.rates import CALLED, DECAY, RATE, Rates, Spec, beginning, is_schedule
from etude.train.optim.sgd import SGD
from etude.train.optim.slot import Slot

ONLY = "0"
"""The name of a run's only optimizer."""
Maker = Callable[..., torch.optim.Optimizer]
Table = dict[str, object]
"""A parameter group, as torch takes it: `params` and options."""
FUSED_ON = {"cpu", "cuda", "mps"}
"""Devices with fused kernels."""


def model_width(module: nn.Module) -> int | None:
    """The `d_model` of a task's model, which some schedules scale by; None for one that does not tell."""
    match module:
        case object(model=object(config=object(d_model=int(width)))) | object(config=object(d_model=int(width))):
            return width
    return None


# -- from [optimizer] ------------------------------------------------------------------------------------------------


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, horizon: Horizon, notice: Callable[[str], None]
) -> Slot:
    """The optimizer of `[optimizer]` over all trainable parameters, grouped by decay and by pattern."""
    frozen = {group.match: group.freeze for group in config.groups}
    freeze(module, constant_patterns(frozen), "optimizer.groups")
    groups = grouped(module, config)
    if not groups:
        raise ConfigError("train.freeze and optimizer.groups leave no parameter to train.")
    rates = Rates(horizon, model_width(module))
    factors = _follow(rates, config, groups)
    tables = [_table(config, group, _specs(config, group)) for group in groups]
    return Slot(
        ONLY,
        _make(config, tables, fused=_can_fuse(groups)),
        rates=rates.all,
        names=names_of(module),
        main=_main(groups),
        beside=_beside(groups),
        factors=factors,
        freezes=frozen,
        notice=notice,
    )


def _follow(rates: Rates, config: OptimizerConfig, groups: Sequence[Group]) -> dict[int, float]:
    """Let the groups follow their schedules; the factors of the learning rates that a schedule drives."""
    factors = {}
    for index, group in enumerate(groups):
        specs = _specs(config, group)
        if rates.follow(index, RATE, specs[RATE]) and group.factor != 1.0:
            factors[index] = group.factor
        rates.follow(index, DECAY, specs[DECAY])
    return factors


def _specs(config: OptimizerConfig, group: Group) -> dict[str, Spec]:
    """Learning rate and weight decay of a group: its pattern's own, or the optimizer's."""
    own: Mapping[str, Any] = group.own
    decay = own.get("weight_decay", config.weight_decay) if group.decays else 0.0
    return {RATE: own.get("learning_rate", config.learning_rate), DECAY: decay}


def _table(config: OptimizerConfig, group: Group, specs: Mapping[str, Spec]) -> Table:
    """A group with its options, as torch takes it."""
    table: Table = {"params": group.parameters, **_other_options(group)}
    table |= {key: beginning(key, spec) for key, spec in specs.items()}
    if not is_schedule(specs[RATE]):
        table[RATE] = beginning(RATE, specs[RATE]) * group.factor
    if config.type == "muon":
        table["muon"] = group.muon
    return table


def _other_options(group: Group) -> Table:
    """The options that a group has of its own besides what a schedule may drive."""
    return {name: value for name, value in group.own.items() if name not in CALLED.values()}


def _main(groups: Sequence[Group]) -> int:
    """The group whose rate is told as the optimizer's: the first without a pattern, of factor 1 if there is one."""
    return min(range(len(groups)), key=lambda index: _rank_as_main(groups[index]))


def _rank_as_main(group: Group) -> int:
    """How far a group stands behind others as the one whose rate is told."""
    return 2 if group.config is not None else int(group.factor != 1.0)


def _beside(groups: Sequence[Group]) -> dict[str, dict[str, int]]:
    """By pattern and key: the group that tells of a value that the pattern has of its own."""
    beside: dict[str, dict[str, int]] = {}
    for index, group in enumerate(groups):
        for key in _told_by(group):
            beside.setdefault(group.pattern, {}).setdefault(key, index)
    return beside


def _told_by(group: Group) -> list[str]:
    """What a group tells of; of a pattern's two groups the one that decays tells of the decay."""
    keys = (RATE, DECAY) if group.decays else (RATE,)
    return [key for key in keys if CALLED[key] in group.own]


def _make(config: OptimizerConfig, tables: list[Table], *, fused: bool) -> torch.optim.Optimizer:
    try:
        return _made(config, tables, fused=fused)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer: torch refuses its arguments: {error}.") from error


_ADAMS: dict[tuple[str, bool], Maker] = {
    ("adam", False): torch.optim.Adam,
    ("adam", True): QuickAdam,
    ("adamw", False): torch.optim.AdamW,
    ("adamw", True): QuickAdamW,
}
"""By the config's type, and whether it is fused."""


def _made(config: OptimizerConfig, tables: list[Table], *, fused: bool) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"fused": True} if fused else {}
    match config:
        case MuonConfig():
            return Muon(tables, momentum=config.momentum, betas=config.betas, eps=config.eps)
        case SGDConfig():
            options |= {"momentum": config.momentum, "dampening": config.dampening, "nesterov": config.nesterov}
            return SGD(tables, lr=1e-3, **options)
        case AdafactorConfig():
            return torch.optim.Adafactor(tables, lr=1e-2, beta2_decay=config.beta2_decay, eps=config.eps, d=config.d)
    kind = _ADAMS[config.type, fused]
    return kind(tables, lr=1e-3, betas=config.betas, eps=config.eps, amsgrad=config.amsgrad, **options)


def _can_fuse(groups: Sequence[Group]) -> bool:
    return all(all(map(_has_fused_kernel, group.parameters)) for group in groups)


def _has_fused_kernel(parameter: nn.Parameter) -> bool:
    return parameter.is_floating_point() and parameter.device.type in FUSED_ON


# -- of the user's own -----------------------------------------------------------------------------------------------


def build_imported(
    module: nn.Module,
    make: Maker,
    arguments: Mapping[str, object],
    notice: Callable[[str], None],
    horizon: Horizon,
) -> Slot:
    """An optimizer of the user's own, by import path or as a class or function: called with the trainable parameters
    and its arguments, which are checked against its signature.

    Of a class of torch's kind the weight decay, if any, skips biases, norms and embeddings unless `decay_all`.
    """
    options = dict(arguments)
    decay_all = bool(options.pop("decay_all", False))
    specs = _read_specs(options)
    options |= {key: _own_beginning(key, spec) for key, spec in specs.items()}
    later = _set_later(make, options)
    check_signature(make, options, "optimizer", positional=1)
    tables = [] if decay_all else _tables(module, make, options)
    optimizer = _called(make, tables or list(trainable(module)), options)
    for group in optimizer.param_groups:
        group.update(later)
    indices = range(len(optimizer.param_groups))
    rates = _rates_everywhere(Rates(horizon), indices, specs, spared=_with_own_decay(tables))
    return Slot(ONLY, optimizer, rates=rates.all, names=names_of(module), notice=notice)


def _own_beginning(key: str, spec: Spec) -> float:
    """What an optimizer of one's own is made with: its schedule sets every rate, so it begins at 0."""
    return 0.0 if is_schedule(spec) else beginning(key, spec)


def _rates_everywhere(rates: Rates, indices: range, specs: Mapping[str, Spec], *, spared: set[int]) -> Rates:
    """Let all groups follow the schedules, that of weight decay without the spared ones."""
    none: set[int] = set()
    for key, spec in specs.items():
        rates.follow_everywhere(indices, key, spec, but=spared if key == DECAY else none)
    return rates


def _with_own_decay(tables: Sequence[Table]) -> set[int]:
    """The groups that have a weight decay of their own."""
    return {index for index, table in enumerate(tables) if DECAY in table}


def _read_specs(options: dict[str, object]) -> dict[str, Spec]:
    """Learning rate and weight decay, taken out of the options and checked as those of `[optimizer]` are."""
    given = {name: options.pop(name) for name in CALLED.values() if name in options}
    read: dict[str, Any] = given | _checked(given)
    return {key: read[name] for key, name in CALLED.items() if name in read}


def _checked(given: Mapping[str, object]) -> dict[str, float]:
    """What is a number, as `[optimizer]` reads it."""
    constant = {name: value for name, value in given.items() if not is_schedule(value)}
    return AdamWConfig.model_validate(constant).model_dump(include=set(constant))


def _set_later(make: Maker, options: dict[str, object]) -> Table:
    """The rate that a function of the parameters alone gets afterwards, taken out of the options."""
    if RATE not in options or isinstance(make, type) or _takes(make, RATE):
        return {}
    return {RATE: options.pop(RATE)}


def _tables(module: nn.Module, make: Maker, options: Table) -> list[Table]:
    """The groups of a class of optimizers that decays weights; none, where the parameters are passed on their own."""
    return _by_decay(module) if isinstance(make, type) and _decays(make, options) else []


def _by_decay(module: nn.Module) -> list[Table]:
    """The trainable parameters in two groups, of which the second does not decay."""
    parameters, is_spared = trainable(module), undecayed(module).__contains__
    groups: list[Table] = [
        {"params": list(filterfalse(is_spared, parameters))},
        {"params": list(filter(is_spared, parameters)), DECAY: 0.0},
    ]
    return [group for group in groups if group["params"]]


def _called(make: Maker, parameters: Sequence[nn.Parameter | Table], options: Table) -> torch.optim.Optimizer:
    """The optimizer that the user's class or function makes."""
    try:
        optimizer = make(parameters, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {_name_of(make)} refuses its arguments: {error}.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(f"optimizer must give a torch.optim.Optimizer, but gives a {type(optimizer).__name__}.")
    return optimizer


def _name_of(make: Maker) -> str:
    return make.__name__ if inspect.isroutine(make) or inspect.isclass(make) else "it"


def _takes(make: Maker, keyword: str) -> bool:
    parameters = inspect.signature(make).parameters.values()
    return any(one.name == keyword or one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def _decays(make: Maker, options: Table) -> bool:
    """Whether a class of optimizers is asked for weight decay, or has it by default."""
    if DECAY in options:
        return True
    parameter = inspect.signature(make).parameters.get(DECAY)
    return parameter is not None and bool(parameter.default)

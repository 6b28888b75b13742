"""From a config, or from a class or function of the user's own, to the optimizer of a run."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from etude.base.config.imports import check_signature
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.train.optim.config import (
    AdafactorConfig,
    AdamConfig,
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
from etude.train.optim.slot import Slot

ONLY = "0"
"""The name of a run's only optimizer."""
Maker = Callable[..., torch.optim.Optimizer]
Table = dict[str, object]
"""A parameter group, as torch takes it: `params` and options."""


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
    tables, factors = [], {}
    for index, group in enumerate(groups):
        specs = _specs(config, group)
        tables.append(_table(config, group, specs))
        if rates.follow(index, RATE, specs[RATE]):
            factors[index] = group.factor
        rates.follow(index, DECAY, specs[DECAY])
    return Slot(
        ONLY,
        _make(config, tables, fused=_can_fuse(groups)),
        rates=rates.all,
        names=names_of(module),
        main=_main(groups),
        beside=_beside(groups),
        factors={index: factor for index, factor in factors.items() if factor != 1.0},
        freezes=frozen,
        notice=notice,
    )


def _specs(config: OptimizerConfig, group: Group) -> dict[str, Spec]:
    """Learning rate and weight decay of a group: its pattern's own, or the optimizer's."""
    own: Mapping[str, Any] = group.own
    decay = own.get("weight_decay", config.weight_decay) if group.decays else 0.0
    return {RATE: own.get("learning_rate", config.learning_rate), DECAY: decay}


def _table(config: OptimizerConfig, group: Group, specs: Mapping[str, Spec]) -> Table:
    """A group with its options, as torch takes it."""
    own = {name: value for name, value in group.own.items() if name not in CALLED.values()}
    table: Table = {"params": group.parameters, **own}
    for key, spec in specs.items():
        table[key] = beginning(key, spec)
    if not is_schedule(specs[RATE]):
        table[RATE] = beginning(RATE, specs[RATE]) * group.factor
    if config.type == "muon":
        table["muon"] = group.muon
    return table


def _main(groups: Sequence[Group]) -> int:
    """The group whose rate is told as the optimizer's: the first without a pattern, of factor 1 if there is one."""
    plain = [index for index, group in enumerate(groups) if group.config is None]
    return next((index for index in plain if groups[index].factor == 1.0), next(iter(plain), 0))


def _beside(groups: Sequence[Group]) -> dict[str, dict[str, int]]:
    """By pattern and key: the group that tells of a value that the pattern has of its own."""
    beside: dict[str, dict[str, int]] = {}
    for index, group in enumerate(groups):
        for key, name in CALLED.items():
            # Of a pattern's two groups the one that decays tells of the decay.
            if group.config is not None and name in group.own and (key == RATE or group.decays):
                beside.setdefault(group.config.match, {}).setdefault(key, index)
    return beside


def _make(config: OptimizerConfig, tables: list[Table], *, fused: bool) -> torch.optim.Optimizer:
    try:
        return _made(config, tables, fused=fused)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer: torch refuses its arguments: {error}.") from error


def _made(config: OptimizerConfig, tables: list[Table], *, fused: bool) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"fused": True} if fused else {}
    match config:
        case MuonConfig():
            return Muon(tables, momentum=config.momentum, betas=config.betas, eps=config.eps)
        case SGDConfig():
            options |= {"momentum": config.momentum, "dampening": config.dampening, "nesterov": config.nesterov}
            return torch.optim.SGD(tables, lr=1e-3, **options)
        case AdafactorConfig():
            return torch.optim.Adafactor(tables, lr=1e-2, beta2_decay=config.beta2_decay, eps=config.eps, d=config.d)
        case AdamConfig():
            kind: Maker = QuickAdam if fused else torch.optim.Adam
        case AdamWConfig():
            kind = QuickAdamW if fused else torch.optim.AdamW
    return kind(tables, lr=1e-3, betas=config.betas, eps=config.eps, amsgrad=config.amsgrad, **options)


def _can_fuse(groups: Sequence[Group]) -> bool:
    parameters = [p for group in groups for p in group.parameters]
    return all(p.is_floating_point() and p.device.type in {"cpu", "cuda", "mps"} for p in parameters)


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
    # A schedule of one's own optimizer sets every rate, so it begins at 0.
    options |= {key: 0.0 if is_schedule(spec) else beginning(key, spec) for key, spec in specs.items()}
    later = _set_later(make, options)
    check_signature(make, options, "optimizer", positional=1)
    spares = not decay_all and isinstance(make, type) and _decays(make, options)
    parameters = _by_decay(module) if spares else list(trainable(module))
    optimizer = _called(make, parameters, options)
    for group in optimizer.param_groups:
        group.update(later)
    rates, indices = Rates(horizon), range(len(optimizer.param_groups))
    for key, spec in specs.items():
        rates.follow_everywhere(indices, key, spec, but=_spared(parameters) if key == DECAY else set())
    return Slot(ONLY, optimizer, rates=rates.all, names=names_of(module), notice=notice)


def _spared(parameters: Sequence[nn.Parameter | Table]) -> set[int]:
    """The groups that have a weight decay of their own."""
    return {index for index, one in enumerate(parameters) if isinstance(one, dict) and DECAY in one}


def _read_specs(options: dict[str, object]) -> dict[str, Spec]:
    """Learning rate and weight decay, taken out of the options and checked as those of `[optimizer]` are."""
    given = {name: options.pop(name) for name in CALLED.values() if name in options}
    constant = {name: value for name, value in given.items() if not is_schedule(value)}
    read = AdamWConfig.model_validate(constant).model_dump(include=set(constant))
    return {key: read.get(name, given[name]) for key, name in CALLED.items() if name in given}


def _set_later(make: Maker, options: dict[str, object]) -> Table:
    """The rate that a function of the parameters alone gets afterwards, taken out of the options."""
    if RATE not in options or isinstance(make, type) or _takes(make, RATE):
        return {}
    return {RATE: options.pop(RATE)}


def _by_decay(module: nn.Module) -> list[Table]:
    """The trainable parameters in two groups, of which the second does not decay."""
    spared = undecayed(module)
    groups: list[Table] = [
        {"params": [p for p in trainable(module) if p not in spared]},
        {"params": [p for p in trainable(module) if p in spared], DECAY: 0.0},
    ]
    return [group for group in groups if group["params"]]


def _called(make: Maker, parameters: Sequence[nn.Parameter | Table], options: Table) -> torch.optim.Optimizer:
    """The optimizer that the user's class or function makes."""
    try:
        optimizer = make(parameters, **options)
    except (TypeError, ValueError) as error:
        name = make.__name__ if inspect.isroutine(make) or inspect.isclass(make) else "it"
        raise ConfigError(f"optimizer: {name} refuses its arguments: {error}.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(f"optimizer must give a torch.optim.Optimizer, but gives a {type(optimizer).__name__}.")
    return optimizer


def _takes(make: Maker, keyword: str) -> bool:
    parameters = inspect.signature(make).parameters.values()
    return any(one.name == keyword or one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def _decays(make: Maker, options: Table) -> bool:
    """Whether a class of optimizers is asked for weight decay, or has it by default."""
    if DECAY in options:
        return True
    parameter = inspect.signature(make).parameters.get(DECAY)
    return parameter is not None and bool(parameter.default)

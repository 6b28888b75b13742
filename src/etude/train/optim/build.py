"""From a config, or from what a task configured, to the optimizers of a run."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from etude.base.config.imports import check_signature
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.schedules import ScheduleSection, bind
from etude.train.optim.config import (
    AdafactorConfig,
    AdamConfig,
    AdamWConfig,
    GroupConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
)
from etude.train.optim.freezing import constant_patterns, freeze, matches
from etude.train.optim.fused import QuickAdam, QuickAdamW
from etude.train.optim.muon import Muon, is_hidden_matrix
from etude.train.optim.slot import Rate, Slot

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)  # noqa: SLF001 - torch has no public base of its batch and instance norms
ONLY = "0"
"""The name of a run's only optimizer."""


@dataclass
class _Group:
    """Parameters that share every option."""

    config: GroupConfig | None
    decays: bool
    muon: bool = False
    factor: float = 1.0
    """Of the learning rate."""
    parameters: list[nn.Parameter] = field(default_factory=list)


def names_of(module: nn.Module) -> dict[nn.Parameter, str]:
    """The name of each parameter; a shared one keeps its first."""
    return {parameter: name for name, parameter in module.named_parameters()}


def model_width(module: nn.Module) -> int | None:
    """The `d_model` of a task's model, which some schedules scale by; None for one that does not tell."""
    config = getattr(getattr(module, "model", module), "config", None)
    width: int | None = getattr(config, "d_model", None)
    return width


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, horizon: Horizon, notice: Callable[[str], None]
) -> Slot:
    """The optimizer of `[optimizer]` over all trainable parameters, grouped by decay and by pattern."""
    frozen = {group.match: group.freeze for group in config.groups}
    freeze(module, constant_patterns(frozen), "optimizer.groups")
    groups = _grouped(module, config)
    if not groups:
        raise ConfigError("train.freeze and optimizer.groups leave no parameter to train.")
    d_model = model_width(module)
    tables, rates = [], []
    for index, group in enumerate(groups):
        own = dict((group.config.model_extra or {}) if group.config else {})
        rate = own.pop("learning_rate", config.learning_rate)
        decay = own.pop("weight_decay", config.weight_decay) if group.decays else 0.0
        table: dict[str, Any] = {"params": group.parameters, **own}
        for key, name, spec in (("lr", "learning_rate", rate), ("weight_decay", "weight_decay", decay)):
            if isinstance(spec, (int, float)):
                table[key] = float(spec) * (group.factor if key == "lr" else 1.0)
            else:
                schedule = bind(spec, horizon, key=f"optimizer.{name}", d_model=d_model)
                rates.append((index, key, schedule))
                table[key] = 1e-3 if key == "lr" else 0.0
        if isinstance(config, MuonConfig):
            table["muon"] = group.muon
        tables.append(table)
    optimizer = _make(config, tables)
    beside: dict[str, dict[str, int]] = {}
    for index, group in enumerate(groups):
        for key, name in (("lr", "learning_rate"), ("weight_decay", "weight_decay")):
            # Of a pattern's two groups the one that decays tells of the decay.
            if group.config is not None and name in (group.config.model_extra or {}) and (key == "lr" or group.decays):
                beside.setdefault(group.config.match, {}).setdefault(key, index)
    plain = [index for index, group in enumerate(groups) if group.config is None]
    main = next((index for index in plain if groups[index].factor == 1.0), next(iter(plain), 0))
    scheduled = {index for index, key, _ in rates if key == "lr"}
    return Slot(
        ONLY,
        optimizer,
        rates=rates,
        names=names_of(module),
        main=main,
        beside=beside,
        factors={i: group.factor for i, group in enumerate(groups) if group.factor != 1.0 and i in scheduled},
        freezes=frozen,
        notice=notice,
    )


def _embeddings(module: nn.Module) -> set[nn.Parameter]:
    found = {p for m in module.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters()}
    for part in module.modules():  # layers that hold an embedding without being torch's say so
        found.update(getattr(part, "embedding_parameters", list)())
    return found


def undecayed(module: nn.Module) -> set[nn.Parameter]:
    """Biases, norms and embeddings, and whatever else is no matrix."""
    norms = {p for m in module.modules() if isinstance(m, _NORMS) for p in m.parameters()}
    small = {p for name, p in module.named_parameters() if p.ndim < 2 or name.rpartition(".")[2].startswith("bias")}  # noqa: PLR2004 - a matrix
    return _embeddings(module) | norms | small


def _grouped(module: nn.Module, config: OptimizerConfig) -> list[_Group]:
    embeddings, spared = _embeddings(module), undecayed(module)
    multipliers: Callable[[], Mapping[str, float]] = getattr(module, "rate_multipliers", dict)
    factors = multipliers()
    groups: dict[tuple[Any, ...], _Group] = {}
    used: set[str] = set()
    for parameter, name in names_of(module).items():
        if not parameter.requires_grad:
            continue
        own = next((g for g in reversed(config.groups) if matches(name, g.match)), None)
        used.update(g.match for g in config.groups if matches(name, g.match))
        decays = config.decay_all or parameter not in spared
        muon = isinstance(config, MuonConfig) and is_hidden_matrix(name, parameter, embeddings)
        factor = factors.get(name, 1.0)
        key = (not muon, id(own), decays, factor)
        groups.setdefault(key, _Group(own, decays, muon, factor)).parameters.append(parameter)
    for group in config.groups:
        if group.match not in used and group.match not in constant_patterns({group.match: group.freeze}):
            raise ConfigError(
                f"optimizer.groups has the pattern {group.match!r}, which matches no trainable parameter."
            )
    # Muon keeps its matrices before the rest; a stable order keeps state and rates together.
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def _make(config: OptimizerConfig, tables: list[dict[str, Any]]) -> torch.optim.Optimizer:
    fused: dict[str, Any] = {"fused": True} if _can_fuse(tables) else {}
    try:
        match config:
            case MuonConfig():
                return Muon(tables, momentum=config.momentum, betas=config.betas, eps=config.eps)
            case SGDConfig():
                options = {"momentum": config.momentum, "dampening": config.dampening, "nesterov": config.nesterov}
                return torch.optim.SGD(tables, lr=1e-3, **options, **fused)  # type: ignore[arg-type]
            case AdafactorConfig():
                return torch.optim.Adafactor(
                    tables, lr=1e-2, beta2_decay=config.beta2_decay, eps=config.eps, d=config.d
                )
            case AdamConfig():
                made: Callable[..., torch.optim.Optimizer] = QuickAdam if fused else torch.optim.Adam
            case AdamWConfig():
                made = QuickAdamW if fused else torch.optim.AdamW
        return made(tables, lr=1e-3, betas=config.betas, eps=config.eps, amsgrad=config.amsgrad, **fused)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer: torch refuses its arguments: {error}.") from error


def _can_fuse(tables: Sequence[Mapping[str, Any]]) -> bool:
    parameters = [p for table in tables for p in table["params"]]
    return all(p.is_floating_point() and p.device.type in {"cpu", "cuda", "mps"} for p in parameters)


def build_imported(
    module: nn.Module,
    make: Callable[..., torch.optim.Optimizer],
    arguments: Mapping[str, Any],
    notice: Callable[[str], None],
    horizon: Horizon,
) -> Slot:
    """An optimizer of the user's own, by import path or as a class or function: called with the trainable parameters
    and its arguments, which are checked against its signature.

    Of a class of torch's kind the weight decay, if any, skips biases, norms and embeddings unless `decay_all`.
    """
    options = dict(arguments)
    decay_all = bool(options.pop("decay_all", False))
    given = {key: options.pop(key) for key in ("learning_rate", "weight_decay") if key in options}
    read = AdamWConfig.model_validate({key: value for key, value in given.items() if not is_schedule(value)})
    rates: list[Rate] = []
    scheduled: dict[str, Any] = {}
    for key, name in (("learning_rate", "lr"), ("weight_decay", "weight_decay")):
        if key in given:
            value = given[key] if is_schedule(given[key]) else getattr(read, key)
            options[name] = float(value) if isinstance(value, (int, float)) else 0.0
            if not isinstance(value, (int, float)):
                scheduled[name] = bind(value, horizon, key=f"optimizer.{key}")
    # A function of the parameters alone gets its rate afterwards.
    later = {} if isinstance(make, type) or _takes(make, "lr") else {"lr": options.pop("lr")} if "lr" in options else {}
    check_signature(make, options, "optimizer", positional=1)
    parameters: list[Any] = [p for p in names_of(module) if p.requires_grad]
    if not decay_all and isinstance(make, type) and _decays(make, options):
        spared = undecayed(module)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p not in spared]},
            {"params": [p for p in parameters if p in spared], "weight_decay": 0.0},
        ]
        parameters = [group for group in groups if group["params"]]
    try:
        optimizer = make(parameters, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {getattr(make, '__name__', 'it')} refuses its arguments: {error}.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(f"optimizer must give a torch.optim.Optimizer, but gives a {type(optimizer).__name__}.")
    for group in optimizer.param_groups:
        group.update(later)
    for name, schedule in scheduled.items():
        spared_groups = {i for i, g in enumerate(parameters) if isinstance(g, dict) and "weight_decay" in g}
        skipped = spared_groups if name == "weight_decay" else set()
        rates += [(index, name, schedule) for index in range(len(optimizer.param_groups)) if index not in skipped]
    return Slot(ONLY, optimizer, rates=rates, names=names_of(module), notice=notice)


def _takes(make: Callable[..., Any], keyword: str) -> bool:
    parameters = inspect.signature(make).parameters.values()
    return any(one.name == keyword or one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def is_schedule(value: Any) -> bool:
    """Whether `value` is a schedule that was read before."""
    return isinstance(value, ScheduleSection)


def _decays(make: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    """Whether a class of optimizers is asked for weight decay, or has it by default."""
    if "weight_decay" in options:
        return True
    parameter = inspect.signature(make).parameters.get("weight_decay")
    return parameter is not None and bool(parameter.default)

"""Parameters in groups: by what decays, by name pattern, by the factors that a model asks for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn

from etude.base.errors import ConfigError
from etude.base.patterns import matches
from etude.train.optim.config import GroupConfig, OptimizerConfig
from etude.train.optim.freezing import constant_patterns
from etude.train.optim.muon import is_hidden_matrix

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)  # noqa: SLF001 - torch has no public base of its batch and instance norms


@runtime_checkable
class Embeds(Protocol):
    """A layer that holds an embedding without being torch's."""

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Its parameters that are one."""


@runtime_checkable
class Multiplies(Protocol):
    """A task whose model asks for other learning rates of some parameters."""

    def rate_multipliers(self) -> Mapping[str, float]:
        """Factors of the learning rate, by name."""


@dataclass
class Group:
    """Parameters that share every option."""

    config: GroupConfig | None
    decays: bool
    muon: bool = False
    factor: float = 1.0
    """Of the learning rate."""
    parameters: list[nn.Parameter] = field(default_factory=list)

    @property
    def pattern(self) -> str:
        """Its name pattern; nothing where it has none."""
        return "" if self.config is None else self.config.match

    @property
    def own(self) -> dict[str, object]:
        """The options that its pattern has of its own."""
        return {} if self.config is None else dict(self.config.model_extra or {})


class _Key(NamedTuple):
    """What tells one group from another."""

    last: bool
    config: int
    decays: bool
    factor: float


def _key_of(group: Group) -> _Key:
    return _Key(not group.muon, id(group.config), group.decays, group.factor)


def names_of(module: nn.Module) -> dict[nn.Parameter, str]:
    """The name of each parameter; a shared one keeps its first."""
    return {parameter: name for name, parameter in module.named_parameters()}


def trainable(module: nn.Module) -> dict[nn.Parameter, str]:
    """The name of each parameter that is trained."""
    return {parameter: name for parameter, name in names_of(module).items() if parameter.requires_grad}


def embeddings(module: nn.Module) -> set[nn.Parameter]:
    """The parameters that are embeddings."""
    found: set[nn.Parameter] = set()
    for part in module.modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            found.update(part.parameters())
        if isinstance(part, Embeds):
            found.update(part.embedding_parameters())
    return found


def undecayed(module: nn.Module) -> set[nn.Parameter]:
    """Biases, norms and embeddings, and whatever else is no matrix."""
    found = embeddings(module)
    for part in module.modules():
        found.update(part.parameters() if isinstance(part, _NORMS) else ())
    found.update(parameter for name, parameter in module.named_parameters() if _is_no_matrix(name, parameter))
    return found


def _is_no_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2 or name.rpartition(".")[2].startswith("bias")  # noqa: PLR2004 - a matrix


def grouped(module: nn.Module, config: OptimizerConfig) -> list[Group]:
    """The trainable parameters in groups that share every option.

    Raises ConfigError for a pattern that means none.
    """
    embedded, spared = embeddings(module), undecayed(module)
    factors = module.rate_multipliers() if isinstance(module, Multiplies) else {}
    groups: dict[_Key, Group] = {}
    for parameter, name in trainable(module).items():
        group = Group(
            _pattern_of(name, config),
            decays=config.decay_all or parameter not in spared,
            muon=config.type == "muon" and is_hidden_matrix(name, parameter, embedded),
            factor=factors.get(name, 1.0),
        )
        groups.setdefault(_key_of(group), group).parameters.append(parameter)
    _refuse_unused(module, config)
    # Muon keeps its matrices before the rest; a stable order keeps state and rates together.
    return [groups[key] for key in sorted(groups, key=lambda key: key.last)]


def _pattern_of(name: str, config: OptimizerConfig) -> GroupConfig | None:
    """The last of the patterns that mean a parameter."""
    return next((group for group in reversed(config.groups) if matches(name, group.match)), None)


def _refuse_unused(module: nn.Module, config: OptimizerConfig) -> None:
    """Refuse a pattern that means no parameter, unless it freezes what it means for good."""
    names = trainable(module).values()
    for group in config.groups:
        if not _is_used(group, names):
            raise ConfigError(
                f"optimizer.groups has the pattern {group.match!r}, which matches no trainable parameter."
            )


def _is_used(group: GroupConfig, names: Iterable[str]) -> bool:
    """Whether a pattern means one of the trainable parameters, or freezes what it means for good."""
    used = any(matches(name, group.match) for name in names)
    return used or bool(constant_patterns({group.match: group.freeze}))

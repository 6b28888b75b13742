"""Parameters in groups: by what decays, by name pattern, by the factors that a model asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn

from etude.base.errors import ConfigError
from etude.train.optim.config import GroupConfig, OptimizerConfig
from etude.train.optim.freezing import constant_patterns, matches
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
    def own(self) -> dict[str, object]:
        """The options that its pattern has of its own."""
        return {} if self.config is None else dict(self.config.model_extra or {})


class _Key(NamedTuple):
    """What tells one group from another."""

    last: bool
    pattern: int | None
    decays: bool
    factor: float


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
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2 or name.rpartition(".")[2].startswith("bias"):  # noqa: PLR2004 - a matrix
            found.add(parameter)
    return found


def grouped(module: nn.Module, config: OptimizerConfig) -> list[Group]:
    """The trainable parameters in groups that share every option.

    Raises ConfigError for a pattern that means none.
    """
    embedded, spared = embeddings(module), undecayed(module)
    factors = module.rate_multipliers() if isinstance(module, Multiplies) else {}
    groups: dict[_Key, Group] = {}
    for parameter, name in trainable(module).items():
        own = _pattern_of(name, config)
        decays = config.decay_all or parameter not in spared
        muon = config.type == "muon" and is_hidden_matrix(name, parameter, embedded)
        factor = factors.get(name, 1.0)
        key = _Key(not muon, None if own is None else id(own), decays, factor)
        groups.setdefault(key, Group(own, decays, muon, factor)).parameters.append(parameter)
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
        used = any(matches(name, group.match) for name in names)
        if not used and group.match not in constant_patterns({group.match: group.freeze}):
            raise ConfigError(
                f"optimizer.groups has the pattern {group.match!r}, which matches no trainable parameter."
            )

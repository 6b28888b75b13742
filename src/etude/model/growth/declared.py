"""What every parameter and buffer of a network is made up of: as its modules say, or as torch's own are known to be."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias, final

from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.model.growth.table import known_parts
from etude.model.layers.growing import Dim, Growing, GrowthParts, Nested, Part, Row, row_of

Dims: TypeAlias = list[Dim | None]
"""Of each dimension what it is made up of; None where nobody knows."""


@final
@dataclass(frozen=True)
class Stored:
    """A parameter, or a buffer that is stored with them."""

    names: tuple[str, ...]
    """All that it has; the first is what it is called."""
    tensor: Tensor

    @property
    def name(self) -> str:
        """What it is called."""
        return self.names[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.tensor.shape)


def stored_in(module: nn.Module) -> list[Stored]:
    """What `module.state_dict()` holds, each tensor once."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):  # a module's extra state may be anything
            names.setdefault(id(value), []).append(name)
            tensors[id(value)] = value
    return [Stored(tuple(names[key]), tensor) for key, tensor in tensors.items()]


@final
class Declarations:
    """The parts of all parameters and buffers of a module.

    Of the modules around a parameter the nearest one that declares a dimension decides, and then what is known of
    torch's. Raises ConfigError for a declaration of a parameter that is not there.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._own: dict[str, GrowthParts] = {}
        self._known: dict[str, GrowthParts] = {}
        names = set(root.state_dict(keep_vars=True))
        for path, module in root.named_modules(remove_duplicate=False):
            self._known[path] = known_parts(module)
            if isinstance(module, Growing):
                self._own[path] = module.growth_parts()
                _check_names(type(module).__name__, path, self._own[path], names)

    def dims(self, one: Stored) -> Dims:
        """Of each dimension what it is made up of. Raises ConfigError for sizes that are not its own."""
        found = self._of(one.names[0], one.shape)
        for name in one.names[1:]:
            found = _both(found, self._of(name, one.shape), one)
        return found

    def owner(self, name: str) -> nn.Module:
        """The module that has the parameter itself."""
        return self._root.get_submodule(name.rpartition(".")[0])

    def declares(self, one: Stored) -> bool:
        """Whether a module of the network says what a parameter is made up of."""
        splits = chain.from_iterable(map(_splits, one.names))
        return any(local in self._own.get(path, {}) for path, local in splits)

    def _of(self, name: str, shape: tuple[int, ...]) -> Dims:
        dims: Dims = [None] * len(shape)
        for source in self._sources(name):
            _fill(dims, source, name)
        _check_sizes(dims, shape, name)
        return dims

    def _sources(self, name: str) -> Iterator[Sequence["Dim | Sequence[Nested] | None"]]:
        """What is declared of a parameter, the nearest first; what is known of torch's modules last."""
        for path, local in _splits(name):
            if local in self._own.get(path, {}):
                yield self._own[path][local]
        # An attention of torch's knows more of its output than the linear layer that this is.
        owner, *around = _splits(name)
        for path, local in (*around[:1], owner):
            if local in self._known[path]:
                yield self._known[path][local]


def _splits(name: str) -> list[tuple[str, str]]:
    """Every module around a parameter, the nearest first, and the parameter's name within it.

    >>> _splits("a.b.weight")
    [('a.b', 'weight'), ('a', 'b.weight'), ('', 'a.b.weight')]
    """
    words = name.split(".")
    return [(".".join(words[:cut]), ".".join(words[cut:])) for cut in range(len(words) - 1, -1, -1)]


def _check_names(owner: str, path: str, parts: GrowthParts, names: set[str]) -> None:
    for local in parts:
        if ".".join(filter(None, (path, local))) not in names:
            raise ConfigError(
                f"growth_parts of {owner} names {local!r}, which is no parameter of it "
                f"({path or 'the model'}): it must name those that there are."
            )


def _check_sizes(dims: Dims, shape: Sequence[int], name: str) -> None:
    for index, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        if dim is not None and dim.row.size != size:
            raise ConfigError(
                f"growth_parts of {name} gives {dim.row.size} in all for dimension {index}, which has "
                f"{size}: they must be the sizes that the module has at present."
            )


def _fill(dims: Dims, source: Sequence["Dim | Sequence[Nested] | None"], name: str) -> None:
    """Take over what is not known yet."""
    if len(source) != len(dims):
        raise ConfigError(f"growth_parts of {name} has {len(source)} dimensions, but the parameter has {len(dims)}.")
    dims[:] = map(_filled, dims, map(_dim, source))


def _filled(known: Dim | None, given: Dim | None) -> Dim | None:
    """What is known of a dimension, with what else is given."""
    if known is None or given is None:
        return known or given
    return known if known.side else replace(known, side=given.side)


def _dim(given: "Dim | Sequence[Nested] | None") -> Dim | None:
    """A dimension, of which perhaps only the parts are given."""
    if given is None or isinstance(given, Dim):
        return given
    return Dim(row_of(given))


def _both(first: Dims, second: Dims, one: Stored) -> Dims:
    """The dimensions of a parameter that two modules use."""
    pairs = zip(first, second, strict=True)
    return [_merged(left, right, one) for left, right in pairs]


def _merged(left: Dim | None, right: Dim | None, one: Stored) -> Dim | None:
    if left is None or right is None:
        return left or right
    return _merged_known(left, right, one)


def _merged_known(left: Dim, right: Dim, one: Stored) -> Dim:
    row = _merged_row(left.row, right.row, one)
    sides = {left.side, right.side} - {None}
    if len(sides) > 1 and not _is_of_classes(row):
        return Dim(row, "both")
    return Dim(row, left.side or right.side)


def _merged_row(left: Row, right: Row, one: Stored) -> Row:
    """What the one that says more says."""
    if left == right or _is_plain(right):
        return left
    if _is_plain(left):
        return right
    raise ConfigError(f"{' and '.join(one.names)} are one parameter, of which growth_parts says different things.")


def _is_plain(row: Row) -> bool:
    """Whether it is one part, of units."""
    match row.members:
        case (Part(kind="units"),):
            return True
    return False


def _is_of_classes(row: Row) -> bool:
    match row.members:
        case (Part(kind="classes"),):
            return True
    return False


def written(parts: Mapping[str, Sequence[Sequence[int] | None]]) -> str:
    """The method that a module lacks.

    >>> written({"weight": ((3,), (4,))})
    'def growth_parts(self): return {"weight": ((3,), (4,))}'
    """
    entries = [f'"{name}": {dims}' for name, dims in parts.items()]
    return f"def growth_parts(self): return {{{', '.join(entries)}}}"

"""A small config of the kinds of fields that real sections have."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from etude.base.config.components import Imported, component
from etude.base.config.fields import DurationField, PathField, PathOr, Switch
from etude.base.config.loading import load
from etude.base.config.section import Section
from etude.base.durations import Duration
from etude.base.errors import ConfigError

PositiveFloat = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Linear(Section):
    """From one value to another."""

    schedule: Literal["linear"]
    start: float = Field(default=0.0, alias="from")
    """First value."""
    to: float = 0.0
    """Last value."""
    over: Switch[DurationField] = None
    """How long."""


class Cosine(Section):
    """Half a wave."""

    schedule: Literal["cosine"]
    peak: PositiveFloat
    """Highest value."""
    warmup: Switch[DurationField] = None
    """How long until there."""


Rate = Annotated[float, Field(ge=0)] | Annotated[Linear | Cosine, Field(discriminator="schedule")]


class AdamW(Section):
    """Adam with decoupled weight decay."""

    learning_rate: Rate = 1e-3
    """How far a step goes."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""
    groups: list[dict[str, Any]] = Field(default=[])
    """Parameter groups."""


class Sgd(Section):
    """Stochastic gradient descent."""

    type: Literal["sgd"] = "sgd"
    momentum: Fraction = 0.0
    """Momentum."""


class UserOptimizer(Imported):
    """An optimizer of the user's."""

    learning_rate: Rate = 1e-3


class Aligned(Section):
    """Two files."""

    source: PathField
    target: PathField


class Data(Section):
    """What is trained on."""

    replaced_whole: ClassVar[tuple[str, ...]] = ("train",)

    train: Switch[Annotated[Path | str, PathOr(["numbers"])] | tuple[PathField, ...] | Aligned] = None
    """Files, or a corpus by name."""
    max_length: Switch[PositiveInt] = None
    """Longest text."""


class Train(Section):
    """The loop."""

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = (("batch_size", "batch_tokens"),)

    max_duration: DurationField | Annotated[list[DurationField], Field(min_length=1)] = Duration(16, "epochs")
    """Stop here."""
    eval_every: DurationField = Duration(1, "epochs")
    """Validate this often."""
    batch_size: Switch[PositiveInt] = 64
    """Samples of a batch."""
    batch_tokens: Switch[PositiveInt] = None
    """Tokens of a batch."""
    clip_grad: Switch[PositiveFloat] = None
    """Largest gradient norm."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision."""
    compile: bool = False
    """Compile."""
    limit: Annotated[float, Field(gt=0, le=1)] | Annotated[int, Field(ge=1)] = 1.0
    """A fraction or a number of batches."""
    patience: Switch[PositiveInt | DurationField] = None
    """Early stopping."""


class Run(Section):
    """The run."""

    name: str = "run"
    """Its name."""
    seed: int = 1
    """Its seed."""


class Root(Section):
    """A whole config."""

    run: Run = Run()
    train: Train = Train()
    data: Data = Data()
    optimizer: Annotated[
        AdamW | Sgd | UserOptimizer, component({"adamw": AdamW, "sgd": Sgd}, "adamw", UserOptimizer)
    ] = AdamW()


@pytest.fixture(scope="session")
def root():
    return Root


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Load a text, with overrides, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(text, *overrides, name="run.toml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return load(Root, Path(name), list(overrides))

    return call


@pytest.fixture
def problems(loaded):
    """The sentences that a wrong text gets."""

    def call(text, *overrides):
        with pytest.raises(ConfigError) as caught:
            loaded(text, *overrides)
        return list(caught.value.problems)

    return call

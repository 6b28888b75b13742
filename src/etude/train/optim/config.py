"""The `[optimizer]` section: a table for each optimizer, with its own arguments."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from etude.base.config.fields import Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.durations import Duration
from etude.base.near import nearest
from etude.base.schedules import Cosine, scheduled
from etude.train.optim.freezing import Frozen

Beta = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]

DEFAULT_RATE = Cosine(schedule="cosine", peak=1e-3, warmup=Duration(5, "percent"))


class GroupConfig(Section):
    """Options for the parameters that a name pattern matches; any option of the optimizer is allowed."""

    model_config = ConfigDict(extra="allow")

    match: str
    """A pattern of parameter names, as `encoder.*`."""
    freeze: Frozen = False
    """Do not train these parameters: true, which frees the memory of their gradients, or a schedule of 1 and 0."""


class _Optimizer(Section):
    type: str
    learning_rate: scheduled(ge=0) = DEFAULT_RATE  # type: ignore[valid-type]
    """A number or a schedule; cosine to zero from 1e-3, with a warm-up of 5 % of the run, by default."""
    decay_all: bool = False
    """Apply weight decay to biases, norms and embeddings too."""
    groups: list[GroupConfig] = Field(default_factory=list)
    """Parameter groups by name pattern, each with arguments of its own."""

    @model_validator(mode="after")
    def _reads_the_groups(self) -> Self:
        """Check the arguments of every group as the optimizer's own are checked."""
        for index, group in enumerate(self.groups):
            if group.model_extra:
                self._read_group(index, group.model_extra)
        return self

    def _read_group(self, index: int, given: dict[str, object]) -> None:
        """Put what was read of a group's arguments in the place of what was given."""
        for name in given:
            self._check_argument(name, f"optimizer.groups[{index}].{name}")
        try:
            read = type(self).model_validate(dict(given))
        except ValidationError as error:
            raise _placed(error, ("groups", index)) from None
        given.update({name: getattr(read, name) for name in given})

    def _check_argument(self, name: str, place: str) -> None:
        """Refuse what is no argument of this optimizer."""
        known = [one for one in type(self).model_fields if one not in {"type", "groups", "decay_all"}]
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"it takes {', '.join(known)}."
            raise ValueError(f"{place} is not an argument of {self.type}; {hint}")


def _placed(error: ValidationError, place: tuple[str | int, ...]) -> ValidationError:
    """The same errors, further down in a config."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(one["type"], one["msg"], one.get("ctx")),
            loc=(*place, *one["loc"]),
            input=one["input"],
        )
        for one in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, details)


class AdamWConfig(_Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    type: Literal["adamw"] = "adamw"
    weight_decay: scheduled(ge=0) = 0.01  # type: ignore[valid-type]
    """Decoupled weight decay."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the first and second moment."""
    eps: Epsilon = 1e-8
    """Added to the root of the second moment."""
    amsgrad: Annotated[bool, means(shared="never", why="the optimizer's state does not fit it")] = False
    """Use the largest second moment so far."""


class AdamConfig(AdamWConfig):
    """Adam (Kingma and Ba 2015); weight decay, if any, is L2."""

    type: Literal["adam"] = "adam"  # type: ignore[assignment]
    weight_decay: scheduled(ge=0) = 0.0  # type: ignore[valid-type]
    """L2 added to the gradient."""


class SGDConfig(_Optimizer):
    """Stochastic gradient descent, with momentum if asked."""

    type: Literal["sgd"] = "sgd"
    weight_decay: scheduled(ge=0) = 0.0  # type: ignore[valid-type]
    """L2 added to the gradient."""
    momentum: Beta = 0.0
    """Momentum."""
    dampening: Beta = 0.0
    """Dampening of the momentum."""
    nesterov: bool = False
    """Nesterov's momentum."""


class AdafactorConfig(_Optimizer):
    """Adafactor (Shazeer and Stern 2018): factored second moments, little memory."""

    type: Literal["adafactor"] = "adafactor"
    weight_decay: scheduled(ge=0) = 0.0  # type: ignore[valid-type]
    """Decoupled weight decay."""
    beta2_decay: Annotated[float, Field(lt=0)] = -0.8
    """Exponent of the second moment's decay."""
    eps: tuple[Switch[Epsilon], Epsilon] = (None, 1e-3)
    """Added to the squared gradient (false: the type's own), and the least size of a parameter."""
    d: Annotated[float, Field(gt=0)] = 1.0
    """Clipping threshold of an update."""


class MuonConfig(_Optimizer):
    """Muon on hidden matrices, AdamW on the rest (Jordan et al. 2024)."""

    type: Literal["muon"] = "muon"
    weight_decay: scheduled(ge=0) = 0.1  # type: ignore[valid-type]
    """Decoupled weight decay."""
    momentum: Beta = 0.95
    """Muon's momentum."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """AdamW's."""
    eps: Epsilon = 1e-8
    """AdamW's."""


OptimizerConfig = AdamWConfig | AdamConfig | SGDConfig | AdafactorConfig | MuonConfig
OPTIMIZERS: dict[str, type[Section]] = {
    "adamw": AdamWConfig,
    "adam": AdamConfig,
    "sgd": SGDConfig,
    "adafactor": AdafactorConfig,
    "muon": MuonConfig,
}

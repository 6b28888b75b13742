"""An optimizer's place in the loop: its parameters, its rates, its own count of steps."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from etude.base.durations import Duration
from etude.base.progress import Progress
from etude.base.schedules import Driven
from etude.train.optim.sparse import added

LAMBDAS, PARTS = "lr_lambdas", "_schedulers"
"""What torch's schedulers call the functions, and the schedulers, in their state."""
NOTHING: Mapping[Any, Any] = {}
"""What is given for no part of an optimizer."""
Rate = tuple[int, str, Callable[[Progress], float]]
"""The index of a parameter group, the key that a schedule drives in it, and the schedule."""
Parted = Callable[[Tensor, Tensor], Tensor]
"""Gives the part of a whole tensor that is like that of another."""


class SlotState(TypedDict):
    """What a checkpoint keeps of one; steps, state and groups are there in every version."""

    steps: int
    due: NotRequired[bool]
    scheduler: NotRequired[dict[str, Any] | None]
    state: Mapping[str, Any]
    gradients: NotRequired[Mapping[str, Tensor]]
    groups: Sequence[Mapping[str, Any]]


def _as_it_is(value: Tensor, like: Tensor) -> Tensor:
    del like
    return value


class Slot:
    """One optimizer of a run."""

    def __init__(  # noqa: PLR0913 - what a slot is made of, one for one
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        *,
        rates: Sequence[Rate] = (),
        names: Mapping[nn.Parameter, str] = NOTHING,
        others: Sequence[nn.Parameter] = (),
        main: int = 0,
        beside: Mapping[str, Mapping[str, int]] = NOTHING,
        factors: Mapping[int, float] = NOTHING,
        freezes: Mapping[str, object] = NOTHING,
        scheduler: LRScheduler | None = None,
        scheduler_every: Duration | None = None,
        notice: Callable[[str], None] = print,
    ) -> None:
        self.name = name
        self.optimizer = optimizer
        self.freezes = freezes
        """By name pattern: whether, or by what schedule, parameters are frozen."""
        self._warmth: Callable[[int], float] = lambda _: 1.0
        self.steps = 0
        """Steps this optimizer has taken; its schedules count these."""
        self.parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
        self._rates = list(rates)
        self._factors = factors
        self._names = names
        self._main = main
        self._beside = beside
        self._used: float | None = None
        self._followed = 0
        """Steps of its own that a torch scheduler has been told of."""
        self._others = _without(others, self.parameters)
        self._scheduler = scheduler
        self._plateau = scheduler if isinstance(scheduler, ReduceLROnPlateau) else None
        self._scheduler_every = scheduler_every or _usual_beat(self._plateau)
        self._due = self._scheduler_every is None
        """Whether a plateau scheduler takes in the next validation."""
        self.needs_closure = _needs_closure(optimizer)
        """Whether its step evaluates the loss itself, as L-BFGS does."""
        self.has_modes = all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))
        """Whether it holds other weights in `eval` mode, as schedule-free optimizers do."""
        self._notice: Callable[[str], None] | None = notice
        self._skips_on_device = _skips_on_device(optimizer)

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter of this optimizer is trained at present."""
        return not any(p.requires_grad for p in self.parameters)

    def set_rates(self, progress: Progress) -> None:
        """Set every scheduled value for the step to come."""
        warmth = self._warmth(progress.step)
        if progress.step != self.steps:
            progress = progress._replace(step=self.steps)
        groups = self.optimizer.param_groups
        for index, key, schedule in self._rates:
            groups[index][key] = schedule(progress)
        for index, factor in self._factors.items():
            groups[index]["lr"] *= factor
        if warmth != 1.0:
            for index in {index for index, key, _ in self._rates if key == "lr"}:
                groups[index]["lr"] *= warmth

    def rewarm(self, warmth: Callable[[int], float]) -> None:
        """Let learning rates be multiplied by `warmth`, a function of the steps that the run has taken.

        What a torch scheduler sets is left to it.
        """
        self._warmth = warmth
        followed = {index for index, key, _ in self._rates if key == "lr"}
        if self._scheduler is None:
            for index in range(len(self.optimizer.param_groups)):
                if index not in followed:
                    self._rates.append((index, "lr", _constant(self._rate(index))))

    def follow(self, before: Progress, now: Progress) -> None:
        """Step a torch scheduler when its time has come."""
        if self._scheduler_every is None or self._scheduler is None:
            return
        due = self._scheduler_every.due(before._replace(step=self._followed), now._replace(step=self.steps))
        self._followed = self.steps
        if self._plateau is not None:
            self._due |= due
            return
        self._used = self._rate(self._main)
        if due:
            self._scheduler.step()

    def follow_validation(self, value: float | None) -> None:
        """Step a torch plateau scheduler with what validation measured; what it did not (None) moves nothing."""
        if self._plateau is not None and self._due and value is not None:
            self._plateau.step(value)
            self._due = self._scheduler_every is None

    def begin_anew(self) -> None:
        """Let a torch plateau scheduler compare with no validation before."""
        if self._plateau is not None:
            self._plateau.best, self._plateau.num_bad_epochs = self._plateau.mode_worse, 0

    @property
    def learning_rate(self) -> float:
        """The rate that the last step was taken with; of several groups that of the first without its own."""
        return self._rate(self._main) if self._used is None else self._used

    def _rate(self, group: int) -> float:
        return float(self.optimizer.param_groups[group]["lr"])

    def driven(self) -> dict[str, Driven]:
        """The schedules that follow validation results, by name."""
        return {
            f"{self.name} {index} {key}": schedule
            for index, key, schedule in self._rates
            if isinstance(schedule, Driven)
        }

    def scheduled(self) -> dict[str, float]:
        """Every scheduled value besides the learning rate, by key.

        What parameters have of their own, a learning rate that is no schedule included, is named by their pattern too.
        """
        groups = self.optimizer.param_groups
        suffixes = self._suffixes()
        values = {
            f"learning_rate{suffix}": self._rate(index) for (index, key), suffix in suffixes.items() if key == "lr"
        }
        for index, key, _ in self._rates:
            if key != "lr":
                values.setdefault(key + suffixes.get((index, key), ""), float(groups[index][key]))
        return values

    def _suffixes(self) -> dict[tuple[int, str], str]:
        """By group and key: what the name of a value ends with that parameters have of their own."""
        return {(index, key): f"/{pattern}" for pattern, keys in self._beside.items() for key, index in keys.items()}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let gradients flow to this optimizer's parameters only; the others' flags come back exactly."""
        if not self._others:
            yield
            return
        flags = [p.requires_grad for p in self._others]
        try:
            for parameter in self._others:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, flag in zip(self._others, flags, strict=True):
                parameter.requires_grad_(flag)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a step if the optimizer takes one inside the block."""
        stepped: list[bool] = []
        hook = self.optimizer.register_step_post_hook(lambda *_: stepped.append(True))
        try:
            yield
        finally:
            hook.remove()
            self.steps += bool(stepped)

    def train(self) -> None:
        """Let the parameters be those that are trained, where the optimizer has modes."""
        if self.has_modes:
            self.optimizer.train()  # type: ignore[attr-defined]

    def evaluate(self) -> None:
        """Let the parameters be those that are evaluated, where the optimizer has modes."""
        if self.has_modes:
            self.optimizer.eval()  # type: ignore[attr-defined]

    def drop_gradients(self) -> None:
        """Forget the gradients of this optimizer's parameters."""
        for parameter in self.parameters:
            parameter.grad = None

    def gradients_kept(self) -> list[Tensor | None] | None:
        """The gradients the round began with, or None where there are none."""
        kept = [p.grad for p in self.parameters]
        return kept if any(grad is not None for grad in kept) else None

    def restore_gradients(self, kept: Sequence[Tensor | None] | None) -> None:
        """Set the gradients to `kept`."""
        for index, parameter in enumerate(self.parameters):
            parameter.grad = None if kept is None else kept[index]

    def add_gradients(self, kept: Sequence[Tensor | None]) -> None:
        """Add what the round began with to the gradients computed in it."""
        for parameter, grad in zip(self.parameters, kept, strict=True):
            if grad is not None:
                parameter.grad = grad.clone() if parameter.grad is None else added(parameter.grad, grad)

    def skip_on_device(self, norm: Tensor) -> bool:
        """Let the optimizer itself skip a step whose gradient is not finite, without a sync; whether it can."""
        if self._skips_on_device:
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        return self._skips_on_device

    def notice_buffers(self) -> None:
        """Say once that the run keeps a gradient for each loss term."""
        if self._notice is not None:
            self._notice(
                "Several loss terms are accumulated and the task has no count_targets(batch), so a gradient is kept "
                "for each term; with count_targets that is not needed."
            )
            self._notice = None

    def go_on(self, former: "Slot", state: SlotState, parted: Parted = _as_it_is) -> None:
        """Go on with the schedules of `former` that follow validations, and with what has become of its state."""
        self.load_state_dict(state, parted)
        followed = former.driven()
        for name, schedule in self.driven().items():
            if type(schedule) is type(followed.get(name)):
                schedule.load_state_dict(followed[name].state_dict())

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each parameter, by name."""
        return {name: p.shape for name, p in zip(self._own_names(), self.parameters, strict=True)}

    def _own_names(self) -> list[str]:
        return [self._names.get(p, str(index)) for index, p in enumerate(self.parameters)]

    def state_dict(self) -> SlotState:
        """The optimizer's state and kept gradients by parameter name, its groups' options, and its count of steps."""
        names = self._own_names()
        packed = self.optimizer.state_dict()
        return {
            "steps": self.steps,
            "due": self._due,
            "scheduler": self._scheduler_state(),
            "state": {names[index]: value for index, value in packed["state"].items()},
            "gradients": self._gradients(names),
            "groups": list(map(_options, packed["param_groups"])),
        }

    def _scheduler_state(self) -> dict[str, Any] | None:
        return None if self._scheduler is None else _plain_state(self._scheduler.state_dict())

    def _gradients(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The gradients that are kept, by name."""
        named = zip(names, self.parameters, strict=True)
        return {name: p.grad for name, p in named if p.grad is not None}

    def load_state_dict(self, state: SlotState, parted: Parted = _as_it_is) -> None:
        """Go on from `state_dict()`; `parted` gives the part of a whole tensor that is like that of a parameter."""
        index_of = {name: index for index, name in enumerate(self._own_names())}
        moments = {index_of[name]: value for name, value in state["state"].items()}
        for index, kept in moments.items():
            parameter = self.parameters[index]
            moments[index] = {
                key: parted(one, parameter) if isinstance(one, Tensor) else one for key, one in kept.items()
            }
        self.optimizer.load_state_dict({"state": moments, "param_groups": self._packed_groups(state["groups"])})
        for name, gradient in state.get("gradients", {}).items():
            parameter = self.parameters[index_of[name]]
            parameter.grad = parted(gradient, parameter).to(parameter.device)
        self.steps = self._followed = state["steps"]
        self._due = state.get("due", self._due)
        self._load_scheduler(state.get("scheduler"))

    def _packed_groups(self, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The stored options of the groups, with the optimizer's own numbers of parameters."""
        pairs = zip(groups, self.optimizer.state_dict()["param_groups"], strict=True)
        return [{**group, "params": own["params"]} for group, own in pairs]

    def _load_scheduler(self, state: dict[str, Any] | None) -> None:
        """Bring back a torch scheduler; the functions in it are what its constructor made."""
        if self._scheduler is None or state is None:
            return
        functions = vars(self._scheduler).get(LAMBDAS)
        if functions:
            state = {LAMBDAS: [None] * len(functions)} | state
        self._scheduler.load_state_dict(state)


def _constant(value: float) -> Callable[[Progress], float]:
    return lambda _: value


def _usual_beat(plateau: ReduceLROnPlateau | None) -> Duration | None:
    """How often a torch scheduler is stepped unless told otherwise; None, after each validation."""
    return None if plateau is not None else Duration(1, "epochs")


def _options(group: Mapping[str, object]) -> dict[str, object]:
    """A parameter group without its parameters."""
    return {key: value for key, value in group.items() if key != "params"}


def _without(parameters: Sequence[nn.Parameter], own: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    kept = set(own)
    return [p for p in parameters if p not in kept]


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it leaves out a step by itself where torch's scaler would: a fused one does."""
    return bool(vars(optimizer).get("_step_supports_amp_scaling")) and bool(optimizer.param_groups[0].get("fused"))


def _plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """A torch scheduler's state without the functions in it, which its constructor makes anew."""
    plain = {key: value for key, value in state.items() if not callable(value)}
    plain.pop(LAMBDAS, None)
    if PARTS in plain:
        plain[PARTS] = list(map(_plain_part, plain[PARTS]))
    return plain


def _plain_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of one of a scheduler's own: its functions, by place, are what its constructor made."""
    functions = {LAMBDAS: [None] * len(state[LAMBDAS])} if LAMBDAS in state else {}
    return _plain_state(state) | functions

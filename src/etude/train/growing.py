"""What goes on where a task grows into one of another structure: optimizers, averages, and schedules."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

from torch import Tensor, nn

from etude.model.growth import Growth, Transfer
from etude.train.averaging import Average, NoAverage
from etude.train.optim.carry import carried
from etude.train.optim.slot import Slot, SlotState
from etude.train.values import Values


def detached(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module by name, on the CPU."""
    return {name: value.detach().cpu() for name, value in module.state_dict().items()}


class Former(NamedTuple):
    """What was there before, as it stood: the module that it was made for is another by the time it is asked."""

    slots: Mapping[str, tuple[Slot, SlotState]]
    values: Values
    average: NoAverage | Average

    @classmethod
    def of(cls, slots: Sequence[Slot], values: Values, average: NoAverage | Average) -> Self:
        """What there is now."""
        return cls({slot.name: (slot, slot.state_dict()) for slot in slots}, values, average)

    def go_on_in(
        self,
        slots: Sequence[Slot],
        values: Values,
        average: NoAverage | Average,
        transfer: Transfer,
        growth: Growth,
        say: Callable[[str], None],
    ) -> None:
        """Let what was made anew go on where this stands: optimizers by their names, as the weights did by theirs."""
        for slot in slots:
            if slot.name in self.slots:
                former, state = self.slots[slot.name]
                slot.go_on(former, _state(state, transfer, growth, slot, say))
        values.take_over(self.values)
        average.carry(self.average, transfer)


def _state(state: SlotState, transfer: Transfer, growth: Growth, slot: Slot, say: Callable[[str], None]) -> SlotState:
    """What becomes of an optimizer's state: it follows its parameters, unless it is to begin anew after its steps."""
    if growth.optimizer_state == "reset":
        return {**slot.state_dict(), "steps": state["steps"]}
    return carried(state, transfer, slot, say)

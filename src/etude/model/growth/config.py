"""`[growth]`: what becomes of a network's weights where a schedule changes its structure."""

from typing import Literal

from pydantic import Field

from etude.base.config.fields import DurationField, Switch
from etude.base.config.section import Section


class Growth(Section):
    """`[growth]`: how weights and the optimizer's state are carried into a network of another structure."""

    new_weights: Literal["init", "zeros_out", "net2net"] = "init"
    """What new weights begin with: their usual initial values; the same, but zeros where new units and new residual
    layers act on old ones; or copies that leave the function of the network as it is (Chen et al. 2016)."""
    copy_from: Switch[Literal["last", "first"]] = None
    """A new layer of a stack begins as a copy of the layer below it, or of the first one; false: as `new_weights`
    has it."""
    insert: Literal["top", "below_last"] = "top"
    """New layers of a stack come above all old ones, or below the last one, which stays the last."""
    heads: Literal["append", "widen"] = "append"
    """Where number and width of an attention's heads both change: each old head lies in the corner of a new one, and
    new heads come behind them; or all heads are one row of numbers, which is cut anew."""
    rename: dict[str, str] = Field(default_factory=dict)
    """What parameters of the old network are called in the new one, by patterns: "old.*" = "new.*". Of several that
    match the last counts; "" lets them begin anew."""
    allow_shrink: bool = False
    """Let parameters become smaller, of which the beginning of each part is kept."""
    optimizer_state: Literal["keep", "reset"] = "keep"
    """Whether the optimizer's state follows its parameters, with zeros for new entries, or begins anew."""
    rewarm: Switch[DurationField] = None
    """How long the learning rate rises again after a change; false: not at all."""

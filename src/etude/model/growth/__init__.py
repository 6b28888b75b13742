"""Networks that grow: how parameters, and what belongs to them, are carried into a network of another structure."""

from etude.model.growth.config import Growth
from etude.model.growth.plan import plan_pairs, plan_transfer
from etude.model.growth.transfer import Entry, Transfer, write

__all__ = ["Entry", "Growth", "Transfer", "plan_pairs", "plan_transfer", "write"]

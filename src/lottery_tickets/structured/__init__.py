"""Networks that become smaller: units, masks of whole units, and the smaller network of such a mask."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.structured.costs import Cost, Costs, compute_costs
from lottery_tickets.structured.finding import find_units
from lottery_tickets.structured.shrinking import Shrunk, shrink
from lottery_tickets.structured.unit_masks import create_unit_mask
from lottery_tickets.structured.units import UnitGroup, Units

__all__ = [
    "Cost",
    "Costs",
    "Shrunk",
    "UnitGroup",
    "Units",
    "compute_costs",
    "create_unit_mask",
    "find_units",
    "shrink",
]
__dir__ = show_only(__all__)

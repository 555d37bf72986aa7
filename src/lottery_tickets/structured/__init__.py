"""Networks that become smaller: units, masks of whole units, the smaller network of such a mask, exports."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.structured.costs import Cost, Costs, WeightCost, compute_costs
from lottery_tickets.structured.exports import ExportReport, export_model, load_export
from lottery_tickets.structured.finding import find_units
from lottery_tickets.structured.shrinking import Shrunk, shrink
from lottery_tickets.structured.unit_masks import create_unit_mask
from lottery_tickets.structured.units import UnitGroup, Units

__all__ = [
    "Cost",
    "Costs",
    "ExportReport",
    "Shrunk",
    "UnitGroup",
    "Units",
    "WeightCost",
    "compute_costs",
    "create_unit_mask",
    "export_model",
    "find_units",
    "load_export",
    "shrink",
]
__dir__ = show_only(__all__)

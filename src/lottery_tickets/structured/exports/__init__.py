"""Pruned models on disk: written, loaded again and proved equal before they appear."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.structured.exports.exporting import ExportReport, Sides, check_output, export_model
from lottery_tickets.structured.exports.files import load_export

__all__ = ["ExportReport", "Sides", "check_output", "export_model", "load_export"]
__dir__ = show_only(__all__)

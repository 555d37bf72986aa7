"""What fits: the memory of each analysis before it starts, and settings to begin with."""

from lottery_tickets._core.notebooks import show_only
from lottery_tickets.planning.plan import MemoryPlan, PlannedAnalysis, plan_memory
from lottery_tickets.planning.settings import RecommendedSettings, recommend_settings

__all__ = ["MemoryPlan", "PlannedAnalysis", "RecommendedSettings", "plan_memory", "recommend_settings"]
__dir__ = show_only(__all__)

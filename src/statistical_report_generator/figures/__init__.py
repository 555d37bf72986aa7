"""Figures from saved results, drawn with matplotlib's object interface: no window, no global state."""

from statistical_report_generator.figures.connectivity import draw_error_path, draw_instability
from statistical_report_generator.figures.early_bird import draw_early_bird
from statistical_report_generator.figures.experiment import draw_accuracy_over_density
from statistical_report_generator.figures.landscape import draw_loss_landscape
from statistical_report_generator.figures.score_worth import draw_score_worth
from statistical_report_generator.figures.style import save_figure

__all__ = [
    "draw_accuracy_over_density",
    "draw_early_bird",
    "draw_error_path",
    "draw_instability",
    "draw_loss_landscape",
    "draw_score_worth",
    "save_figure",
]

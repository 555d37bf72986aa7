from .generator import ReportConfig as ReportConfig
from .generator import StatisticalReportGenerator as StatisticalReportGenerator
from .plotting import plot_results as plot_results

__all__ = ["ReportConfig", "StatisticalReportGenerator", "plot_results"]

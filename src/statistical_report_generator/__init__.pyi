from .generator import ReportConfig as ReportConfig
from .generator import StatisticalReportGenerator as StatisticalReportGenerator
from .plotting import plot_results as plot_results
from .sources import Verification as Verification

__all__ = ["ReportConfig", "StatisticalReportGenerator", "Verification", "plot_results"]

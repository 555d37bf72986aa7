from .generator import ReportConfig, StatisticalReportGenerator

__all__ = ["ReportConfig", "StatisticalReportGenerator"]

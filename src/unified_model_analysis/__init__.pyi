from .analyzer import UnifiedModelAnalyzer as UnifiedModelAnalyzer
from .config import UnifiedConfig as UnifiedConfig
from .registry import Analysis as Analysis
from .registry import list_analyses as list_analyses
from .subject import Subject as Subject

__all__ = ["Analysis", "Subject", "UnifiedConfig", "UnifiedModelAnalyzer", "list_analyses"]

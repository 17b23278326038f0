"""Statistics of the inputs of linears, collected while a block runs."""

from .collector import StatisticsCollector
from .panels import UpperPanels
from .statistics import CalibrationError, InputStatistics

__all__ = ["CalibrationError", "InputStatistics", "StatisticsCollector", "UpperPanels"]

"""Statistics of the inputs of linears, collected while a block runs."""

from .collector import StatisticsCollector
from .panels import UpperPanels
from .statistics import CalibrationError, InputStatistics, store_products
from .stored_panels import StoredPanels

__all__ = [
    "CalibrationError",
    "InputStatistics",
    "StatisticsCollector",
    "StoredPanels",
    "UpperPanels",
    "store_products",
]

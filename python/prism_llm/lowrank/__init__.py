"""Weights as products of two narrow factors, and how narrow they may be."""

from .factors import Factors, Rank, break_even_rank, factorize
from .kmif import kmif_rank

__all__ = ["Factors", "Rank", "break_even_rank", "factorize", "kmif_rank"]

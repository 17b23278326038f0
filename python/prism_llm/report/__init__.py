"""Reports: one self-contained HTML file and the same numbers as JSON."""

from .html import render_html, write_report

__all__ = ["render_html", "write_report"]

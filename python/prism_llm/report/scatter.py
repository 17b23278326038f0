"""A scatter plot as inline SVG. Colours come from the page's style sheet, so that it is readable in light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 72, 18, 48
_LABEL_HEIGHT = 16
_LETTER_WIDTH = 7.2


@dataclass(frozen=True)
class Point:
    """A labelled point; `style` picks the colour class `series-<style>` of the page."""

    label: str
    x: float
    y: float
    style: int


def scatter_svg(points: Sequence[Point], *, x_title: str, y_title: str) -> str:
    """SVG markup of a scatter plot; the y axis is logarithmic where the values span more than a factor of 4.

    Points whose coordinates are not finite, or not positive in y, are left out.
    """
    points = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y) and point.y > 0]
    if not points:
        return '<p class="note">No points to plot.</p>'
    x_low, x_high = 0.0, max(point.x for point in points) * 1.08 or 1.0
    values = [point.y for point in points]
    logarithmic = max(values) / min(values) > 4
    to_axis = math.log10 if logarithmic else float
    low, high = to_axis(min(values)), to_axis(max(values))
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - margin, high + margin

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (to_axis(y) - low) / (high - low)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)} over {escape(x_title)}">']
    parts += _axes(place, _ticks(x_low, x_high), _y_ticks(low, high, logarithmic), x_title, y_title)
    parts += _marks([(point, *place(point.x, point.y)) for point in points])
    parts.append("</svg>")
    return "\n".join(parts)


def _axes(place, x_ticks: list[float], y_ticks: list[float], x_title: str, y_title: str) -> list[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    for tick in y_ticks:
        _, y = place(0.0, tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{bottom}"/>')
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + bottom) / 2
    parts.append(f'<text class="title" x="{middle_x}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>')
    turned = f'transform="translate(16 {middle_y}) rotate(-90)" text-anchor="middle"'
    parts.append(f'<text class="title" {turned}>{escape(y_title)}</text>')
    return parts


def _marks(placed: list[tuple[Point, float, float]]) -> list[str]:
    parts = []
    heights: list[tuple[float, float]] = []
    for point, x, y in sorted(placed, key=lambda item: item[2]):
        label_y = y + 4
        # Labels of neighbours move down until they no longer overlap.
        while any(abs(label_y - other) < _LABEL_HEIGHT and abs(x - at) < 190 for at, other in heights):
            label_y += 2
        heights.append((x, label_y))
        text = escape(point.label)
        side = -1 if x + 12 + _LETTER_WIDTH * len(point.label) > WIDTH else 1
        anchor = "start" if side == 1 else "end"
        parts.append(f'<g class="series-{point.style}"><title>{text}: {point.x:.3f}, {point.y:.4g}</title>')
        parts.append(f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" x2="{x + 9 * side:.1f}" y2="{label_y - 4:.1f}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
        place = f'x="{x + 12 * side:.1f}" y="{label_y:.1f}" text-anchor="{anchor}"'
        parts.append(f'<text class="label" {place}>{text}</text></g>')
    return parts


def _ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / wanted))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= wanted)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _y_ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if not logarithmic:
        return _ticks(low, high)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]

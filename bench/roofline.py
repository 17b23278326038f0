"""Rooflines as SVG: GFLOP/s over operations per format byte, both logarithmic, under the roofs measured in that run."""

import io
import math
from typing import Any

WIDTH, HEIGHT = 5.4, 4.2
_MARKERS = "osD^vP*X<>"


def figure_svg(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """One panel per problem: a line per contender through its numbers of tokens. Bars of time where an op has none."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9})
    rows = [row for row in rows if not row["error"]]
    panels: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        panels.setdefault(_panel(row["problem"]), []).append(row)
    if not panels:
        return ""
    colours = {name: f"C{i % 10}" for i, name in enumerate(dict.fromkeys(row["contender"] for row in rows))}
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH * len(panels), HEIGHT), squeeze=False)
    for axis, (title, members) in zip(axes[0], panels.items(), strict=True):
        axis.set_title(title)
        if all("m" in row["problem"] for row in members):
            _roofline(axis, members, facts, colours)
        else:
            _bars(axis, members, colours)
    handles, labels = axes[0][0].get_legend_handles_labels()
    columns = min(max(len(labels), 1), 2 * len(panels))
    if handles:
        figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False)
    figure.tight_layout(rect=(0, 0.06 * math.ceil(len(labels) / columns) if handles else 0, 1, 1))
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _panel(problem: dict[str, Any]) -> str:
    rest = [f"{key} {value}" for key, value in problem.items() if key not in ("shape", "n", "k", "m")]
    return ", ".join([f"{problem['n']} x {problem['k']}", *rest])


def _roofline(axis: Any, rows: list[dict[str, Any]], facts: dict[str, Any], colours: dict[str, str]) -> None:
    def intensity(row: dict[str, Any]) -> float:
        return row["gflops"] / row["gbps"]  # both over the same time

    low, high = min(map(intensity, rows)) / 1.6, max(map(intensity, rows)) * 1.6
    bandwidth = facts["stream_gbps"]
    for peak, name in ((facts["bf16_gflops"], "bf16 GEMM"), (facts["fp32_gflops"], "fp32 GEMM")):
        corner = peak / bandwidth
        axis.plot([low, min(corner, high), high], [low * bandwidth, min(peak, high * bandwidth), peak]
                  if corner < high else [low * bandwidth, high * bandwidth, high * bandwidth],
                  color="0.55", linewidth=1, linestyle="-" if "bf16" in name else ":")  # fmt: skip
        if corner < high:
            axis.annotate(f"{name} {peak:.0f}", (high, peak), ha="right", va="bottom", fontsize=7.5, color="0.35")
    axis.annotate(f"read {bandwidth:.0f} GB/s", (low * 1.1, low * 1.1 * bandwidth), rotation=38, va="bottom",
                  fontsize=7.5, color="0.35")  # fmt: skip
    for index, (name, colour) in enumerate(colours.items()):
        own = sorted((row for row in rows if row["contender"] == name), key=lambda row: row["problem"]["m"])
        axis.plot([intensity(row) for row in own], [row["gflops"] for row in own], color=colour, label=name,
                  marker=_MARKERS[index % len(_MARKERS)], markersize=4.5, linewidth=1.2)  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("operations of the dense problem per byte of the format")
    axis.set_ylabel("GFLOP/s of the dense problem")
    axis.grid(True, which="both", linewidth=0.3)


def _bars(axis: Any, rows: list[dict[str, Any]], colours: dict[str, str]) -> None:
    names = [row["contender"] for row in rows]
    axis.barh(names, [row["median_ms"] for row in rows], color=[colours[name] for name in names], height=0.6)
    for index, row in enumerate(rows):
        share = f"  {row['median_ms']:.3g} ms, {row['ratio']:.2f}x, {row['gbps']:.0f} GB/s"
        axis.annotate(share, (row["median_ms"], index), va="center", fontsize=7.5)
    axis.set_xscale("log")
    low, high = min(row["median_ms"] for row in rows), max(row["median_ms"] for row in rows)
    axis.set_xlim(low / 2, high * 40)
    axis.invert_yaxis()
    axis.set_xlabel("median, ms")

"""The figure of a density search: figures, file size and operations against density."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbs.density.result import Curve
from icbs.formatting import STANDARD_ERROR, is_share, label, metrics
from problems.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"meets": "C2", "misses": "C3", "uncertain": "C1", "unknown": "C0"}


def draw_curve(curve: Curve, path: Path) -> None:
    """Draw the curve of a search into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = curve_figure(curve)
    with atomic(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=120)


def svg_of(curve: Curve) -> bytes:
    """Return the curve of a search as SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    FigureCanvasSVG(curve_figure(curve)).print_figure(buffer, format="svg")
    return buffer.getvalue()


def curve_figure(curve: Curve) -> Figure:
    """Return a figure with a panel for each figure, the target, the file size and the MACs."""
    from matplotlib.figure import Figure

    names = metrics(curve.dense)
    panels = 1 + len(names) + 2
    across = 2 if panels == 4 else 3
    rows = -(-panels // across)
    figure = Figure(figsize=(4.8 * across, 3.8 * rows), layout="constrained")
    axes = iter(figure.subplots(rows, across, squeeze=False).flat)
    _target_panel(next(axes), curve)
    for name in names:
        _metric_panel(next(axes), curve, name)
    _cost_panel(next(axes), curve, "size", curve.dense_size, "compressed file", "B")
    _cost_panel(next(axes), curve, "macs", curve.dense_macs, "nonzero MACs")
    for spare in axes:
        spare.set_axis_off()
    return figure


def _target_panel(axes: Any, curve: Curve) -> None:
    from matplotlib.ticker import FuncFormatter

    kind = curve.target.kind
    scale = 100.0 if kind.metric == "accuracy" else 1.0
    for verdict, colour in _COLOURS.items():
        points = [point for point in curve.points if point.verdict == verdict]
        if not points:
            continue
        values = [scale * point.value for point in points]
        errors = [
            [max(0.0, v - scale * p.low) for v, p in zip(values, points, strict=True)],
            [max(0.0, scale * p.high - v) for v, p in zip(values, points, strict=True)],
        ]
        axes.errorbar(
            [point.density for point in points],
            values,
            yerr=None if verdict == "unknown" else errors,
            fmt="o", ms=4, capsize=3, color=colour, label=verdict,
        )  # fmt: skip
    axes.axhline(scale * curve.target.limit, color="black", lw=1, ls="--", label="target")
    axes.set_ylabel(kind.words + (" (%)" if scale > 1 else ""))
    values = [abs(scale * p.value) for p in curve.points if math.isfinite(p.value)]
    linear = 4 * scale * curve.target.limit
    if kind.relative and linear and max(values, default=0.0) > 4 * linear:
        axes.set_yscale("symlog", linthresh=linear)  # far from the target only the order matters
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _finish(axes)


def _metric_panel(axes: Any, curve: Curve, name: str) -> None:
    scale = 100.0 if is_share(name) else 1.0
    axes.errorbar(
        [point.density for point in curve.points],
        [scale * point.figures.get(name, float("nan")) for point in curve.points],
        yerr=[scale * point.figures.get(name + STANDARD_ERROR, 0.0) for point in curve.points],
        fmt="o-", ms=4, capsize=3, color="C0", label="pruned",
    )  # fmt: skip
    axes.axhline(scale * curve.dense[name], color="black", lw=1, label="dense")
    axes.set_ylabel(label(name) + (" (%)" if scale > 1 else ""))
    _finish(axes)


def _cost_panel(
    axes: Any, curve: Curve, name: str, dense: float, title: str, unit: str = ""
) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.plot(
        [point.density for point in curve.points],
        [getattr(point, name) for point in curve.points],
        marker="o", ms=4, color="C0", label="pruned",
    )  # fmt: skip
    axes.axhline(dense, color="black", lw=1, label="dense")
    axes.set_ylabel(title)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(EngFormatter(unit))
    _finish(axes)


def _finish(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlabel("density")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)

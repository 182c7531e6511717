"""Pictures of a comparison, one a product: where two makes differ, and by how much beside their noise.

This is the only module that knows matplotlib, which is needed for nothing else.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recipes.comparison import EDGES, Comparison, Curve, Map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS = 110  # per inch
_ACROSS = 6  # maps side by side, at most
_WIDTHS = (-5.0, 5.0)  # sigma, of the histograms that are drawn
_COLOURS = "RdBu_r"


def draw_comparison(path: Path, title: str, found: Comparison) -> bool:
    """Draw one product into a PNG file; return False if there is nothing to draw.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    maps = [item for item in found.maps if min(item.values.shape) > 1 and np.isfinite(item.values).any()]
    if maps:
        figure = _of_maps(title, maps)
    elif found.curves:
        figure = _of_curves(title, found.curves)
    else:
        return False
    figure.savefig(path, format="png")
    return True


def _of_maps(title: str, maps: Sequence[Map]) -> "Figure":
    """Return maps of the differences, and their histograms beside a Gaussian of width 1."""
    from matplotlib.figure import Figure

    across = min(len(maps), _ACROSS)
    down = math.ceil(len(maps) / across)
    side = 4.2 if across == 1 else 2.1
    aspect = max(item.values.shape[0] / item.values.shape[1] for item in maps)
    height = max(4.6, down * side * min(aspect, 1.2) + 1.0)
    figure = Figure(figsize=(across * side + 6.4, height), dpi=_DOTS, layout="constrained")
    figure.suptitle(title, fontsize=12)
    grid = figure.add_gridspec(1, 2, width_ratios=(across * side + 1.0, 5.4))
    field, beside = (figure.add_subfigure(grid[column]) for column in (0, 1))
    panels = field.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    limit = _limit(np.concatenate([item.values[np.isfinite(item.values)] for item in maps]))
    image = None
    for axes, item in zip(panels.flat, maps, strict=False):
        rows, columns = (length * item.block for length in item.values.shape)
        image = axes.imshow(
            item.values, origin="lower", cmap=_COLOURS, vmin=-limit, vmax=limit, interpolation="nearest",
            extent=(0.5, columns + 0.5, 0.5, rows + 0.5), aspect="equal",
        )  # fmt: skip
        axes.set_title(f"{_channel(item.channel)}{item.what}", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_facecolor("0.85")
    for axes in panels[-1]:
        axes.set_xlabel("x / pix", fontsize=8)
    for axes in panels[:, 0]:
        axes.set_ylabel("y / pix", fontsize=8)
    for axes in list(panels.flat)[len(maps) :]:
        axes.set_axis_off()
    if image is not None:
        block = maps[0].block
        of = f"mean of {block} × {block} pixels" if block > 1 else "mean along the third axis"
        bar = field.colorbar(image, ax=panels, shrink=0.85, extend="both")
        bar.set_label(f"(ESO's − ours) / sigma, {of}; grey: nothing to compare", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    _histogram(beside.subplots(), maps)
    return figure


def _histogram(axes: "Axes", maps: Sequence[Map]) -> None:
    """Draw how the differences of the single pixels are distributed, beside a Gaussian of width 1."""
    middles, width = (EDGES[1:] + EDGES[:-1]) / 2, EDGES[1] - EDGES[0]
    for item in maps:
        density = item.counts / (item.total * width)
        label = f"{_channel(item.channel)}{item.what}" if len(maps) <= _ACROSS else None
        axes.step(middles, density, where="mid", linewidth=1.2, alpha=0.8 if len(maps) <= _ACROSS else 0.4, label=label)
    gaussian = np.exp(-(middles**2) / 2) / math.sqrt(2 * math.pi)
    axes.plot(middles, gaussian, "k--", linewidth=1.2, label="Gaussian of width 1")
    axes.set_yscale("log")
    axes.set_xlim(*_WIDTHS)
    axes.set_ylim(1e-6, None)
    axes.set_xlabel(
        f"(ESO's − ours) / sigma; sigma: {', '.join(dict.fromkeys(item.sigma for item in maps))}", fontsize=9
    )
    axes.set_ylabel("density of pixels per sigma", fontsize=9)
    axes.set_title(
        "Single pixels. Both are made of the same frames:\nnarrower than the Gaussian is agreement within the noise",
        fontsize=9,
    )
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8, loc="upper right")


def _of_curves(title: str, curves: Sequence[Curve]) -> "Figure":
    """Return a panel for each quantity, with the lines of every slice and channel, and one sigma as a grey band."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(curve.what for curve in curves))
    figure = Figure(figsize=(11, 1.2 + 2.7 * len(names)), dpi=_DOTS, layout="constrained")
    figure.suptitle(title, fontsize=12)
    for axes, name in zip(figure.subplots(len(names), squeeze=False).flat, names, strict=True):
        same = [curve for curve in curves if curve.what == name]
        channels = sorted({curve.channel for curve in same})
        everything = np.concatenate([curve.lines[np.isfinite(curve.lines)].ravel() for curve in same])
        for curve in same:
            alpha = 0.9 if len(curve.lines) == 1 else 0.35
            axes.plot(
                curve.x, curve.lines.T, linewidth=0.8, alpha=alpha, color=f"C{channels.index(curve.channel) % 10}"
            )
        limit = _limit(everything, 99.9)
        first = same[0]
        if first.error is not None:
            axes.fill_between(first.x, -first.error, first.error, color="0.5", alpha=0.25, linewidth=0, zorder=0)
            limit = max(limit, min(1.3 * float(np.nanmedian(first.error)), 4 * limit))
        axes.set_ylim(-1.1 * limit, 1.1 * limit)
        axes.set_xlim(float(first.x.min()), float(first.x.max()))
        axes.axhline(0, color="k", linewidth=0.6)
        axes.set_xlabel(first.axis, fontsize=9)
        axes.set_ylabel(_unit(first.unit), fontsize=9)
        lines = sum(len(curve.lines) for curve in same)
        told = [
            f"{lines} lines" if lines > 1 else "",
            "" if first.error is None else f"grey: 1 sigma, {np.nanmedian(first.error):.2g} ({first.sigma})",
        ]
        axes.set_title(f"{name}: ESO's − ours; {', '.join(filter(None, told))}", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(visible=True, alpha=0.3)
    return figure


def _limit(values: "np.typing.NDArray[np.floating]", percentile: float = 99.5) -> float:
    """Return the end of a symmetric scale that holds nearly all values."""
    return float(np.percentile(np.abs(values), percentile)) or 1e-6 if values.size else 1.0


def _channel(channel: int) -> str:
    return f"channel {channel}, " if channel else ""


def _unit(unit: str) -> str:
    short = "mag" if unit.startswith("2.5*log10") else unit
    return f"difference / {short}" if short else "difference"

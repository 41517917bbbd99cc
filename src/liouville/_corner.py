"""Pictures of each column, and of each pair of columns, of one cloud of rows or two."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ._axes import Scale, num_bins, open_sides, wrapped
from ._mixed_plots import Cloud, draw_margin
from .mixed import Field

# A level has a place of its own where it is one of the most frequent.
MOST_LEVELS = 8


def draw_corner(
    clouds: list[Cloud], scales: list[Scale], names: list[str], marks: Sequence[float] | None = None
) -> Figure:
    """Return a figure with a histogram of each column, and each pair of columns below.

    Parameters
    ----------
    clouds
        Data, samples, or both, of these columns alone.
    scales, names
        How the columns stand on their axes, and what they are called.
    marks
        Where a row stands on the axes that is marked, the truth, or None.
    """
    size = len(scales)
    side = max(1.75 * size + 0.7, 4.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    panels: Any = figure.subplots(size, size, squeeze=False)
    points = _scattered(clouds, scales)
    for i, j in np.ndindex(size, size):
        if j > i:
            panels[i, j].set_axis_off()
            continue
        panels[i, j].set(xlim=scales[j].limits)
        if i == j:
            _diagonal_panel(panels[i, j], scales[i], clouds, i)
        else:
            _pair_panel(panels[i, j], points, clouds, [j, i])
            panels[i, j].set(ylim=scales[i].limits)
        if marks is not None:
            _mark(panels[i, j], marks[j], None if i == j else marks[i])
        _corner_labels(panels[i, j], scales, names, i, j)
    figure.align_labels()
    handles = [Line2D([], [], marker="o", ls="", color=cloud.colour, label=cloud.name) for cloud in clouds]
    if marks is not None:
        handles.append(Line2D([], [], color="black", lw=1.2, label="truth"))
    # The upper right is empty, unless there is one panel.
    place: Any = {"loc": "upper right"} if size > 1 else {"loc": "outside upper right", "ncols": 3}
    figure.legend(handles=handles, frameon=False, fontsize=12, **place)
    return figure


def _mark(axes: Axes, x: float, y: float | None) -> None:
    """Draw lines where the truth is; on the diagonal there is one."""
    axes.axvline(x, color="black", lw=1.2)
    if y is not None:
        axes.axhline(y, color="black", lw=1.2)


def _scattered(clouds: list[Cloud], scales: list[Scale]) -> list[np.ndarray]:
    """Return where the rows of each cloud stand, as many of each."""
    rng, num = np.random.default_rng(0), min(len(cloud.rows) for cloud in clouds)
    pairs = lambda cloud: zip(scales, cloud.rows[:num].T, strict=True)
    return [np.stack([scale.scattered(column, rng) for scale, column in pairs(cloud)], axis=1) for cloud in clouds]


def _diagonal_panel(axes: Axes, scale: Scale, clouds: list[Cloud], i: int) -> None:
    clouds = [of_column(cloud, scale.field, i) for cloud in clouds]
    if not scale.field.column.is_density:
        draw_margin(axes, scale, clouds, i)
        return
    for cloud in clouds:
        # As many as the data bear, for the samples too: what differs is then no matter of bins.
        axes.hist(
            cloud.rows[:, i],
            num_bins(len(clouds[0].rows), 40),
            range=scale.limits,
            density=True,
            histtype="step",
            color=cloud.colour,
            lw=1.5,
        )


def _pair_panel(axes: Axes, points: list[np.ndarray], clouds: list[Cloud], pair: list[int]) -> None:
    # In mixed order: neither cloud is denser than the other, or lies on top of it.
    num = len(points[0])
    colours = np.repeat([cloud.colour for cloud in clouds], num)
    order = np.random.default_rng(0).permutation(len(colours))
    marks = {"s": float(np.clip(4000 / num, 1.5, 9)), "alpha": 0.45, "linewidths": 0, "rasterized": True}
    axes.scatter(*np.concatenate(points)[order][:, pair].T, color=colours[order], **marks)


def _corner_labels(axes: Axes, scales: list[Scale], names: list[str], i: int, j: int) -> None:
    bottom, left = i == len(names) - 1, j == 0 < i
    axes.set(xlabel=wrapped(names[j]) if bottom else "", ylabel=wrapped(names[i]) if left else "")
    scales[j].write(axes.xaxis, 3, is_small=True)
    axes.tick_params(labelsize=8, labelbottom=bottom, labelleft=left)
    axes.tick_params(axis="x", labelrotation=90 if scales[j].turns() else 0)
    if i == j:
        axes.set_yticks([])
        open_sides(axes, left=False)
    else:
        scales[i].write(axes.yaxis, 3, is_small=True)


def of_column(cloud: Cloud, field: Field, place: int) -> Cloud:
    """Return the rows that count in the picture of one column: a missing cell does where it is a value."""
    return cloud if field.column.gaps else cloud._replace(rows=cloud.rows[~np.isnan(cloud.rows[:, place])])

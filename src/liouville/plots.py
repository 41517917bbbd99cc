"""Pictures of a density. Every function returns a Matplotlib figure and shows nothing."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from . import evaluation
from ._defaults import check_time
from ._estimator import has_flow
from ._files import check_writable, replacing
from .data._table import column_names

if TYPE_CHECKING:
    from .estimators import FlowDensity

# Two colours that the colour-blind tell apart (Okabe and Ito), and maps that are as even in grey.
_DATA, _SAMPLES, _QUIET = "#0072B2", "#D55E00", "#6b6b6b"
DENSITY_MAP, _TIME_MAP = "magma", "viridis"
_MOST_COLUMNS = 8
_MOST_POINTS = 4000
# The map ends this far below its top: what is rarer than one in 160,000 needs no colours.
DEPTH = 12.0
FORMATS = ("png", "pdf", "svg")
_PATHS_OF_FIELD = 500


def plot_density(estimator: "FlowDensity", data: np.ndarray | None = None, num: int = 160) -> Figure:
    """Draw a density of one or two columns: a curve over a histogram, or data, samples and a map.

    Parameters
    ----------
    estimator
        A fitted density of one or two columns.
    data
        Rows of shape ``(n, d)`` to draw beside it, or None.
    num
        Points per axis of the map; the curve has four times as many.

    Returns
    -------
    Figure
        Densities of the curve per unit of the column; log-densities of the map in nats.

    Raises
    ------
    ValueError
        Where there are more than two columns.
    """
    if estimator.n_features_in_ > 2:
        raise ValueError(f"Expected one or two columns, got {estimator.n_features_in_}; try a corner plot.")
    return (_curve if estimator.n_features_in_ == 1 else _map)(estimator, data, num)


def _curve(estimator: "FlowDensity", data: np.ndarray | None, num: int) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    name, rows, colour = _clouds(estimator, data)[0]
    low, high = _range(rows[:, 0])
    grid = np.linspace(low, high, 4 * num)
    axes.hist(
        rows[:, 0], bins=_num_bins(len(rows), 80), range=(low, high), density=True, color=colour, alpha=0.3, label=name
    )
    axes.plot(
        grid,
        np.exp(_log_prob(estimator, grid[:, None])),
        color=_SAMPLES,
        lw=2,
        label="density",
    )
    axes.set(xlabel=column_names(estimator)[0], ylabel="density", xlim=(low, high))
    axes.legend(frameon=False)
    _open(axes)
    return figure


def _map(estimator: "FlowDensity", data: np.ndarray | None, num: int) -> Figure:
    clouds, names = _clouds(estimator, data), column_names(estimator)
    ranges = [_range(column) for column in clouds[0][1].T]
    figure = Figure(figsize=(3.7 * (len(clouds) + 1) + 0.8, 3.9), layout="constrained")
    panels = figure.subplots(1, len(clouds) + 1, sharex=True, sharey=True)
    for axes, (name, rows, colour) in zip(panels, clouds, strict=False):
        axes.scatter(*rows[:_MOST_POINTS].T, s=3, alpha=0.35, color=colour, linewidths=0, rasterized=True)
        axes.set_title(name)
    x, y, log_prob = _on_grid(estimator, ranges, num)
    top = np.nanmax(log_prob)
    # What could not be solved stays grey: it is neither dense nor empty.
    panels[-1].set(title="log-density", facecolor="0.7")
    image = panels[-1].imshow(
        log_prob,
        origin="lower",
        extent=(x[0], x[-1], y[0], y[-1]),
        aspect="auto",
        interpolation="bilinear",
        cmap=DENSITY_MAP,
        vmin=top - DEPTH,
        vmax=top,
    )
    figure.colorbar(image, ax=panels[-1], label="log-density (nats)", extend="min")
    for axes in panels:
        axes.set(xlim=ranges[0], ylim=ranges[1], xlabel=names[0], box_aspect=1)
    panels[0].set_ylabel(names[1])
    return figure


def _on_grid(estimator: "FlowDensity", ranges: list[tuple[float, float]], num: int):
    x, y = (np.linspace(low, high, num) for low, high in ranges)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return x, y, _log_prob(estimator, grid).reshape(num, num)


def _log_prob(estimator: "FlowDensity", rows: np.ndarray) -> np.ndarray:
    log_prob, info = evaluation.score(estimator.flow_, rows)
    evaluation.warn_of_failures(info)
    return log_prob


def plot_corner(
    estimator: "FlowDensity", data: np.ndarray | None = None, columns: Sequence[str] | None = None
) -> Figure:
    """Draw samples against data: a histogram of each column, and each pair of columns.

    Parameters
    ----------
    estimator
        A fitted density.
    data
        Rows of shape ``(n, d)`` to draw with the samples, or None.
    columns
        Names of the columns to draw; the first eight where left out.

    Raises
    ------
    ValueError
        Where a name is none of the density's columns, or there are more than eight.
    """
    names = column_names(estimator)
    chosen = _chosen(names, columns)
    size, clouds = len(chosen), _clouds(estimator, data)
    clouds = [(name, rows[:_MOST_POINTS, chosen], colour) for name, rows, colour in clouds]
    ranges = [_range(column) for column in clouds[0][1].T]
    side = max(1.75 * size + 0.7, 4.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    panels: Any = figure.subplots(size, size, squeeze=False)
    for i, j in np.ndindex(size, size):
        if j > i:
            panels[i, j].set_axis_off()
            continue
        _corner_panel(panels[i, j], clouds, ranges, i, j)
        _corner_labels(panels[i, j], [names[k] for k in chosen], i, j)
    figure.align_labels()
    handles = [Line2D([], [], marker="o", ls="", color=colour, label=name) for name, _, colour in clouds]
    # The upper right is empty, unless there is one panel.
    place: Any = {"loc": "upper right"} if size > 1 else {"loc": "outside upper right", "ncols": 2}
    figure.legend(handles=handles, frameon=False, fontsize=12, **place)
    return figure


def _chosen(names: list[str], columns: Sequence[str] | None) -> list[int]:
    if columns is None:
        return list(range(min(len(names), _MOST_COLUMNS)))
    unknown = [name for name in columns if name not in names]
    if unknown or not 1 <= len(columns) <= _MOST_COLUMNS:
        raise ValueError(f"Expected 1 to {_MOST_COLUMNS} columns among {names}, got {list(columns)}; try {names[:2]}.")
    return [names.index(name) for name in columns]


def _corner_panel(axes: Axes, clouds: list, ranges: list, i: int, j: int) -> None:
    axes.set(xlim=ranges[j])
    if i == j:
        for _, rows, colour in clouds:
            # As many as the data bear, for the samples too: what differs is then no matter of bins.
            axes.hist(
                rows[:, i],
                _num_bins(len(clouds[0][1]), 40),
                range=ranges[i],
                density=True,
                histtype="step",
                color=colour,
                lw=1.5,
            )
        return
    # As many of each, in mixed order: neither cloud is denser than the other, or lies on top of it.
    num = min(len(rows) for _, rows, _ in clouds)
    points = np.concatenate([rows[:num, [j, i]] for _, rows, _ in clouds])
    colours = np.repeat([colour for _, _, colour in clouds], num)
    order = np.random.default_rng(0).permutation(len(points))
    marks = {"s": float(np.clip(4000 / num, 1.5, 9)), "alpha": 0.45, "linewidths": 0, "rasterized": True}
    axes.scatter(*points[order].T, color=colours[order], **marks)
    axes.set(ylim=ranges[i])


def _corner_labels(axes: Axes, names: list[str], i: int, j: int) -> None:
    bottom, left = i == len(names) - 1, j == 0 < i
    axes.set(xlabel=_wrapped(names[j]) if bottom else "", ylabel=_wrapped(names[i]) if left else "")
    axes.tick_params(labelsize=8, labelbottom=bottom, labelleft=left)
    axes.locator_params(nbins=3, axis="x")
    axes.locator_params(nbins=3, axis="y")
    if i == j:
        axes.set_yticks([])
        _open(axes, left=False)


def plot_trajectories(estimator: "FlowDensity", num: int = 300, num_times: int = 60) -> Figure:
    """Draw the paths of samples from base to data: one column against time, or the first two columns.

    Parameters
    ----------
    estimator
        A fitted density.
    num, num_times
        Number of paths, and of points on each.
    """
    has_flow(estimator)
    paths = evaluation.paths(estimator.flow_, _finite(estimator._draw(num, 0)), num_times)
    times, names = np.linspace(0, 1, num_times), column_names(estimator)
    if estimator.n_features_in_ == 1:
        paths = np.stack([np.broadcast_to(times[:, None], paths.shape[:2]), paths[..., 0]], axis=-1)
        names = ["time t", names[0]]
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    lines = _coloured_by_time(paths[..., :2], times)
    axes.add_collection(lines)
    for mark, colour, points, label in (
        ("o", "0.15", paths[0], "base, t = 0"),
        ("o", _SAMPLES, paths[-1], "data, t = 1"),
    ):
        axes.scatter(*points[:, :2].T, s=10, marker=mark, color=colour, linewidths=0, zorder=3, label=label)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.margins(0.04)
    _open(axes)
    # A bar of its own: that of the lines would be as pale as they are.
    figure.colorbar(ScalarMappable(lines.norm, _TIME_MAP), ax=axes, label="time t, from base to data")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, markerscale=2)
    return figure


def plot_field(estimator: "FlowDensity", time: float = 0.5, num: int = 40) -> Figure:
    """Draw the vector field: streamlines over its speed, of two columns at one time, of one column over time.

    Parameters
    ----------
    estimator
        A fitted density of one or two columns.
    time
        Time of the flow, from 0 (base) to 1 (data); of one column all times are drawn.
    num
        Points per axis at which the field is evaluated.

    Returns
    -------
    Figure
        Speeds in units of the columns per unit of the flow's time.

    Raises
    ------
    ValueError
        Where there are more than two columns, or the time is none of the flow's.
    TypeError
        Where the flow has no vector field.
    """
    check_time(time)
    if estimator.n_features_in_ > 2:
        raise ValueError(f"Expected one or two columns, got {estimator.n_features_in_}; try plot_trajectories.")
    has_flow(estimator)
    rows, names = _finite(estimator._draw(_PATHS_OF_FIELD, 0)), column_names(estimator)
    # Where the paths are: they begin in the base, which may lie elsewhere.
    paths = evaluation.paths(estimator.flow_, rows, 9)
    if estimator.n_features_in_ == 1:
        x, y, velocity = _field_over_time(estimator.flow_, _range(paths.ravel()), num)
        labels, where = ["time t", names[0]], ""
    else:
        seen = paths[round(8 * time)]
        x, y, velocity = _field_at(estimator.flow_, time, [_range(column) for column in seen.T], num)
        labels, where = names, f" at t = {time:g}"
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    image = draw_streamlines(axes, x, y, velocity)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=f"vector field{where}")
    figure.colorbar(image, ax=axes, label="speed (units per unit of flow time)")
    return figure


def draw_streamlines(axes: Axes, x: np.ndarray, y: np.ndarray, velocity: np.ndarray) -> AxesImage:
    """Draw the streamlines of a field over its speed, and return the image of the speed.

    Parameters
    ----------
    axes
        Where they are drawn.
    x, y
        Equally spaced coordinates of the columns and rows of a grid.
    velocity
        Velocities of shape ``(rows, columns, 2)``. Where the first is one everywhere, as along an axis of time, it is
        no part of the speed.
    """
    along_time = np.all(velocity[..., 0] == 1)
    speed = np.abs(velocity[..., 1]) if along_time else np.linalg.norm(velocity, axis=-1)
    extent = (x[0], x[-1], y[0], y[-1])
    style: dict[str, Any] = {"origin": "lower", "extent": extent, "aspect": "auto", "interpolation": "bilinear"}
    image = axes.imshow(speed, cmap=_TIME_MAP, vmin=0, **style)
    axes.streamplot(x, y, *np.moveaxis(velocity, -1, 0), color="white", linewidth=0.9, arrowsize=0.9, density=1.2)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    return image


def _field_at(flow, time: float, ranges: list[tuple[float, float]], num: int):
    x, y = (np.linspace(low, high, num) for low, high in ranges)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    return x, y, evaluation.velocity(flow, grid.reshape(-1, 2), time).reshape(num, num, 2)


def _field_over_time(flow, limits: tuple[float, float], num: int):
    times, y = np.linspace(0, 1, num), np.linspace(*limits, num)
    velocity = np.stack([evaluation.velocity(flow, y[:, None], t)[:, 0] for t in times], axis=1)
    return times, y, np.stack([np.ones_like(velocity), velocity], axis=-1)


def _coloured_by_time(paths: np.ndarray, times: np.ndarray) -> LineCollection:
    """Return paths of shape ``(times, rows, 2)`` as short lines, each of the colour of its time."""
    pieces = np.stack([paths[:-1], paths[1:]], axis=2)
    middles = np.repeat((times[1:] + times[:-1]) / 2, paths.shape[1])
    lines = LineCollection(list(pieces.reshape(-1, 2, 2)), cmap=_TIME_MAP, lw=0.7, alpha=0.5, rasterized=True)
    lines.set_array(middles)
    lines.set_clim(0, 1)
    return lines


def plot_training(history: dict[str, list], against: str = "seconds") -> Figure:
    """Draw the validation NLL, or bits per dimension, the least of it marked, over the training loss.

    Parameters
    ----------
    history
        The attribute ``history_`` of a fitted density.
    against
        ``"seconds"`` or ``"step"``.

    Raises
    ------
    ValueError
        Where `against` is neither.
    """
    if against not in ("seconds", "step"):
        raise ValueError(f"Expected against among ['seconds', 'step'], got {against!r}; try 'seconds'.")
    measure = "bits_per_dim" if "bits_per_dim" in history else "nll"
    x, loss, nll = (np.asarray(history[name], float) for name in (against, "loss", measure))
    figure = Figure(figsize=(7, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    validated, trained = np.isfinite(nll), np.isfinite(loss)
    upper.plot(x[validated], nll[validated], "o-", color=_SAMPLES, lw=2, ms=5)
    if validated.any():
        best = np.flatnonzero(validated)[np.argmin(nll[validated])]
        upper.axhline(nll[best], color=_QUIET, lw=0.8, ls=":")
        upper.annotate(
            f"best: {nll[best]:.3f}", (x[best], nll[best]), (0, 8), textcoords="offset points", ha="right", color=_QUIET
        )
    lower.plot(x[trained], loss[trained], color=_DATA, lw=1.2)
    upper.set_ylabel("validation NLL (nats)" if measure == "nll" else "validation bits/dim")
    lower.set(ylabel="training loss", xlabel="training step" if against == "step" else "seconds")
    figure.align_ylabels()
    for axes in (upper, lower):
        _open(axes)
        axes.grid(axis="y", color="0.92")
    return figure


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure to a PNG, PDF or SVG file, all or nothing.

    Parameters
    ----------
    figure
        The figure.
    path
        The file; its suffix says the format.

    Raises
    ------
    ValueError
        Where the suffix is none of these.
    """
    check_format(path)
    with replacing(path) as file:
        figure.savefig(file, format=Path(path).suffix.lower().lstrip("."), dpi=150)


def check_format(path: str | os.PathLike) -> None:
    """Raise ``ValueError`` or ``OSError`` for a file that a figure cannot be written to, before it is drawn."""
    path = Path(path)
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise ValueError(f"Expected a file that ends in .png, .pdf or .svg, got {path}; try {path.stem}.png.")
    check_writable(path)


def _clouds(estimator: "FlowDensity", data: np.ndarray | None) -> list[tuple[str, np.ndarray, str]]:
    """Return what there is to draw, data first, each with its name and colour."""
    samples = ("samples", _finite(estimator._draw(_MOST_POINTS, 0)), _SAMPLES)
    return [samples] if data is None else [("data", estimator._check(data), _DATA), samples]


def _finite(rows: np.ndarray) -> np.ndarray:
    return rows[np.isfinite(rows).all(axis=1)]


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return a range that holds nearly all values, so that a few far ones do not squeeze the rest."""
    low, high = np.quantile(values, [0.002, 0.998])
    margin = 0.12 * (high - low)
    return low - margin, high + margin


def _open(axes: Axes, left: bool = True) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["left"].set_visible(left)


def _num_bins(rows: int, most: int) -> int:
    """Return as many bins as rows bear: bars of a handful of rows show noise, not shape."""
    return int(np.clip(np.sqrt(rows), 8, most))


def _wrapped(name: str) -> str:
    return name if len(name) <= 16 else "\n".join(textwrap.wrap(name.replace("_", " "), 16)[:3])

"""Pictures of a density. Every function returns a Matplotlib figure and shows nothing."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from . import evaluation
from ._axes import DATA, QUIET, SAMPLES, num_bins, open_sides, range_of, scale_of
from ._conditional_plots import plot_calibration as plot_calibration
from ._conditional_plots import plot_fan as plot_fan
from ._conditional_plots import plot_pit as plot_pit
from ._conditional_plots import plot_posterior as plot_posterior
from ._corner import MOST_LEVELS, draw_corner, of_column
from ._defaults import check_time
from ._files import check_writable, replacing
from ._mixed_plots import Cloud, draw_column
from ._tables import has_flow
from .data._table import column_names

if TYPE_CHECKING:
    from .estimators import FlowDensity

# Maps that are as even in grey.
DENSITY_MAP, _TIME_MAP = "magma", "viridis"
_MOST_COLUMNS = 8
_MOST_POINTS = 4000
# The map ends this far below its top: what is rarer than one in 160,000 needs no colours.
DEPTH = 12.0
FORMATS = ("png", "pdf", "svg")
_PATHS_OF_FIELD = 500


def plot_density(estimator: "FlowDensity", data: np.ndarray | None = None, num: int = 160) -> Figure:
    """Draw a density of one or two columns: a curve over a histogram, or data, samples and a map.

    Levels and whole numbers are drawn by their probabilities, beside the shares of the data: of more than 20 levels the
    most frequent, of more than 200 numbers a line over a histogram. An amount with atoms is a curve of what is off
    them, whose area is its share, and stems: those of the atoms, on an axis of their own.

    Parameters
    ----------
    estimator
        A fitted density of one or two columns; of two both are continuous, without atoms.
    data
        Rows of shape ``(n, d)``, or a frame like that of the fit, to draw beside it, or None.
    num
        Points per axis of the map; the curve has four times as many.

    Returns
    -------
    Figure
        Densities of the curve per unit of the column; log-densities of the map in nats.

    Raises
    ------
    ValueError
        Where there are more than two columns, or one of two has masses.
    """
    if estimator.n_features_in_ > 2:
        raise ValueError(f"Expected one or two columns, got {estimator.n_features_in_}; try a corner plot.")
    if estimator.columns_.is_mixed:
        return _of_masses(estimator, data, num)
    return (_curve if estimator.n_features_in_ == 1 else _map)(estimator, data, num)


def _of_masses(estimator: "FlowDensity", data: np.ndarray | None, num: int) -> Figure:
    fields, names = estimator.columns_.fields, column_names(estimator)
    if estimator.n_features_in_ > 1:
        said = " and ".join(f"{name!r} ({field.why})" for name, field in zip(names, fields, strict=True))
        raise ValueError(f"Expected one column, or two that are continuous, got {said}; try a corner plot.")
    figure = Figure(figsize=(7, 4), layout="constrained")
    probability = lambda values: np.exp(_log_prob(estimator, values[:, None]))
    cloud = of_column(_clouds(estimator, data)[0], fields[0], 0)
    draw_column(figure, fields[0], names[0], cloud, probability, num)
    return figure


def _curve(estimator: "FlowDensity", data: np.ndarray | None, num: int) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    name, rows, colour = of_column(_clouds(estimator, data)[0], estimator.columns_.fields[0], 0)
    low, high = range_of(rows[:, 0])
    grid = np.linspace(low, high, 4 * num)
    axes.hist(
        rows[:, 0], bins=num_bins(len(rows), 80), range=(low, high), density=True, color=colour, alpha=0.3, label=name
    )
    axes.plot(
        grid,
        np.exp(_log_prob(estimator, grid[:, None])),
        color=SAMPLES,
        lw=2,
        label="density",
    )
    axes.set(xlabel=column_names(estimator)[0], ylabel="density", xlim=(low, high))
    axes.legend(frameon=False)
    open_sides(axes)
    return figure


def _map(estimator: "FlowDensity", data: np.ndarray | None, num: int) -> Figure:
    clouds, names = _clouds(estimator, data), column_names(estimator)
    ranges = [range_of(column[~np.isnan(column)]) for column in clouds[0][1].T]
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

    Missing cells are left out, but where they are values of their own (``missing="model"``): then they count among the
    rows of which shares are drawn. Levels and a few whole numbers have bars side by side. Atoms are stems beside their
    histogram: a share of the panel's height, the largest with its number. Off the diagonal levels and whole numbers are
    moved by up to 0.3 of a step, lest they hide each other. Of more than 8 levels the least frequent are together.

    Parameters
    ----------
    estimator
        A fitted density.
    data
        Rows of shape ``(n, d)``, or a frame like that of the fit, to draw with the samples, or None. Of more than 4000
        as many are drawn: the first, or of several kinds of columns, where dates may be in order, any.
    columns
        Names of the columns to draw; the first eight where left out.

    Raises
    ------
    ValueError
        Where a name is none of the density's columns, or there are more than eight.
    """
    names = column_names(estimator)
    chosen = _chosen(names, columns)
    clouds = _few(_clouds(estimator, data), estimator.columns_.is_mixed)
    clouds = [cloud._replace(rows=cloud.rows[:, chosen]) for cloud in clouds]
    fields = [estimator.columns_.fields[k] for k in chosen]
    scales = [scale_of(*pair, MOST_LEVELS) for pair in zip(fields, clouds[0].rows.T, strict=True)]
    return draw_corner(clouds, scales, [names[k] for k in chosen])


def _few(clouds: list[Cloud], is_mixed: bool) -> list[Cloud]:
    """Return no more rows than are drawn."""
    if not is_mixed:
        return [cloud._replace(rows=cloud.rows[:_MOST_POINTS]) for cloud in clouds]
    rng = np.random.default_rng(0)
    return [cloud._replace(rows=rng.permutation(cloud.rows)[:_MOST_POINTS]) for cloud in clouds]


def _chosen(names: list[str], columns: Sequence[str] | None) -> list[int]:
    if columns is None:
        return list(range(min(len(names), _MOST_COLUMNS)))
    unknown = [name for name in columns if name not in names]
    if unknown or not 1 <= len(columns) <= _MOST_COLUMNS:
        raise ValueError(f"Expected 1 to {_MOST_COLUMNS} columns among {names}, got {list(columns)}; try {names[:2]}.")
    return [names.index(name) for name in columns]


def plot_trajectories(estimator: "FlowDensity", num: int = 300, num_times: int = 60) -> Figure:
    """Draw the paths of samples from base to data: one column against time, or the first two columns.

    Parameters
    ----------
    estimator
        A fitted density.
    num, num_times
        Number of paths, and of points on each.

    Raises
    ------
    AttributeError
        Where a column has masses: levels, whole numbers or atoms are no images of points of a base.
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
        ("o", SAMPLES, paths[-1], "data, t = 1"),
    ):
        axes.scatter(*points[:, :2].T, s=10, marker=mark, color=colour, linewidths=0, zorder=3, label=label)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.margins(0.04)
    open_sides(axes)
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
    AttributeError
        Where a column has masses: levels, whole numbers or atoms are no images of points of a base.
    """
    check_time(time)
    has_flow(estimator)
    if estimator.n_features_in_ > 2:
        raise ValueError(f"Expected one or two columns, got {estimator.n_features_in_}; try plot_trajectories.")
    rows, names = _finite(estimator._draw(_PATHS_OF_FIELD, 0)), column_names(estimator)
    # Where the paths are: they begin in the base, which may lie elsewhere.
    paths = evaluation.paths(estimator.flow_, rows, 9)
    if estimator.n_features_in_ == 1:
        x, y, velocity = _field_over_time(estimator.flow_, range_of(paths.ravel()), num)
        labels, where = ["time t", names[0]], ""
    else:
        seen = paths[round(8 * time)]
        x, y, velocity = _field_at(estimator.flow_, time, [range_of(column) for column in seen.T], num)
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
    upper.plot(x[validated], nll[validated], "o-", color=SAMPLES, lw=2, ms=5)
    if validated.any():
        best = np.flatnonzero(validated)[np.argmin(nll[validated])]
        upper.axhline(nll[best], color=QUIET, lw=0.8, ls=":")
        upper.annotate(
            f"best: {nll[best]:.3f}", (x[best], nll[best]), (0, 8), textcoords="offset points", ha="right", color=QUIET
        )
    lower.plot(x[trained], loss[trained], color=DATA, lw=1.2)
    upper.set_ylabel("validation NLL (nats)" if measure == "nll" else "validation bits/dim")
    lower.set(ylabel="training loss", xlabel="training step" if against == "step" else "seconds")
    figure.align_ylabels()
    for axes in (upper, lower):
        open_sides(axes)
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


def _clouds(estimator: "FlowDensity", data: np.ndarray | None) -> list[Cloud]:
    """Return what there is to draw, data first, each with its name and colour."""
    drawn = estimator._draw(_MOST_POINTS, 0)
    has_gaps = any(column.gaps for column in estimator.columns_.columns)
    samples = Cloud("samples", drawn if has_gaps else _finite(drawn), SAMPLES)
    return [samples] if data is None else [Cloud("data", estimator._check(data), DATA), samples]


def _finite(rows: np.ndarray) -> np.ndarray:
    return rows[np.isfinite(rows).all(axis=1)]

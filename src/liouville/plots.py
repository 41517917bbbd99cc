"""Pictures of a density. Every function returns a Matplotlib figure and shows nothing."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from .estimators import FlowDensity

DATA, MODEL, BASE = "#3b6ea5", "#d1622b", "#8a8a8a"
MAP = "magma"
MOST_COLUMNS = 6
MOST_POINTS = 4000


def plot_density(estimator: "FlowDensity", data: np.ndarray | None = None, num: int = 160) -> Figure:
    """Draw a density on one or two columns: a curve over a histogram, or data, samples and the map.

    Parameters
    ----------
    estimator
        A fitted density of one or two columns.
    data
        Rows to draw beside it, or None.
    num
        Points per axis.

    Raises
    ------
    ValueError
        Where there are more than two columns.
    """
    if estimator.n_features_in_ == 1:
        return _curve(estimator, data, num)
    if estimator.n_features_in_ == 2:
        return _map(estimator, data, num)
    raise ValueError(f"Expected one or two columns, got {estimator.n_features_in_}; try plot_corner.")


def _curve(estimator: "FlowDensity", data: np.ndarray | None, num: int) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rows = estimator.sample(MOST_POINTS, random_state=0) if data is None else data
    low, high = _range(rows[:, 0])
    grid = np.linspace(low, high, 4 * num)
    axes.hist(rows[:, 0], bins=80, range=(low, high), density=True, color=BASE, alpha=0.4, label=_name_of(data))
    axes.plot(grid, np.exp(estimator.score_samples(grid[:, None])), color=MODEL, lw=2, label="density")
    axes.set(xlabel=column_names(estimator)[0], ylabel="density", xlim=(low, high))
    axes.legend(frameon=False)
    return figure


def _map(estimator: "FlowDensity", data: np.ndarray | None, num: int) -> Figure:
    samples = estimator.sample(MOST_POINTS, random_state=0)
    clouds = {"samples": (samples, MODEL)} if data is None else {"data": (data, DATA), "samples": (samples, MODEL)}
    figure = Figure(figsize=(4.2 * (len(clouds) + 1) + 0.6, 4.2), layout="constrained")
    panels = figure.subplots(1, len(clouds) + 1, sharex=True, sharey=True)
    reference = samples if data is None else data
    ranges = [_range(column) for column in reference.T[:2]]
    x, y = (np.linspace(low, high, num) for low, high in ranges)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    log_prob = estimator.score_samples(grid).reshape(num, num)
    for axes, (name, (rows, colour)) in zip(panels, clouds.items(), strict=False):
        rows = rows[:MOST_POINTS]
        axes.scatter(rows[:, 0], rows[:, 1], s=2, alpha=0.4, color=colour, linewidths=0, rasterized=True)
        axes.set_title(name)
    top = np.nanmax(log_prob)
    image = panels[-1].pcolormesh(x, y, log_prob, cmap=MAP, vmin=top - 12, vmax=top, shading="gouraud", rasterized=True)
    figure.colorbar(image, ax=panels[-1], label="log-density (nats)", extend="min")
    panels[-1].set_title("density")
    for axes in panels:
        axes.set(xlim=ranges[0], ylim=ranges[1], xlabel=column_names(estimator)[0])
    panels[0].set_ylabel(column_names(estimator)[1])
    return figure


def plot_corner(estimator: "FlowDensity", data: np.ndarray | None = None) -> Figure:
    """Draw each column, and each pair of columns, of samples against data; at most the first six columns.

    Parameters
    ----------
    estimator
        A fitted density of two or more columns.
    data
        Rows to draw beside the samples, or None.
    """
    size = min(estimator.n_features_in_, MOST_COLUMNS)
    samples = estimator.sample(MOST_POINTS, random_state=0)
    clouds = [("samples", samples, MODEL)] if data is None else [("data", data[:MOST_POINTS], DATA), ("samples", samples, MODEL)]
    ranges = [_range(clouds[0][1][:, j]) for j in range(size)]
    names = column_names(estimator)
    figure = Figure(figsize=(1.7 * size + 0.6, 1.7 * size + 0.6), layout="constrained")
    panels = figure.subplots(size, size, sharex="col", squeeze=False)
    for i in range(size):
        for j in range(size):
            axes = panels[i, j]
            if j > i:
                axes.set_axis_off()
                continue
            _corner_panel(axes, clouds, ranges, i, j)
            axes.set(xlim=ranges[j], xlabel=names[j] if i == size - 1 else "", ylabel=names[i] if j == 0 < i else "")
            axes.tick_params(labelsize=7, labelleft=j == 0 < i)
            if i == size - 1:
                axes.tick_params(axis="x", labelrotation=45)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", frameon=False)
    return figure


def _corner_panel(axes, clouds: list, ranges: list, i: int, j: int) -> None:
    for name, rows, colour in clouds:
        if i == j:
            axes.hist(rows[:, i], bins=40, range=ranges[i], density=True, histtype="step", color=colour, lw=1.5, label=name)
            axes.set_yticks([])
        else:
            axes.scatter(rows[:, j], rows[:, i], s=1.5, alpha=0.25, color=colour, linewidths=0, rasterized=True)
            axes.set_ylim(ranges[i])


def plot_trajectories(estimator: "FlowDensity", num: int = 300, num_times: int = 60) -> Figure:
    """Draw the paths of samples from base to data: in the first two columns, or one column against time.

    Parameters
    ----------
    estimator
        A fitted density.
    num, num_times
        Number of paths, and of points on each.
    """
    paths = estimator.trajectory(estimator.sample(num, random_state=0), num_times=num_times)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    names = column_names(estimator)
    if estimator.n_features_in_ == 1:
        times = np.linspace(0, 1, num_times)
        axes.plot(times, paths[:, :, 0], color=BASE, lw=0.5, alpha=0.4)
        start, end = (np.zeros(num), paths[0, :, 0]), (np.ones(num), paths[-1, :, 0])
        axes.set(xlabel="time", ylabel=names[0])
    else:
        axes.plot(paths[:, :, 0], paths[:, :, 1], color=BASE, lw=0.5, alpha=0.4)
        start, end = paths[0, :, :2].T, paths[-1, :, :2].T
        axes.set(xlabel=names[0], ylabel=names[1])
    axes.scatter(*start, s=9, color="black", linewidths=0, zorder=3, label="base, t = 0")
    axes.scatter(*end, s=9, color=MODEL, linewidths=0, zorder=3, label="data, t = 1")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def plot_training(history: dict[str, list]) -> Figure:
    """Draw the training loss and the validation NLL against seconds.

    Parameters
    ----------
    history
        The attribute ``history_`` of a fitted density.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    seconds, loss, nll = (np.asarray(history[name], float) for name in ("seconds", "loss", "nll"))
    validated = np.isfinite(nll)
    axes.plot(seconds[validated], nll[validated], "o-", color=MODEL, lw=2, ms=4)
    axes.set_xlabel("seconds")
    axes.set_ylabel("validation NLL (nats)", color=MODEL)
    right = axes.twinx()
    right.plot(seconds, loss, color=DATA, lw=1)
    right.set_ylabel("training loss", color=DATA)
    return figure


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure to a PNG, PDF or SVG file, all or nothing.

    Parameters
    ----------
    figure
        The figure.
    path
        The file; its suffix says the format.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "pdf", "svg"):
        raise ValueError(f"Expected a file that ends in .png, .pdf or .svg, got {path}; try {path.stem}.png.")
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            figure.savefig(file, format=kind, dpi=150)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def column_names(estimator: "FlowDensity") -> list[str]:
    """Return the names of a density's columns, made up where the table had none."""
    names = getattr(estimator, "feature_names_in_", None)
    return [f"x{j}" for j in range(estimator.n_features_in_)] if names is None else [str(name) for name in names]


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return a range that holds nearly all values, so that a few far ones do not squeeze the rest."""
    low, high = np.nanquantile(values, [0.002, 0.998])
    margin = 0.12 * (high - low)
    return low - margin, high + margin


def _name_of(data: np.ndarray | None) -> str:
    return "samples" if data is None else "data"

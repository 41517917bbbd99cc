"""Pictures of targets given rows: fans of quantiles, draws beside the truth, and calibration."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binom

from ._axes import DATA, QUIET, SAMPLES, num_bins, open_sides, scale_of
from ._corner import MOST_LEVELS, draw_corner
from ._defaults import check_count
from ._mixed_plots import Cloud
from ._tables import check_rows
from .calibration import Uniformity, check_level
from .data._table import column_names

if TYPE_CHECKING:
    from .conditional_density import ConditionalFlowDensity

# Quantiles whose bands hold 90 % and 50 %, around the median, and how pale the bands are.
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PALE, _LESS_PALE = 0.22, 0.4
_MOST_PLACES, _MOST_POINTS = 160, 4000
# Curves of several columns, beside each other (Okabe and Ito).
_COLOURS = (DATA, SAMPLES, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def plot_fan(density: "ConditionalFlowDensity", X, column, y=None, row: int = 0) -> Figure:
    """Draw quantiles of one target against one column, the other columns as they are in one row.

    Bands hold 50 and 90 % of the target; levels of a category have bars.

    Parameters
    ----------
    density
        A fitted density of one target that is a number.
    X
        Rows, as `fit` takes them: the column is drawn over the range that it has in them.
    column
        Name of the column; of an array its number.
    y
        Targets of these rows, which are drawn behind the bands, or None. Their other columns are not those of the row.
    row
        Number of the row whose other columns are kept.

    Raises
    ------
    ValueError
        Where the column is none of the density's, or the row none of the table's.
    TypeError
        Where there are several targets, or one of text.
    """
    rows, names = check_rows(X, density), [str(field.name) for field in density.columns_.fields]
    if str(column) not in names:
        raise ValueError(f"Expected a column of the density, got {column!r}; try one of {names[:MOST_LEVELS]}.")
    if not -len(rows) <= row < len(rows):
        raise ValueError(f"Expected the number of one of {len(rows)} rows, got {row}; try 0.")
    j, target = names.index(str(column)), _target_names(density)[0]
    scale = scale_of(density.columns_.fields[j], rows[:, j], MOST_LEVELS, has_others=False)
    kind = scale.field.column.kind
    values = np.array(scale.levels, float) if kind == "code" else scale.inside(_MOST_PLACES)
    values = scale.numbers(_MOST_PLACES) if kind == "whole" else values
    asked = np.repeat(rows[[row]], len(values), axis=0)
    asked[:, j] = values
    bands = density._law(density.conditions_(asked), "plot_fan").quantiles(np.array(_QUANTILES)).T
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    if y is not None:
        points, truths = scale.scattered(rows[:, j], np.random.default_rng(0)), density._numbers_of(X, y)
        look: dict[str, Any] = {"s": 5, "alpha": 0.35, "linewidths": 0, "rasterized": True}
        axes.scatter(points[:_MOST_POINTS], truths[:_MOST_POINTS], color=DATA, label="data", zorder=1, **look)
    _draw_bands(axes, scale.places(values), bands, kind == "code")
    axes.set(xlim=scale.limits, xlabel=column_names(density)[j], ylabel=target)
    scale.write(axes.xaxis, 8)
    open_sides(axes)
    figure.legend(loc="outside upper right", ncols=4, frameon=False, markerscale=3)
    return figure


def _draw_bands(axes: Axes, places: np.ndarray, bands: np.ndarray, are_bars: bool) -> None:
    """Draw five quantiles at places: bands over a line of places, or bars."""
    lowest, low, median, high, highest = bands
    for bottom, top, alpha, label in ((lowest, highest, _PALE, "90 %"), (low, high, _LESS_PALE, "50 %")):
        look: dict[str, Any] = {"color": SAMPLES, "alpha": alpha, "linewidth": 0, "label": label, "zorder": 2}
        if are_bars:
            axes.bar(places, top - bottom, 0.5, bottom, **look)
        else:
            axes.fill_between(places, bottom, top, **look)
    if are_bars:
        axes.hlines(median, places - 0.25, places + 0.25, color=SAMPLES, lw=2, label="median", zorder=3)
    else:
        axes.plot(places, median, color=SAMPLES, lw=2, label="median", zorder=3)


def plot_posterior(density: "ConditionalFlowDensity", observation, truth=None, num: int = _MOST_POINTS) -> Figure:
    """Draw the targets given one row: each, and each pair, with the truth marked.

    Parameters
    ----------
    density
        A fitted density of eight targets or fewer.
    observation
        The row, as `fit` takes rows: one alone.
    truth
        The row's targets, as `fit` takes them, or None.
    num
        How many draws are shown.

    Raises
    ------
    ValueError
        Where there are several rows, or more than eight targets.
    """
    told, fields = density._told_of(observation), density.target_columns_.fields
    if len(told.condition) != 1 or len(fields) > 8:
        raise ValueError(
            f"Expected one row, and 8 targets or fewer, got {len(told.condition)} and {len(fields)}; try X[:1]."
        )
    drawn = density._drawn(told, check_count("num", num), 0)[:, 0]
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    truths = None if truth is None else density._check_targets(observation, truth)
    shown = drawn if truths is None else np.concatenate([drawn, np.repeat(truths, 1 + len(drawn) // 100, axis=0)])
    scales = [scale_of(field, column, MOST_LEVELS) for field, column in zip(fields, shown.T, strict=True)]
    places = None if truths is None else [scale.places(part)[0] for scale, part in zip(scales, truths.T, strict=True)]
    return draw_corner([Cloud("draws", drawn, SAMPLES)], scales, _target_names(density), places)


def _target_names(density: "ConditionalFlowDensity") -> list[str]:
    """Return what targets are called: where they have no names, y, or y0, y1 and so on."""
    names = [str(field.name) for field in density.target_columns_.fields]
    if names != [str(j) for j in range(len(names))]:
        return names
    return ["y"] if len(names) == 1 else [f"y{name}" for name in names]


def plot_pit(values, level: float = 0.99) -> Figure:
    """Draw a histogram of numbers that are uniform where a density is exact, with a band.

    Parameters
    ----------
    values
        Numbers between 0 and 1, of shape ``(n,)``: those of `liouville.ConditionalFlowDensity.cdf`, of a continuous
        target, or a column of `liouville.calibration.sbc_ranks(...).values`.
    level
        Probability with which all bars of an exact density are in the band together, by Bonferroni's bound.

    Raises
    ------
    ValueError
        Where a number is not between 0 and 1, or the level is none.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"Expected numbers between 0 and 1, got others, of shape {values.shape}; try those of cdf.")
    check_level(level)
    bins = num_bins(len(values), 20)
    each = (1 - level) / (2 * bins)
    band = np.array([binom.ppf(each, len(values), 1 / bins), binom.isf(each, n=len(values), p=1 / bins)])
    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(*(band * bins / len(values)), color=QUIET, alpha=_PALE, lw=0, label=f"{100 * level:g} % band")
    axes.axhline(1, color=QUIET, lw=0.8, ls=":")
    heights, edges = np.histogram(values, bins, range=(0, 1), density=True)
    axes.stairs(heights, edges, fill=True, color=DATA, alpha=_LESS_PALE, label="data")
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="probability of less, given the row", ylabel="density")
    open_sides(axes)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def plot_calibration(found: Uniformity) -> Figure:
    """Draw how far shares are from levels, with the band of an exact density.

    Parameters
    ----------
    found
        What `liouville.calibration.sbc_ranks`, `expected_coverage` or `uniformity` returned. A curve above the band is
        of ranks that are too low, or of regions that hold too much: the density is too high, or too wide.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    grid = np.array([0.0, *found.grid, 1.0])
    low, high = (np.array([0.0, *(side - found.grid), 0.0]) for side in (found.low, found.high))
    axes.fill_between(grid, low, high, color=QUIET, alpha=_PALE, lw=0, label=f"{100 * found.level:g} % band")
    axes.axhline(0, color=QUIET, lw=0.8, ls=":")
    for k, (name, shares) in enumerate(zip(found.names, found.shares.T, strict=True)):
        axes.plot(grid, [0.0, *(shares - found.grid), 0.0], color=_COLOURS[k % len(_COLOURS)], lw=1.8, label=name)
    axes.set(xlim=(0, 1), xlabel="level", ylabel="share of truths below, minus level")
    open_sides(axes)
    figure.legend(loc="outside upper right", ncols=4, frameon=False)
    return figure

"""Pictures of columns that have masses: levels, whole numbers, dates, and amounts with atoms."""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ._axes import DATA, QUIET, SAMPLES, Scale, num_bins, open_sides, scale_of
from .mixed import Field

_MOST_LEVELS = 20
# Of more whole numbers bars would be lines, and of these only some are evaluated.
_MOST_BARS, _MOST_DOTS, _MOST_MASSES = 200, 60, 4000
_MOST_SIDE_BY_SIDE = 30
# The lowest or highest number is drawn alone where it is so many times as likely as any other.
_STANDS_OUT = 2
# As pale as a histogram.
_PALE = 0.3
# At the ticks of a figure as wide as ours go so many letters beside each other.
_LETTERS = 72
Probability = Callable[[np.ndarray], np.ndarray]


class Cloud(NamedTuple):
    """Rows of one kind, data or samples, and how they are drawn."""

    name: str
    rows: np.ndarray
    colour: str


def draw_column(figure: Figure, field: Field, name: str, cloud: Cloud, probability: Probability, num: int) -> None:
    """Draw the probabilities of one column beside the shares of its values in rows.

    Parameters
    ----------
    figure
        Where they are drawn.
    field, name
        The column, and what it is called.
    cloud
        The rows, of this column alone.
    probability
        Returns the mass, or the density, of each value.
    num
        A curve has four times as many points.
    """
    axes, values = figure.subplots(), cloud.rows[:, 0]
    scale = scale_of(field, values, _MOST_LEVELS, has_others=False)
    axes.set(xlim=scale.limits, xlabel=name, ylabel="probability")
    if field.column.kind == "code":
        _draw_levels(axes, scale, cloud, probability)
    elif field.column.kind == "whole" and scale.count <= _MOST_BARS:
        _draw_whole(axes, scale, cloud, probability)
    else:
        _draw_numbers(axes, scale, cloud, probability, num)
    if field.column.kind != "code":
        scale.write(axes.xaxis, 8)
    open_sides(axes)
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    if len(figure.axes) > 1:
        found["single values (right axis)"] = Line2D([], [], marker="o", color=QUIET)
    # Rows first, whatever was drawn first.
    ordered = sorted(found, key=lambda label: label != cloud.name)
    figure.legend([found[label] for label in ordered], ordered, loc="outside upper right", ncols=3, frameon=False)


def _draw_levels(axes: Axes, scale: Scale, cloud: Cloud, probability: Probability) -> None:
    masses = probability(np.array(scale.levels, np.float64))
    shares = _shares(scale, cloud.rows[:, 0])
    looks = [{"color": cloud.colour, "alpha": 2 * _PALE, "label": cloud.name}, {"color": SAMPLES, "label": "model"}]
    _bars(axes, np.arange(scale.count), 0.8, list(zip([shares, masses], looks, strict=True)))
    all_levels = scale.field.column.levels
    if all_levels > scale.count:
        axes.set_xlabel(f"{axes.get_xlabel()} ({scale.count} most frequent of {all_levels} levels)")
    letters = max(_LETTERS // scale.count, 4)
    names = [textwrap.wrap(name, max(letters, 1), break_long_words=False) or [""] for name in scale.names]
    is_turned = max(len(line) for lines in names for line in lines) > letters or max(map(len, names)) > 3
    if is_turned:
        names = [textwrap.wrap(name, 24)[:2] or [""] for name in scale.names]
    axes.set_xticks(range(scale.count), ["\n".join(lines) for lines in names], rotation=90 if is_turned else 0)


def _draw_whole(axes: Axes, scale: Scale, cloud: Cloud, probability: Probability) -> None:
    numbers = scale.numbers(_MOST_BARS)
    places = scale.places(numbers)
    look = {"color": cloud.colour, "alpha": _PALE, "label": cloud.name}
    _bars(axes, places, 0.9 * _step(scale), [(_shares(scale, cloud.rows[:, 0]), look)])
    mark = "o-" if scale.count <= _MOST_DOTS else "-"
    axes.plot(places, probability(numbers), mark, color=SAMPLES, lw=2, ms=4, label="model")
    axes.set_ylim(bottom=0)


def _draw_numbers(axes: Axes, scale: Scale, cloud: Cloud, probability: Probability, num: int) -> None:
    """Draw a curve of what is off the atoms over a histogram, and the atoms on an axis of their own."""
    column, values = scale.field.column, cloud.rows[:, 0]
    is_whole = column.kind == "whole"
    grid = scale.numbers(_MOST_MASSES) if is_whole else scale.inside(4 * num)
    # On an atom there is a mass, and no density.
    grid = grid[~column.on_atoms(grid).any(-1)]
    curve = probability(grid)
    alone = np.array([*column.atoms, *_ends_that_stand_out(scale, grid, curve)])
    is_beside = ~np.isin(grid, alone)
    axes.plot(scale.places(grid[is_beside]), curve[is_beside], color=SAMPLES, lw=2, label="model")
    heights, edges = _off(alone, scale, values, num_bins(len(values), 80))
    axes.stairs(heights, edges, fill=True, color=cloud.colour, alpha=_PALE, label=cloud.name)
    each = "date" if scale.field.unit else "number"
    axes.set_ylabel(f"probability of each {each}" if is_whole else "density")
    axes.set_ylim(bottom=0)
    if len(alone):
        _stems(axes.twinx(), scale, cloud, alone, probability(alone))


def _ends_that_stand_out(scale: Scale, grid: np.ndarray, masses: np.ndarray) -> list[float]:
    """Return the lowest and the highest number that there can be, where they have so much that the rest would be flat.

    A model has all there that would lie beyond.
    """
    column = scale.field.column
    ends = (grid == column.lowest) | (grid == column.highest)
    if column.kind != "whole" or ends.all():
        return []
    return list(grid[ends & (masses > _STANDS_OUT * masses[~ends].max())])


def _stems(axes: Axes, scale: Scale, cloud: Cloud, alone: np.ndarray, masses: np.ndarray) -> None:
    places, shares = scale.places(alone), _on(alone, scale, cloud.rows[:, 0]).mean(axis=0)
    apart = 0.005 * (scale.limits[1] - scale.limits[0])
    # Shares of samples have the model's colour, but paler.
    for at, heights, colour, alpha in (
        (places - apart, shares, cloud.colour, 1.0 if cloud.colour == DATA else 2 * _PALE),
        (places + apart, masses, SAMPLES, 1.0),
    ):
        axes.vlines(at, 0, heights, color=colour, lw=2, alpha=alpha)
        axes.plot(at, heights, "o", color=colour, ms=6, alpha=alpha)
    axes.set(ylabel="probability", ylim=(0, 1.12 * max(*shares, *masses, 0.01)))
    axes.spines["top"].set_visible(False)


def draw_margin(axes: Axes, scale: Scale, clouds: Sequence[Cloud], j: int) -> None:
    """Draw a column of each cloud: bars side by side, or a histogram, with the shares of its atoms beside it.

    An atom is a stem whose height is its share of the panel's: its number says it.

    Parameters
    ----------
    axes
        The panel.
    scale
        How the column stands on its axis.
    clouds
        Data, samples, or both.
    j
        Which column of the clouds it is.
    """
    kind = scale.field.column.kind
    if kind == "code" or (kind == "whole" and scale.count <= _MOST_SIDE_BY_SIDE):
        places = np.arange(scale.count) if kind == "code" else scale.places(scale.numbers(_MOST_SIDE_BY_SIDE))
        groups = [(_shares(scale, cloud.rows[:, j]), {"color": cloud.colour}) for cloud in clouds]
        _bars(axes, places, 0.8 * _step(scale), groups)
        return
    atoms = np.array(scale.field.column.atoms)
    for cloud in clouds:
        # As many as the data bear, for the samples too: what differs is then no matter of bins.
        heights, edges = _off(atoms, scale, cloud.rows[:, j], num_bins(len(clouds[0].rows), 40))
        axes.stairs(heights, edges, color=cloud.colour, lw=1.5)
    axes.set_ylim(bottom=0)
    if len(atoms):
        shares = [_on(atoms, scale, cloud.rows[:, j]).mean(axis=0) for cloud in clouds]
        _small_stems(axes, scale, clouds, scale.places(atoms), shares)


def _small_stems(
    axes: Axes, scale: Scale, clouds: Sequence[Cloud], places: np.ndarray, shares: list[np.ndarray]
) -> None:
    """Draw the shares of atoms as stems in the height of a panel, and write that of the largest."""
    apart = 0.02 * (scale.limits[1] - scale.limits[0])
    for k, cloud in enumerate(clouds):
        at = places + (k - (len(clouds) - 1) / 2) * apart
        look: dict[str, Any] = {"color": cloud.colour, "transform": axes.get_xaxis_transform(), "clip_on": False}
        for x, share in zip(at, shares[k], strict=True):
            axes.plot([x, x], [0, share], lw=1.5, marker="o", ms=4, markevery=[1], **look)
    # Above the panel there is nothing else.
    top = int(np.argmax(shares[0]))
    for k, cloud in enumerate(clouds):
        side = 0.0 if len(clouds) == 1 else (2 * k - 1) * apart / 2
        axes.annotate(
            f"{100 * shares[k][top]:.0f} %",
            (places[top] + side, 1.03),
            xycoords=axes.get_xaxis_transform(),
            color=cloud.colour,
            fontsize=7,
            ha="center" if not side else "right" if side < 0 else "left",
        )


def _bars(axes: Axes, places: np.ndarray, width: float, groups: list[tuple[np.ndarray, dict[str, Any]]]) -> None:
    """Draw bars of several groups side by side at each place."""
    each = width / len(groups)
    for k, (heights, look) in enumerate(groups):
        axes.bar(places + (k - (len(groups) - 1) / 2) * each, heights, each, **look)


def _step(scale: Scale) -> float:
    """Return how far two levels, or whole numbers, are from each other on the axis."""
    column = scale.field.column
    return 1.0 if column.kind == "code" else float(np.diff(scale.places(np.array([0.0, column.step])))[0])


def _shares(scale: Scale, values: np.ndarray) -> np.ndarray:
    """Return the share of the values at each place of a code, or on each whole number that is shown."""
    if scale.field.column.kind == "code":
        at = scale.places(values)
    else:
        at = np.round(values / scale.field.column.step) - scale.ends[0]
    at = at[(at >= 0) & (at < scale.count)].astype(int)
    return np.bincount(at, minlength=scale.count) / len(values)


def _on(alone: np.ndarray, scale: Scale, values: np.ndarray) -> np.ndarray:
    """Return of each value which of those that are drawn alone it is, one axis more."""
    return dataclasses.replace(scale.field.column, atoms=tuple(alone), gaps=False).on_atoms(values)


def _off(alone: np.ndarray, scale: Scale, values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a histogram of the values that are not drawn alone, and its edges on the axis.

    Its heights are densities of the whole column; of whole numbers probabilities of each, bins beginning between two.
    """
    column = scale.field.column
    off = values[~_on(alone, scale, values).any(-1)]
    if column.kind == "whole":
        of_each = -(-scale.count // bins)
        edges = column.step * (scale.ends[0] - 0.5 + of_each * np.arange(-(-scale.count // of_each) + 1))
        widths: Any = float(of_each)
    else:
        edges = scale.inside(bins + 1)
        widths = np.diff(edges)
    return np.histogram(off, edges)[0] / (len(values) * widths), scale.places(edges)

"""How the columns of a table stand on axes: where their numbers are, over which range, and what is written there."""

import dataclasses
import textwrap

import numpy as np
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from .mixed import Field
from .mixed._dates import days_of

# Two colours that the colour-blind tell apart (Okabe and Ito), and a grey.
DATA, SAMPLES, QUIET = "#0072B2", "#D55E00", "#6b6b6b"
_OTHER = "other"
_JITTER = 0.3
# So long are names of levels at the ticks of a small panel, and so many letters go beside each other there.
_LONGEST_NAME, _LETTERS = 12, 16


@dataclasses.dataclass(frozen=True)
class Scale:
    """A column on an axis: codes stand at 0, 1, ..., dates where Matplotlib has them, other numbers where they are.

    Attributes
    ----------
    field
        The column.
    limits
        What the axis shows.
    ends
        Of whole numbers the first and the last one that are shown, in steps.
    levels
        Codes that have a place of their own, in order.
    has_others
        True where the other codes have a place together, behind these.
    """

    field: Field
    limits: tuple[float, float]
    ends: tuple[int, int] = (0, 0)
    levels: tuple[int, ...] = ()
    has_others: bool = False

    @property
    def count(self) -> int:
        """Number of places of a code, and of the whole numbers that are shown."""
        first, last = self.ends
        return len(self.levels) + self.has_others if self.field.column.kind == "code" else last - first + 1

    @property
    def names(self) -> list[str]:
        """What stands at the places of a code."""
        named = [self.field.levels[code] for code in self.levels]
        said = lambda level: "missing" if level is None else f"{level:g}" if isinstance(level, float) else str(level)
        return [said(level) for level in named] + [_OTHER] * self.has_others

    def places(self, values: np.ndarray) -> np.ndarray:
        """Return where values stand: NaN for a code that has no place."""
        if self.field.column.kind == "code":
            # The last is that of -1, a level that the fit has not seen.
            places = np.full(self.field.column.levels + 1, len(self.levels) if self.has_others else np.nan)
            places[list(self.levels)] = np.arange(len(self.levels))
            return np.where(np.isnan(values), np.nan, places[np.nan_to_num(values).astype(int)])
        return _days(values, self.field.unit) if self.field.unit else values

    def scattered(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return where values stand, codes and whole numbers moved by up to 0.3 of a step so that all are seen."""
        column = self.field.column
        if column.kind == "continuous":
            return self.places(values)
        moves = rng.uniform(-_JITTER, _JITTER, len(values))
        return self.places(values) + moves if column.kind == "code" else self.places(values + moves * column.step)

    def numbers(self, most: int) -> np.ndarray:
        """Return the whole numbers that are shown; of more than so many, some at equal distances."""
        return self.field.column.step * np.unique(np.round(np.linspace(*self.ends, min(self.count, most))))

    def inside(self, num: int) -> np.ndarray:
        """Return continuous numbers at equal distances, over what is shown between the column's edges."""
        low, high = np.clip(self.limits, *self.field.column.edges)
        return np.linspace(low, high, num)

    def write(self, axis: Axis, most: int, is_small: bool = False) -> None:
        """Write a few ticks: names of levels, dates, whole numbers or any."""
        if self.field.column.kind == "code":
            axis.set_ticks(range(self.count), _short(self.names) if is_small else self.names)
        elif self.field.unit:
            # Days in multiples would have one at the end of a month beside the first of the next.
            is_even = 2 < self.limits[1] - self.limits[0] < 62
            # With fewer than 5 Matplotlib finds none for some ranges, and warns.
            few = {"minticks": 2, "maxticks": max(most, 5), "interval_multiples": not is_even}
            locator = dates.AutoDateLocator(tz=self.field.zone or None, **few)
            form = dates.AutoDateFormatter if is_small else dates.ConciseDateFormatter
            axis.set_major_locator(locator)
            axis.set_major_formatter(form(locator, tz=self.field.zone or None))
        else:
            is_whole = self.field.column.kind == "whole" and self.field.column.step >= 1
            axis.set_major_locator(MaxNLocator(most, integer=is_whole, steps=[1, 2, 2.5, 5, 10]))

    def turns(self) -> bool:
        """Return True where what is written at the ticks of a small panel does not fit beside each other."""
        if self.field.column.kind != "code":
            return bool(self.field.unit)
        return self.count * (1 + max(map(len, _short(self.names)))) > _LETTERS


def scale_of(field: Field, values: np.ndarray, most_levels: int, has_others: bool = True) -> Scale:
    """Return how a column stands on an axis that shows nearly all of its values.

    Parameters
    ----------
    field
        The column.
    values
        Its numbers; NaN is none.
    most_levels
        A code has so many places at most, of the most frequent levels.
    has_others
        True gives one of them to all other levels.
    """
    column, values = field.column, values[~np.isnan(values)]
    if column.kind == "code":
        return _scale_of_code(field, values, most_levels, has_others)
    low, high = range_of(values)
    if column.kind == "continuous":
        return Scale(field, (low, high))
    first, last = np.clip(np.array([low, high]) / column.step, *np.array([column.lowest, column.highest]) / column.step)
    ends = int(np.floor(first)), int(np.ceil(last))
    # A bar is whole, and a point that is moved is there.
    margin = 0.6 + 0.02 * (ends[1] - ends[0])
    sides = column.step * np.array([ends[0] - margin, ends[1] + margin])
    low, high = _days(sides, field.unit) if field.unit else sides
    return Scale(field, (float(low), float(high)), ends)


def _scale_of_code(field: Field, values: np.ndarray, most: int, has_others: bool) -> Scale:
    counts = np.bincount(values[values >= 0].astype(int), minlength=field.column.levels)
    is_more = len(counts) > most
    # Of equally frequent levels the first.
    order = np.argsort(-counts, kind="stable")[: most - (is_more and has_others)]
    others = bool(has_others and (is_more or np.any(values < 0)))
    count = len(order) + others
    return Scale(field, (-0.6, count - 0.4), levels=tuple(map(int, np.sort(order))), has_others=others)


def _days(values: np.ndarray, unit: str) -> np.ndarray:
    """Return numbers of a unit since 1970 as Matplotlib has dates."""
    return days_of(values, unit) + dates.date2num(np.datetime64("1970-01-01"))


def range_of(values: np.ndarray) -> tuple[float, float]:
    """Return a range that holds nearly all values, so that a few far ones do not squeeze the rest."""
    low, high = np.quantile(values, [0.002, 0.998])
    # One value alone has room on either side.
    margin = 0.12 * (high - low) or 1.0
    return low - margin, high + margin


def num_bins(rows: int, most: int) -> int:
    """Return as many bins as rows bear: bars of a handful of rows show noise, not shape."""
    return int(np.clip(np.sqrt(rows), 8, most))


def open_sides(axes: Axes, left: bool = True) -> None:
    """Leave out the frame above and on the right, and where told on the left."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["left"].set_visible(left)


def wrapped(name: str) -> str:
    """Return a name in lines of 16 letters, three at most."""
    return name if len(name) <= 16 else "\n".join(textwrap.wrap(name.replace("_", " "), 16)[:3])


def _short(names: list[str]) -> list[str]:
    """Return names that are short: their beginnings, and where these do not tell them, their ends too."""
    short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1].rstrip()}…" for name in names]
    if len(set(short)) == len(names):
        return short
    return [name if len(name) <= _LONGEST_NAME else f"{name[:3]}…{name[4 - _LONGEST_NAME :]}" for name in names]

"""Rows of a table as what others are conditioned on: codes, and numbers on two scales."""

import equinox as eqx
import numpy as np
from scipy.special import ndtri

from .._types import FixedMixin, Rows, constant
from ._frame import Column

# So many quantiles of a column make its normal scores.
_KNOTS = 65
# From so many standard deviations on numbers count as their logarithms.
_BEND = 3.0


class GivenRows(FixedMixin, eqx.Module):
    """What rows are to a distribution that is conditioned on them (`liouville.mixed.Mixed`).

    A code is itself. A number is two: in standard deviations from its mean, bent far out, and as a normal score among
    those of the fit. What is missing, or a level that the fit has not seen, is NaN: it is told as not known.

    Parameters
    ----------
    columns
        What the columns are.
    loc, scale
        Means and standard deviations of those that are numbers.
    knots
        Their quantiles, of shape ``(numbers, 65)``.

    Examples
    --------
    >>> rows = np.array([[0.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    >>> given = GivenRows.fit(rows, np.ones(3), (Column("code", 2), Column("continuous")))
    >>> print(given.sizes, given.encode(np.array([[1.0, 2.0], [-1.0, np.nan]])))
    ((2,), 2) [[ 1.  0.  0.]
     [nan nan nan]]
    """

    columns: tuple[Column, ...] = eqx.field(static=True)
    loc: np.ndarray
    scale: np.ndarray
    knots: np.ndarray

    def __init__(self, columns: tuple[Column, ...], loc, scale, knots):
        self.columns = tuple(columns)
        self.loc, self.scale, self.knots = constant(loc), constant(scale), constant(knots)

    @staticmethod
    def fit(rows: Rows, weight: np.ndarray, columns: tuple[Column, ...]) -> "GivenRows":
        """Return what rows of these columns are, by the rows of a fit and their weights."""
        found = [_scale_of(rows[:, j], weight) for j, column in enumerate(columns) if column.kind != "code"]
        loc, scale, knots = zip(*found, strict=True) if found else ((), (), np.zeros((0, _KNOTS)))
        return GivenRows(columns, loc, scale, knots)

    @staticmethod
    def any(columns: tuple[Column, ...]) -> "GivenRows":
        """Return one that is fitted to any rows: the numbers of one from a file take the place of its own."""
        return GivenRows.fit(np.zeros((1, len(columns))), np.ones(1), columns)

    @property
    def sizes(self) -> tuple[tuple[int, ...], int]:
        """How many levels each code has, and how many numbers there are behind them."""
        return tuple(column.levels for column in self.columns if column.kind == "code"), 2 * len(self.loc)

    @property
    def num_features(self) -> int:
        """How many numbers `features` makes of a row."""
        levels, numbers = self.sizes
        return sum(levels) + numbers

    def features(self, rows: Rows) -> np.ndarray:
        """Return conditions that are numbers alone: each code as one of so many, then numbers on both scales."""
        levels, _ = self.sizes
        codes, numbers = np.split(self.encode(rows), [len(levels)], axis=1)
        one_of = [code[:, None] == np.arange(size) for code, size in zip(codes.T, levels, strict=True)]
        return np.concatenate([*one_of, numbers], axis=1, dtype=np.float64)

    def encode(self, rows: Rows) -> np.ndarray:
        """Return conditions: codes, numbers by their standard deviations, and by their normal scores."""
        is_code = np.array([column.kind == "code" for column in self.columns], bool)
        codes, numbers = rows[:, is_code], rows[:, ~is_code]
        codes = np.where(codes < 0, np.nan, codes)
        bent = _BEND * np.arcsinh((numbers - self.loc) / (_BEND * self.scale))
        scores = [normal_scores(column, knots) for column, knots in zip(numbers.T, self.knots, strict=True)]
        return np.concatenate([codes, bent, np.transpose(scores or np.zeros((0, len(rows))))], axis=1)


def _scale_of(values: np.ndarray, weight: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Return mean, standard deviation and quantiles of the numbers of a column that are there."""
    is_there = ~np.isnan(values) & (weight > 0)
    if not is_there.any():
        return 0.0, 1.0, np.zeros(_KNOTS)
    values, weight = values[is_there], weight[is_there]
    loc = float(np.average(values, weights=weight))
    scale = float(np.sqrt(np.average((values - loc) ** 2, weights=weight)))
    order = np.argsort(values, kind="stable")
    shares = np.cumsum(weight[order]) / weight.sum()
    # Equal weights: the numbers in whose share of the rows the quantiles lie.
    places = np.searchsorted(shares, (np.arange(_KNOTS) + 0.5) / _KNOTS)
    return loc, scale if scale > 1e-12 * abs(loc) else 1.0, values[order][np.minimum(places, len(order) - 1)]


def normal_scores(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the normal quantiles of numbers by quantiles, straight between these: equal ones share the middle."""
    scores = ndtri((np.arange(len(knots)) + 0.5) / len(knots))
    left, right = np.searchsorted(knots, values, "left"), np.searchsorted(knots, values, "right")
    first, last = np.clip(left, 0, len(knots) - 1), np.clip(right - 1, 0, len(knots) - 1)
    on_knot = (scores[first] + scores[last]) / 2
    gap = knots[first] - knots[last]
    share = np.where(gap > 0, (values - knots[last]) / np.where(gap > 0, gap, 1.0), 0.0)
    found = np.where(right > left, on_knot, scores[last] + share * (scores[first] - scores[last]))
    found = np.where(values < knots[0], scores[0], np.where(values > knots[-1], scores[-1], found))
    return np.where(np.isnan(values), np.nan, found)

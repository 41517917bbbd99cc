"""Where whole numbers have their cells, and what is expected of them."""

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import FixedMixin, constant
from ..bijections import namespace
from ._em import fit_mixture, padded
from ._frame import Column, MixedFrame
from ._mixture import GaussianMixture, Law

LEAST_SPREAD = 0.5
# Of more numbers a mixture of Gaussians costs more than it tells.
_MOST_MIXED = 32
# What codes of more levels than these say of numbers is not looked for; of long tables so many rows say it.
_MOST_LEVELS, _MOST_ROWS = 64, 20_000


class Grid(FixedMixin, eqx.Module):
    """Where the whole numbers of columns have their cells, on an axis each, and how wide these are.

    Where few numbers are ever there, as of a measurement that is written with more digits than it has, the cells of
    those between them are narrow: a flow need not learn thousands of gaps.

    Parameters
    ----------
    lowest, highest
        The lowest and the highest number that each column can have, or -inf and inf.
    seen
        For each column the numbers that are there, in order, or none; None is none for all.
    unseen
        How wide the cell of another number between them is beside theirs, which is 1; None is 1 for all.

    Examples
    --------
    >>> grid = Grid([-np.inf], [np.inf], [(0.0, 10.0)], [0.1])
    >>> numbers = np.array([[0.0], [1.0], [10.0]])
    >>> print(grid.widths(numbers).ravel(), grid.numbers(grid.places(numbers)).ravel())
    [1.  0.1 1. ] [ 0.  1. 10.]
    """

    lowest: np.ndarray
    highest: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray
    ends: np.ndarray

    def __init__(self, lowest, highest, seen=None, unseen=None):
        self.lowest, self.highest = constant(lowest), constant(highest)
        lists: Any = [()] * len(self.lowest) if seen is None else seen
        # Shorter ones are filled up with numbers that never come.
        table = np.full((len(lists), max(map(len, lists), default=0)), np.inf)
        for row, column in zip(table, lists, strict=True):
            row[: len(column)] = column
        self.seen, self.unseen = constant(table), constant(np.ones(len(lists)) if unseen is None else unseen)
        # Where the cells of the first one begins, and that of the last one ends.
        self.ends = constant([(c[0] - 0.5, c[-1] + 0.5) if len(c) else (0.0, 0.0) for c in lists]).T

    @staticmethod
    def of(columns: Sequence[Column]) -> "Grid":
        """Return the grid of columns of whole numbers."""
        low, high = np.transpose([column.ends() for column in columns])
        return Grid(low, high, [column.seen for column in columns], [column.unseen for column in columns])

    def widths(self, numbers: Any) -> Any:
        """Return how wide the cells of numbers are, of shape ``(..., columns)``."""
        is_between = (numbers > self.ends[0]) & (numbers < self.ends[1])
        is_seen = (numbers[..., None] == self.seen).any(-1)
        return namespace(numbers).where(is_seen | ~is_between, 1.0, self.unseen)

    def places(self, numbers: Any) -> Any:
        """Return the middles of the cells of numbers, and what is between them, of shape ``(..., columns)``."""
        xp = namespace(numbers)
        # A cell comes behind those of all lower numbers: as many wide ones, and narrow ones.
        wide = xp.clip(numbers[..., None] - self.seen + 0.5, 0.0, 1.0).sum(-1)
        beyond = xp.maximum(numbers - self.ends[1], 0.0) + xp.minimum(numbers - self.ends[0], 0.0)
        return self.unseen * numbers + (1 - self.unseen) * (wide + beyond)

    def numbers(self, places: Any) -> Any:
        """Return the numbers in whose cells places are, of shape ``(..., columns)``: the inverse of `places`."""
        xp, (num, most) = namespace(places), self.seen.shape
        narrow = self.unseen[:, None]
        starts = narrow * (self.seen - 0.5) + (1 - narrow) * xp.arange(most, dtype=places.dtype)
        before = (starts <= places[..., None]).sum(-1)
        last = xp.concatenate([xp.full((num, 1), -xp.inf, starts.dtype), self.seen], -1)[xp.arange(num), before]
        behind = places - (1 - self.unseen) * before.astype(places.dtype)
        between = xp.where(
            behind < self.unseen * (last + 0.5), last, xp.maximum(xp.round(behind / self.unseen), last + 1)
        )
        first, end = self.unseen * self.ends[0], self.unseen * self.ends[1]
        end = end + (1 - self.unseen) * xp.isfinite(self.seen).sum(-1).astype(places.dtype)
        outside = xp.where(places < first, places - first + self.ends[0], places - end + self.ends[1])
        is_outside = ((places < first) | (places > end)) & (self.unseen < 1)
        return xp.where(is_outside, xp.round(outside), between)


class AbstractExpected(FixedMixin, eqx.Module):
    """What is expected of whole numbers, and how far they are from it.

    Attributes
    ----------
    means, scale
        Means of the numbers, and their standard deviations in places of a `Grid`.
    bend
        From so many standard deviations on distances count as their logarithms.
    """

    means: eqx.AbstractVar[np.ndarray]
    scale: eqx.AbstractVar[np.ndarray]
    bend: eqx.AbstractVar[np.ndarray]

    @property
    @abc.abstractmethod
    def told(self) -> int:
        """Of how many numbers, with which a condition begins, an expectation is told."""

    @abc.abstractmethod
    def given(self, numbers: Any, mask: Any, grid: Grid, told: Any) -> Any:
        """Return what is expected of each number given those before it: places, `expected`, and `spread` from these."""

    def bent(self, off: Any, law: Any) -> Any:
        """Return distances as a flow has them, in standard deviations: one far off is unlikely, not beyond measure.

        Parameters
        ----------
        off
            Distances from what is expected, in units of `spread`.
        law
            What `given` has returned.
        """
        return self.bend * namespace(off).arcsinh(off / self.bend)

    def unbent(self, u: Any, law: Any) -> Any:
        """Return distances that are bent: the inverse of `bent`."""
        return self.bend * namespace(u).sinh(u / self.bend)


class Line(NamedTuple):
    """Places that are expected of numbers, and how far these are from them, of shape ``(..., columns)``."""

    expected: Any
    spread: Any


class Expected(AbstractExpected):
    """What is expected of whole numbers, given codes and those before them, by a line, and how far they are from it.

    Parameters
    ----------
    means, scale
        Means of the numbers, and their standard deviations in places of a `Grid`.
    slopes
        Of each number by those before it: a matrix with zeros on its diagonal and above. None is no slope.
    effects
        What the levels of each code add to each number, of shape ``(levels, columns)``.
    shift, spread
        Mean and standard deviation of the distances from what is expected, in places; None is 0, and `scale`.
    bend
        From so many standard deviations on distances count as their logarithms.
    """

    means: np.ndarray
    scale: np.ndarray
    slopes: np.ndarray
    effects: tuple[np.ndarray, ...]
    shift: np.ndarray
    spread: np.ndarray
    bend: np.ndarray

    def __init__(self, means, scale, slopes=None, effects=(), shift=None, spread=None, bend=4.0):
        num = len(means)
        self.means, self.scale = constant(means), constant(scale)
        self.slopes = constant(np.zeros((num, num)) if slopes is None else np.reshape(slopes, (num, num)))
        self.effects = tuple(constant(np.reshape(effect, (-1, num))) for effect in effects)
        self.shift = constant(np.zeros(num) if shift is None else shift)
        self.spread, self.bend = constant(scale if spread is None else spread), constant(bend)

    @staticmethod
    def fit(
        numbers: np.ndarray,
        mask: np.ndarray,
        weight: np.ndarray,
        grid: Grid,
        codes: np.ndarray,
        levels: Sequence[int],
    ) -> "Expected":
        """Return what is expected by least squares of weighted rows, where that explains half of how numbers vary.

        Parameters
        ----------
        numbers, mask
            Whole numbers, of shape ``(rows, columns)``, and 1 for each that there is.
        weight
            Of each row.
        grid
            Where the cells are.
        codes, levels
            The codes of each row, and how many levels each has; of many levels, a code says nothing here.
        """
        num = numbers.shape[1]
        means = np.array([_moments(numbers[:, j], mask[:, j] * weight)[0] for j in range(num)])
        known, of_levels = mask * (numbers - means), _indicators(codes, levels)
        slopes, effects = np.zeros((num, num)), np.zeros((of_levels.shape[1], num))
        few = slice(None, None, 1 + len(numbers) // _MOST_ROWS)
        for j in range(num):
            told = np.concatenate([known[few, :j], of_levels[few]], axis=1)
            found = _least_squares(told, known[few, j], mask[few, j] * weight[few])
            if found is not None:
                slopes[j, :j], effects[:, j] = found[:j], found[j:]
        parts = np.split(effects, np.cumsum(levels)[:-1]) if len(levels) else []
        line = Expected(means, np.ones(num), slopes, parts)
        places = grid.places(numbers)
        off = places - line.places(numbers, mask, grid, line.offset(codes))
        moments = [_moments(of[:, j], mask[:, j] * weight) for of in (places, off) for j in range(num)]
        (_, scale), (shift, spread) = np.reshape(moments, (2, num, 2)).transpose(0, 2, 1)
        # Of one number alone the cell is twice as wide as the spread.
        return Expected(means, np.maximum(scale, LEAST_SPREAD), slopes, parts, shift, np.maximum(spread, LEAST_SPREAD))

    @property
    def told(self) -> int:
        """As many as there are numbers: what codes add to each (`offset`)."""
        return len(self.means)

    def given(self, numbers: Any, mask: Any, grid: Grid, told: Any) -> Line:
        """Return the places that are expected, and how far numbers are from these: always as far."""
        return Line(self.places(numbers, mask, grid, told), self.spread)

    def offset(self, codes: Any) -> Any:
        """Return what codes, of shape ``(..., codes)``, add to each number."""
        xp = namespace(codes)
        total = xp.zeros((*codes.shape[:-1], len(self.means)), codes.dtype)
        for i, effect in enumerate(self.effects):
            total = total + xp.asarray(effect, codes.dtype)[xp.clip(codes[..., i].astype(int), 0, len(effect) - 1)]
        return total

    def places(self, numbers: Any, mask: Any, grid: Grid, offset: Any) -> Any:
        """Return the places that are expected, of shape ``(..., columns)``; numbers that are masked say nothing."""
        expected = self.means + offset + (mask * (numbers - self.means)) @ self.slopes.T
        return grid.places(expected) + self.shift


class Quantiles(NamedTuple):
    """Laws of numbers, and their means and standard deviations, of shape ``(..., columns)``."""

    expected: Any
    spread: Any
    law: Law


class ExpectedOfAny(AbstractExpected):
    """What is expected of whole numbers given any others, whole and continuous, and codes, by a mixture of Gaussians.

    Numbers that are not known say nothing: what is expected depends on which are. Distances are those of standard
    normal numbers of the same quantiles.

    Parameters
    ----------
    means, scale
        Means of the whole numbers, and their standard deviations in places of a `Grid`.
    mixture
        Of the places of whole numbers, and of continuous numbers.
    bend
        As of `Expected`.
    """

    means: np.ndarray
    scale: np.ndarray
    bend: np.ndarray
    mixture: GaussianMixture

    def __init__(self, means, scale, mixture: GaussianMixture, bend=4.0):
        self.means, self.scale, self.bend, self.mixture = constant(means), constant(scale), constant(bend), mixture

    @property
    def told(self) -> int:
        """As many as there are components, what codes say of these; and all numbers, and flags which are given."""
        return self.mixture.size + 2 * self.mixture.num

    def given(self, numbers: Any, mask: Any, grid: Grid, told: Any) -> Quantiles:
        """Return the laws of the numbers."""
        num, size = len(self.means), self.mixture.size
        logs, values, flags = jnp.split(told, [size, size + self.mixture.num])
        given = flags > 0
        rest = jnp.zeros(self.mixture.num - num, numbers.dtype)
        own, asked = (jnp.concatenate([part, rest]) for part in (grid.places(numbers), mask))
        law = self.mixture.laws(logs, jnp.where(given, values, own), given, (asked > 0) & ~given)
        law = jax.tree.map(lambda part: part[:num], law)
        mean, spread = law.moments()
        return Quantiles(mean, jnp.maximum(spread, LEAST_SPREAD), law)

    def bent(self, off: Any, law: Any) -> Any:
        """Return distances as a flow has them."""
        return super().bent(law.law.to_normal(law.expected + law.spread * off), law)

    def unbent(self, u: Any, law: Any) -> Any:
        """Return distances that are bent: the inverse of `bent`."""
        return (law.law.from_normal(super().unbent(u, law)) - law.expected) / law.spread


def moments_of(numbers: np.ndarray, mask: np.ndarray, weight: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return means of whole numbers, where the mask is 1, and standard deviations of their places."""
    columns = range(numbers.shape[1])
    means = np.array([_moments(numbers[:, j], mask[:, j] * weight)[0] for j in columns])
    off = grid.places(numbers) - grid.places(means)
    scale = np.array([_moments(off[:, j], mask[:, j] * weight)[1] for j in columns])
    return means, np.maximum(scale, LEAST_SPREAD)


def mixture_of(
    frame: MixedFrame, points: np.ndarray, weight: np.ndarray, folds: np.ndarray, until: float | None = None
) -> GaussianMixture | None:
    """Return the mixture of the places of whole numbers, and of continuous ones; None of none, or of many.

    Parameters
    ----------
    frame, points
        The frame of a table, and its points of the rows, NaN where they have gaps.
    weight, folds, until
        As `fit_mixture` takes them.
    """
    num = len(frame.levels)
    codes, values = points[:, :num], points[:, num:].copy()
    if not 0 < values.shape[1] <= _MOST_MIXED:
        return None
    whole = [column for column in frame.columns if column.kind == "whole"]
    if whole:
        grid, numbers = Grid.of(whole), np.nan_to_num(values[:, : len(whole)])
        # Anywhere in its cell: a number alone would have a component of no width.
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, numbers.shape)
        places = grid.places(numbers) + grid.widths(numbers) * noise
        values[:, : len(whole)] = np.where(np.isnan(values[:, : len(whole)]), np.nan, places)
    values[~frame.are_on(codes)] = np.nan
    return padded(fit_mixture(values, codes, frame.levels, weight, folds, until))


def _indicators(codes: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """Return 1 for the level of each code that a row has, else 0; zeros for a code of many levels."""
    kinds = [np.eye(n) if n <= _MOST_LEVELS else np.zeros((n, n)) for n in levels]
    of_codes = [kind[codes[:, i].astype(int)] for i, kind in enumerate(kinds)]
    return np.concatenate([np.zeros((len(codes), 0)), *of_codes], axis=1)


def _least_squares(told: np.ndarray, wanted: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    """Return the line that explains most of what is wanted, or None where that is less than half of it."""
    root = np.sqrt(weight)
    told, wanted = told * root[:, None], wanted * root
    size = np.linalg.norm(told, axis=0)
    size[size == 0] = 1.0
    found = np.linalg.lstsq(told / size, wanted)[0] / size
    explains = np.sum((wanted - told @ found) ** 2) < np.sum(wanted**2) / 2
    return found if explains else None


def _moments(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, zeros where there are no rows."""
    if not weight.any():
        return 0.0, 0.0
    loc = np.average(values, weights=weight)
    return float(loc), float(np.sqrt(np.average((values - loc) ** 2, weights=weight)))

"""Bijections that make data look Gaussian: column by column, or by the distance from the centre."""

from typing import Any

import equinox as eqx
import numpy as np
from scipy import stats

from .._types import Condition, FixedMixin, Key, Point, Rows, constant
from ._base import AbstractBijection, Moved
from ._splines import evaluate, fit_knots, invert, namespace

NUM_KNOTS = 200
# Each knot is a parameter that costs 1 / (2 n) nats in expectation: this many rows keep that below a
# two-hundredth of a nat per column.
ROWS_PER_KNOT = 100
ROWS_BEYOND_TAIL_KNOT = 5
TINY = 1e-30


class GaussianMargins(FixedMixin, AbstractBijection):
    """A smooth monotone map of each column through its quantiles to normal scores.

    Hard edges and heavy tails stop costing the field. The log-determinant is exact.

    Parameters
    ----------
    table
        Knots, normal scores and slopes per column, of shape (3, columns, knots); constants.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.random.default_rng(0).exponential(size=(5000, 1))
    >>> z, log_det = GaussianMargins.fit(rows, np.ones(5000)).inverse_and_log_det(rows)
    >>> print(abs(z.mean()) < 0.02, abs(z.std() - 1) < 0.02)
    True True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    table: np.ndarray

    def __init__(self, table):
        self.table = constant(table)
        self.shape, self.cond_shape = (self.table.shape[1],), None

    @staticmethod
    def fit(x: Rows, weight: np.ndarray) -> "GaussianMargins":
        """Return the map through the quantiles of the weighted rows."""
        columns = []
        for column in x.T:
            levels, quantiles = weighted_quantiles(column, weight)
            middle = np.interp([0.25, 0.75], levels, quantiles)
            min_gap = 1e-4 * max(middle[1] - middle[0], 1e-6 * (quantiles[-1] - quantiles[0]))
            columns.append(fit_knots(quantiles, stats.norm.ppf(levels), num_knots=NUM_KNOTS, min_gap=min_gap))
        return GaussianMargins(np.stack(columns, axis=1))

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map normal scores to columns."""
        x, log_slope = invert(self.table, z)
        return Moved(x, log_slope.sum(-1))

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map columns to normal scores."""
        z, log_slope = evaluate(self.table, x)
        return Moved(z, log_slope.sum(-1))


class GaussianRadius(FixedMixin, AbstractBijection):
    """A monotone map of the distance from the centre to that of a standard normal vector.

    Directions stay. Data whose scale varies from row to row (flat and busy image patches, calm and
    wild days) are far from Gaussian in the distance alone, over orders of magnitude, which costs a
    field dear; this takes it out in closed form (radial Gaussianization; Lyu and Simoncelli, 2009).
    The curve maps the logarithm of one distance to that of the other; the log-determinant is exact.

    Parameters
    ----------
    table
        Knots, values and slopes of the curve, of shape (3, 1, knots); constants.
    size
        Number of columns, at least 2.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.random.default_rng(0).standard_t(2, size=(5000, 1)) * np.ones((1, 8))
    >>> rows = rows * np.random.default_rng(1).normal(size=(5000, 8))
    >>> z, log_det = GaussianRadius.fit(rows, np.ones(5000)).inverse_and_log_det(rows)
    >>> print(abs((z**2).sum(1).mean() / 8 - 1) < 0.02)
    True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    table: np.ndarray

    def __init__(self, table, size: int):
        self.table = constant(table)
        self.shape, self.cond_shape = (size,), None

    @staticmethod
    def fit(x: Rows, weight: np.ndarray) -> "GaussianRadius":
        """Return the map through the quantiles of the weighted rows' distances from the origin."""
        size = x.shape[1]
        levels, quantiles = weighted_quantiles(_log_radius(x), weight)
        scores = np.log(stats.chi.ppf(levels, size))
        table = fit_knots(quantiles, scores, num_knots=NUM_KNOTS, min_gap=1e-6)
        # Below the first knot the distances are only rescaled, so that the map is smooth at the origin.
        table[2, 0] = 1.0
        return GaussianRadius(table[:, None, :], size)

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Stretch normal distances to the data's."""
        return self._stretch(invert, z)

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Stretch the data's distances to normal ones."""
        return self._stretch(evaluate, x)

    def _stretch(self, curve, x: Point) -> Moved:
        before = _log_radius(x)[..., None]
        after, log_slope = curve(self.table, before)
        stretch = after - before
        return Moved(x * namespace(x).exp(stretch), (self.shape[0] * stretch + log_slope)[..., 0])


def _log_radius(x) -> Any:
    """Return the logarithm of the distance from the origin, finite at the origin too."""
    xp = namespace(x)
    return 0.5 * xp.log((x**2).sum(-1) + TINY)


def weighted_quantiles(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return levels in (0, 1) and the weighted quantiles of `x` there.

    Equal steps in the middle; in the tails, levels that halve down to the outermost few rows.
    """
    rows = np.count_nonzero(weight)
    num_levels = int(np.clip(rows / ROWS_PER_KNOT, 8, NUM_KNOTS - 40))
    levels = (np.arange(num_levels) + 0.5) / num_levels
    tail = levels[0] / 2 ** np.arange(1, 20)
    tail = tail[tail * rows >= ROWS_BEYOND_TAIL_KNOT][::-1]
    levels = np.concatenate([tail, levels, 1 - tail[::-1]])
    order = np.argsort(x, kind="stable")
    mass = weight[order] / weight.sum()
    return levels, np.interp(levels, np.cumsum(mass) - mass / 2, x[order])

"""Monotone curves through knots, with their inverse and slope in closed form.

The curve is the rational quadratic spline of Gregory and Delbourgo (1982), with the knot slopes of
PCHIP (Fritsch and Butland, 1984). Like PCHIP it keeps the data's monotony; unlike PCHIP its inverse
needs no root finding. Beyond the last knots the curve goes on as a straight line.

All functions work on NumPy and JAX arrays alike, in the precision of what they are given.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import PchipInterpolator

MIN_SLOPE = 1e-3


def namespace(x):
    """Return the array library that `x` belongs to: NumPy or JAX's."""
    return np if isinstance(x, (np.ndarray, np.generic)) else jnp


def fit_knots(x: np.ndarray, y: np.ndarray, *, num_knots: int, min_gap: float) -> np.ndarray:
    """Return knots, values and slopes of the monotone curve through non-decreasing points.

    Parameters
    ----------
    x, y
        Non-decreasing abscissae and ordinates.
    num_knots
        Number of knots to return: missing ones are put on the upper straight line, where they change
        nothing.
    min_gap
        Points nearer than this to the one before are merged with it (repeated values).

    Returns
    -------
    ndarray of shape (3, num_knots)
        Knots, values, slopes; the slopes are floored, so that the curve can be inverted.
    """
    # Knots that rounding cannot tell apart would have no slope between them.
    min_gap = max(min_gap, 1e-12 * np.max(np.abs(x)))
    group = np.cumsum(np.concatenate([[0.0], np.diff(x) > min_gap])).astype(int)
    count = np.bincount(group)
    x, y = np.bincount(group, x) / count, np.bincount(group, y) / count
    if len(x) == 1:
        x, y = np.append(x, x + 1.0), np.append(y, y + 1.0)
    slope = np.maximum(PchipInterpolator(x, y).derivative()(x), MIN_SLOPE * (y[-1] - y[0]) / (x[-1] - x[0]))
    # The ends' slopes rule the tails: the mean slope of the outermost gaps, not an extrapolation.
    slope[[0, -1]] = (y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])
    extra = np.arange(1, num_knots - len(x) + 1) * (x[-1] - x[0]) / num_knots
    return np.stack(
        [
            np.concatenate([x, x[-1] + extra]),
            np.concatenate([y, y[-1] + slope[-1] * extra]),
            np.concatenate([slope, np.full(len(extra), slope[-1])]),
        ]
    )


def evaluate(table, x):
    """Return the curves' values at `x` and the logarithms of their slopes there.

    Parameters
    ----------
    table
        Knots, values and slopes of one curve per column, of shape (3, columns, knots).
    x
        Points, of shape (..., columns).
    """
    xp = namespace(x)
    x0, x1, y0, y1, d0, d1 = _bin(table, 0, x)
    secant = (y1 - y0) / (x1 - x0)
    w = xp.clip((x - x0) / (x1 - x0), 0.0, 1.0)
    bottom = secant + (d0 + d1 - 2 * secant) * w * (1 - w)
    inside = y0 + (y1 - y0) * (secant * w**2 + d0 * w * (1 - w)) / bottom
    slope = secant**2 * (d1 * w**2 + 2 * secant * w * (1 - w) + d0 * (1 - w) ** 2) / bottom**2
    beyond = d0 * xp.minimum(x - x0, 0.0) + d1 * xp.maximum(x - x1, 0.0)
    return inside + beyond, xp.log(slope)


def invert(table, y):
    """Return the points at which the curves take the values `y`, and the log-slopes of the inverse."""
    xp = namespace(y)
    x0, x1, y0, y1, d0, d1 = _bin(table, 1, y)
    secant = (y1 - y0) / (x1 - x0)
    rise, bend = xp.clip(y, y0, y1) - y0, d0 + d1 - 2 * secant
    a = (y1 - y0) * (secant - d0) + rise * bend
    b = (y1 - y0) * d0 - rise * bend
    c = -secant * rise
    w = 2 * c / (-b - xp.sqrt(xp.maximum(b**2 - 4 * a * c, 0.0)))
    x = x0 + w * (x1 - x0) + xp.minimum(y - y0, 0.0) / d0 + xp.maximum(y - y1, 0.0) / d1
    return x, -evaluate(table, x)[1]


def _bin(table, row: int, x):
    """Return both ends of the bin that holds `x`: knots, values and slopes."""
    knots = table[row]
    if namespace(x) is np:
        index = [np.searchsorted(k, c, side="right") for k, c in zip(knots, np.moveaxis(x, -1, 0), strict=True)]
        index = np.stack(index, axis=-1)
    else:
        index = jax.vmap(lambda k, c: jnp.searchsorted(k, c, side="right"), (0, -1), -1)(jnp.asarray(knots), x)
    low = namespace(x).clip(index - 1, 0, knots.shape[-1] - 2)
    columns = np.arange(knots.shape[0])
    table = np.asarray(table) if namespace(x) is np else jnp.asarray(table)
    ends = table[:, columns, low], table[:, columns, low + 1]
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1], ends[0][2], ends[1][2]

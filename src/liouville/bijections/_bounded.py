"""Numbers that end somewhere, on a scale that does not."""

from typing import Any

import equinox as eqx
import numpy as np

from .._types import Condition, FixedMixin, Key, Point, constant
from ._base import AbstractBijection, Moved
from ._splines import namespace


class Bounded(FixedMixin, AbstractBijection):
    """Columns between bounds: ``log(x - low)``, ``-log(high - x)``, or with both the logarithm of their ratio.

    A column without bounds stays as it is. A density may be infinite at a bound, and still be learned; at the bound,
    and beyond it, there is none.

    Parameters
    ----------
    low, high
        Bounds of each column, -inf or inf where there is none; constants.

    Examples
    --------
    >>> import numpy as np
    >>> z, log_det = Bounded([0.0, 0.0], [np.inf, 1.0]).inverse_and_log_det(np.array([1.0, 0.5]))
    >>> print(z, log_det.round(4))
    [0. 0.] 1.3863
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    low: np.ndarray
    high: np.ndarray

    def __init__(self, low, high):
        self.low, self.high = constant(low), constant(high)
        self.shape, self.cond_shape = self.low.shape, None

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map all numbers to those between the bounds."""
        xp = namespace(z)
        has_low, has_high = xp.isfinite(self.low), xp.isfinite(self.high)
        low, high = xp.where(has_low, self.low, 0.0), xp.where(has_high, self.high, 0.0)
        between = low + (high - low) / (1 + xp.exp(-z))
        one_sided = xp.where(has_low, low + xp.exp(xp.where(has_low, z, 0)), high - xp.exp(xp.where(has_low, 0, -z)))
        x: Any = xp.where(has_low & has_high, between, xp.where(has_low | has_high, one_sided, z))
        return Moved(x, -self._log_slope(x))

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map numbers between the bounds to all numbers."""
        xp = namespace(x)
        is_inside = (x > self.low) & (x < self.high)
        # What cannot be stands somewhere inside, and has no density.
        inside: Any = xp.where(is_inside, x, self.to_data(xp.zeros_like(x)).x)  # pyright: ignore[reportArgumentType]
        above, below = self._logs(inside)
        z: Any = xp.where(xp.isfinite(self.low) | xp.isfinite(self.high), above - below, inside)
        return Moved(z, self._log_slope(inside) + xp.where(is_inside, 0.0, -xp.inf).sum(-1))

    def stretch(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ``dx/dz`` of each column, and the slope of ``log(dz/dx)`` as x changes."""
        below = np.where(np.isfinite(self.low), 1 / (x - self.low), 0.0)
        above = np.where(np.isfinite(self.high), 1 / (self.high - x), 0.0)
        is_bounded = np.isfinite(self.low) | np.isfinite(self.high)
        return 1 / np.where(is_bounded, below + above, 1.0), above - below

    def _logs(self, x: Point):
        """Return the logarithms of the distances from both bounds, 0 from one that is not there."""
        xp = namespace(x)
        above = xp.log(xp.where(xp.isfinite(self.low), x - self.low, 1.0))
        return above, xp.log(xp.where(xp.isfinite(self.high), self.high - x, 1.0))

    def _log_slope(self, x: Point):
        xp = namespace(x)
        both = xp.isfinite(self.low) & xp.isfinite(self.high)
        length = xp.log(xp.where(both, self.high - self.low, 1.0))
        return (length - sum(self._logs(x))).sum(-1)

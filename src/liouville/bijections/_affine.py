"""Affine bijections that are fitted in closed form."""

import equinox as eqx
import numpy as np

from .._types import Condition, FixedMixin, Key, Point, Rows, constant
from ._base import AbstractBijection, Moved
from ._splines import namespace


class Standardize(FixedMixin, AbstractBijection):
    """``x = loc + scale * z``, column by column.

    Like all bijections that are fitted in closed form, it takes points with leading axes too, and
    computes in NumPy's float64 where it is given NumPy arrays: that is how tables keep their digits.

    Parameters
    ----------
    loc, scale
        Centre and scale of each column; constants.

    Examples
    --------
    >>> import numpy as np
    >>> x, log_det = Standardize([1.0], [2.0]).transform_and_log_det(np.array([3.0]))
    >>> print(x, round(float(log_det), 3))
    [7.] 0.693
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    loc: np.ndarray
    scale: np.ndarray

    def __init__(self, loc, scale):
        self.loc, self.scale = constant(loc), constant(scale)
        self.shape, self.cond_shape = self.loc.shape, None

    @staticmethod
    def fit(x: Rows, weight: np.ndarray) -> "Standardize":
        """Return the map with the mean and the standard deviation of the weighted rows."""
        loc = np.average(x, axis=0, weights=weight)
        # Scaled by the largest deviation first, so that columns of size 1e200 do not overflow.
        largest = np.max(np.abs(x - loc), axis=0)
        scale = largest * np.sqrt(np.average(((x - loc) / largest) ** 2, axis=0, weights=weight))
        return Standardize(loc, scale)

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return ``loc + scale * z`` and the sum of the log-scales."""
        return Moved(self.loc + self.scale * z, self._log_scale(z))  # pyright: ignore[reportArgumentType]

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return ``(x - loc) / scale`` and minus the sum of the log-scales."""
        return Moved((x - self.loc) / self.scale, -self._log_scale(x))

    def stretch(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ``dx/dz`` of each column, and the slope of ``log(dz/dx)`` as x changes: none."""
        return np.broadcast_to(self.scale, x.shape), np.zeros(x.shape)

    def _log_scale(self, points: Point):
        """Return the sum of the log-scales for each of the points."""
        return namespace(self.scale).log(self.scale).sum() + 0 * points[(..., *(0 for _ in self.shape))]


class Whiten(FixedMixin, AbstractBijection):
    """``x = loc + factor @ z`` with ``factor @ factor.T`` the covariance: principal axes, at unit scale.

    Parameters
    ----------
    loc
        Centre; a constant.
    axes
        Orthonormal columns: the principal axes.
    scale
        Standard deviation along each axis.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.random.default_rng(0).normal(size=(500, 2)) @ np.array([[1.0, 0.9], [0.0, 0.1]])
    >>> z, log_det = Whiten.fit(rows, np.ones(500)).inverse_and_log_det(rows)
    >>> bool(np.allclose(np.cov(z.T, ddof=0), np.eye(2)))
    True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    loc: np.ndarray
    axes: np.ndarray
    scale: np.ndarray

    def __init__(self, loc, axes, scale):
        self.loc, self.axes, self.scale = constant(loc), constant(axes), constant(scale)
        self.shape, self.cond_shape = self.loc.shape, None

    @staticmethod
    def fit(x: Rows, weight: np.ndarray) -> "Whiten":
        """Return the map with the mean and the covariance of the weighted rows."""
        loc = np.average(x, axis=0, weights=weight)
        covariance = np.atleast_2d(np.cov(x, rowvar=False, aweights=weight, ddof=0))
        variances, axes = np.linalg.eigh(covariance)
        # The sign of an eigenvector is arbitrary: fix it, so that the same data give the same map.
        signs = np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(len(loc))])
        floor = np.finfo(np.float64).eps * len(loc) * variances[-1]
        return Whiten(loc, axes * signs, np.sqrt(np.maximum(variances, floor)))

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return ``loc + factor @ z`` and half the covariance's log-determinant."""
        x = self.loc + (self.scale * z) @ self.axes.T
        return Moved(x, namespace(self.scale).log(self.scale).sum() + 0 * z[..., 0])  # pyright: ignore[reportArgumentType]

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return the principal components at unit scale, and minus half the log-determinant."""
        z = (x - self.loc) @ self.axes / self.scale
        return Moved(z, -namespace(self.scale).log(self.scale).sum() + 0 * x[..., 0])

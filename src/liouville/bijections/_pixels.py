"""From pixels between 0 and 1 to all numbers."""

import math

import equinox as eqx

from .._types import Condition, Key, Point, Scalar
from ._base import AbstractBijection
from ._splines import namespace


class Logit(AbstractBijection):
    """``z = logit(alpha + (1 - 2 alpha) x)``: pixels between 0 and 1 (Dinh and others, Real NVP, 2017, section 4.1).

    Parameters
    ----------
    shape
        Shape of one point.
    alpha
        Distance from 0 and 1 that pixels are squeezed to: 1e-5 for MNIST, 0.05 for CIFAR-10 in FFJORD and RNODE.

    Raises
    ------
    ValueError
        Where `alpha` is not between 0 and a half.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x, log_det = Logit((1,), alpha=0.05).transform_and_log_det(jnp.array([0.0]))
    >>> print(x)
    [0.5]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    alpha: float = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...], alpha: float = 1e-5):
        if not 0 < alpha < 0.5:
            raise ValueError(f"Expected alpha between 0 and 0.5, got {alpha}; try alpha=0.05.")
        self.shape, self.cond_shape, self.alpha = tuple(shape), None, alpha

    def transform_and_log_det(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map all numbers to pixels."""
        # The sigmoid of z, by the one of its forms that never overflows.
        squeezed = 0.5 * (1 + namespace(z).tanh(0.5 * z))
        x = (squeezed - self.alpha) / (1 - 2 * self.alpha)
        return x, -self._log_slope(z)  # pyright: ignore[reportReturnType]

    def inverse_and_log_det(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map pixels to all numbers."""
        xp = namespace(x)
        squeezed = self.alpha + (1 - 2 * self.alpha) * x
        z = xp.log(squeezed) - xp.log1p(-squeezed)
        return z, self._log_slope(z)  # pyright: ignore[reportReturnType, reportArgumentType]

    def _log_slope(self, z: Point) -> Scalar:
        """Return the logarithm of ``dz/dx``, summed over the pixels."""
        xp = namespace(z)
        # Of y = sigmoid(z): -log y - log(1 - y), without the loss of digits near 0 and 1.
        entries = xp.abs(z) + 2 * xp.log1p(xp.exp(-xp.abs(z))) + math.log(1 - 2 * self.alpha)
        return entries.sum(tuple(range(-len(self.shape), 0)))

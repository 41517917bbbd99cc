"""From pixels between 0 and 1 to all numbers."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from scipy import special

from .._types import Condition, FixedMixin, Key, Point, Scalar, constant
from ._base import AbstractBijection, Moved
from ._splines import namespace

BLOCK_PIXELS = 2**24
# Noise of float32 can be 0: a pixel on the edge of its level would have an infinite score.
LEAST_SHARE = 2.0**-24


class Logit(FixedMixin, AbstractBijection):
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

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map all numbers to pixels."""
        # The sigmoid of z, by the one of its forms that never overflows.
        squeezed = 0.5 * (1 + namespace(z).tanh(0.5 * z))
        x = (squeezed - self.alpha) / (1 - 2 * self.alpha)
        return Moved(x, -self._log_slope(z))  # pyright: ignore[reportArgumentType]

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map pixels to all numbers."""
        xp = namespace(x)
        squeezed = self.alpha + (1 - 2 * self.alpha) * x
        z = xp.log(squeezed) - xp.log1p(-squeezed)
        return Moved(z, self._log_slope(z))  # pyright: ignore[reportArgumentType]

    def _log_slope(self, z: Point) -> Scalar:
        """Return the logarithm of ``dz/dx``, summed over the pixels."""
        xp = namespace(z)
        # Of y = sigmoid(z): -log y - log(1 - y), without the loss of digits near 0 and 1.
        entries = xp.abs(z) + 2 * xp.log1p(xp.exp(-xp.abs(z))) + math.log(1 - 2 * self.alpha)
        return entries.sum(tuple(range(-len(self.shape), 0)))


class PixelMargins(FixedMixin, AbstractBijection):
    """Each pixel between 0 and 1 through its own distribution function to a normal score.

    A whole number with uniform noise has a density of steps, one for each level, so this map is exact where a curve
    through quantiles would be smooth: pixels that are nearly always black become as normal as all others, and a flow
    that starts at the identity starts at the product of the pixels' own histograms. The log-determinant is exact.

    Parameters
    ----------
    probability
        Of each level of each pixel, positive, of shape ``(height, width, channels, levels)``; constants.

    Examples
    --------
    >>> import numpy as np
    >>> pixels = np.random.default_rng(0).binomial(3, 0.1, size=(2000, 2, 2, 1))
    >>> x = (pixels + np.random.default_rng(1).uniform(size=pixels.shape)) / 4
    >>> z, log_det = PixelMargins.fit(pixels, 4).inverse_and_log_det(x)
    >>> print(abs(z.mean()) < 0.05, abs(z.std() - 1) < 0.05)
    True True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    edges: np.ndarray

    def __init__(self, probability):
        probability = constant(probability)
        upwards = lambda p: np.cumsum(p, axis=-1) - p
        # Below each level, of it, and above it: summed here, in float64 and from either end, where no digits are lost.
        self.edges = np.stack([upwards(probability), probability, upwards(probability[..., ::-1])[..., ::-1]])
        self.shape, self.cond_shape = probability.shape[:-1], None

    @staticmethod
    def fit(pixels: np.ndarray, levels: int, weight: np.ndarray | None = None) -> "PixelMargins":
        """Return the map of whole numbers ``(n, height, width, channels)``, by how often each pixel has each level.

        A picture of weight 2 counts like two.
        """
        size, weight = int(np.prod(pixels.shape[1:])), np.ones(len(pixels)) if weight is None else weight
        counts, start = np.zeros(size * levels), levels * np.arange(size)
        num_blocks = 1 + pixels.size // BLOCK_PIXELS
        for block, share in zip(np.array_split(pixels, num_blocks), np.array_split(weight, num_blocks), strict=True):
            numbers = start + block.reshape(len(block), size).astype(np.int64)
            # Plain counts need no weights of as many entries.
            each = None if np.all(share == 1) else np.repeat(share, size)
            counts += np.bincount(numbers.ravel(), each, minlength=size * levels)
        counts = counts.reshape(size, levels)
        # What a pixel has not shown yet it may show in the next picture: one more picture's worth of what all show.
        pooled = (counts.sum(axis=0) + 1) / (counts.sum() + levels)
        return PixelMargins(((counts + pooled) / (weight.sum() + 1)).reshape(*pixels.shape[1:], levels))

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map normal scores to pixels."""
        cdf, _ = normal_functions(z)
        lower, upper = cdf(z), cdf(-z)
        level = (self.edges[0, ..., 1:] <= lower[..., None]).sum(-1)
        start, height, end = (at_level(part, level) for part in self.edges)
        xp = namespace(z)
        share = xp.where(lower < 0.5, (lower - start) / height, 1 - (upper - end) / height)
        x = (level.astype(lower.dtype) + xp.clip(share, LEAST_SHARE, 1 - LEAST_SHARE)) / self.edges.shape[-1]
        return Moved(x, -self._log_slope(z, height))  # pyright: ignore[reportArgumentType]

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map pixels to normal scores."""
        xp, levels = namespace(x), self.edges.shape[-1]
        whole = xp.clip(xp.floor(x * levels), 0, levels - 1)
        level, share = whole.astype(int), xp.clip(x * levels - whole, LEAST_SHARE, 1 - LEAST_SHARE)
        start, height, end = (at_level(part, level) for part in self.edges)
        _, quantile = normal_functions(x)
        lower, upper = start + share * height, end + (1 - share) * height
        # From the nearer end, where no digits are lost.
        z = xp.where(lower < 0.5, quantile(xp.minimum(lower, 0.5)), -quantile(xp.minimum(upper, 0.5)))
        return Moved(z, self._log_slope(z, height))  # pyright: ignore[reportArgumentType]

    def _log_slope(self, z: Point, height) -> Scalar:
        """Return the logarithm of ``dz/dx``, summed over pixels, given the probabilities of their levels."""
        xp = namespace(z)
        log_normal = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
        entries = xp.log(height) + math.log(self.edges.shape[-1]) - log_normal
        return entries.sum(tuple(range(-len(self.shape), 0)))


def at_level(table: Any, level: Any) -> Any:
    """Return the entry at its level of each pixel's row of a table."""
    xp = namespace(level)
    table = xp.broadcast_to(table, (*level.shape[: level.ndim + 1 - table.ndim], *table.shape))
    return xp.take_along_axis(table, level[..., None], axis=-1)[..., 0]


def normal_functions(x) -> tuple[Callable, Callable]:
    """Return the normal distribution function and its inverse, of the library that `x` belongs to."""
    functions = special if namespace(x) is np else jax.scipy.special
    return functions.ndtr, functions.ndtri

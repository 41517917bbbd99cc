"""A mixture of Gaussians: the law of each number given any others, all of them in closed form."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._types import FixedMixin, Point, Scalar, constant

# What is left of the variance of a column where others are known: less is rounding.
_ROUNDING = 1e-7
_BISECTIONS = 34


class Law(NamedTuple):
    """Laws of numbers, mixtures of Gaussians, of shape ``(..., components)``.

    Attributes
    ----------
    logs
        Logarithms of the components' shares.
    means, scales
        Their means and standard deviations.
    """

    logs: Array
    means: Array
    scales: Array

    def to_normal(self, x: Array) -> Array:
        """Return the standard normal numbers of the same quantiles as numbers of the laws: increasing."""
        off = (x[..., None] - self.means) / self.scales
        below, above = (jax.nn.logsumexp(self.logs + jax.scipy.special.log_ndtr(z), axis=-1) for z in (off, -off))
        # The smaller of both has all the digits.
        return jnp.where(below < above, 1.0, -1.0) * _log_quantile(jnp.minimum(below, above))

    def from_normal(self, u: Array) -> Array:
        """Return the numbers of the laws of the same quantiles as standard normal ones: the inverse, by bisection."""
        # Each component alone would have it here: all of them have it between.
        ends = self.means + self.scales * u[..., None]

        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            is_below = self.to_normal(middle) < u
            return jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)

        low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (ends.min(-1), ends.max(-1)))
        return 0.5 * (low + high)

    def log_density(self, x: Array) -> Array:
        """Return log-densities of numbers."""
        off = (x[..., None] - self.means) / self.scales
        return jax.nn.logsumexp(self.logs - 0.5 * off**2 - jnp.log(self.scales), axis=-1) - 0.5 * math.log(2 * math.pi)

    def moments(self) -> tuple[Array, Array]:
        """Return means and standard deviations."""
        shares = jnp.exp(self.logs)
        mean = jnp.sum(shares * self.means, axis=-1)
        return mean, jnp.sqrt(jnp.sum(shares * (self.scales**2 + (self.means - mean[..., None]) ** 2), axis=-1))


def _log_quantile(log_share: Array) -> Array:
    """Return the standard normal number below which a share of at most a half lies, of its logarithm."""
    # Far out the share is about exp(-u**2 / 2) / u / sqrt(2 pi).
    far = jnp.sqrt(jnp.maximum(-2 * log_share - math.log(2 * math.pi), 1.0))
    far = -jnp.sqrt(jnp.maximum(far**2 - 2 * jnp.log(far), 1.0))
    is_near = log_share > -10.0
    u = jnp.where(is_near, jax.scipy.special.ndtri(jnp.exp(jnp.where(is_near, log_share, -1.0))), far)
    for _ in range(2):
        log_ndtr = jax.scipy.special.log_ndtr(u)
        slope = jnp.exp(-0.5 * u**2 - 0.5 * math.log(2 * math.pi) - log_ndtr)
        u = jnp.where(is_near, u, u - (log_ndtr - log_share) / slope)
    return u


class GaussianMixture(FixedMixin, eqx.Module):
    """A mixture of Gaussians of all numbers of a row, times shares of levels of its codes.

    Parameters
    ----------
    log_weights
        Logarithms of the components' weights, of shape ``(components,)``.
    means, covariances
        Of shape ``(components, numbers)`` and ``(components, numbers, numbers)``.
    shares
        For each code logarithms of its levels' shares, of shape ``(components, levels)``.
    folds
        The fold of the rows that each component was fitted to, -1 of all; None is -1.

    Examples
    --------
    >>> mixture = GaussianMixture([0.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]])
    >>> logs = mixture.logs(jnp.zeros(0), jnp.zeros(0), -1.0)
    >>> law = mixture.laws(logs, jnp.array([2.0, 0.0]), jnp.array([True, False]), jnp.array([False, True]))
    >>> print(f"{law.means[1, 0]:.3f}, {law.scales[1, 0]:.3f}")
    1.000, 0.866
    """

    log_weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    shares: tuple[np.ndarray, ...]
    folds: np.ndarray

    def __init__(self, log_weights, means, covariances, shares=(), folds=None):
        self.log_weights = constant(log_weights)
        size = len(self.log_weights)
        self.means = np.reshape(constant(means), (size, -1))
        num = self.means.shape[1]
        self.covariances = np.reshape(constant(covariances), (size, num, num))
        self.shares = tuple(np.reshape(constant(logs), (size, -1)) for logs in shares)
        self.folds = constant(np.full(size, -1.0) if folds is None else folds)

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.log_weights)

    @property
    def num(self) -> int:
        """How many numbers a row has."""
        return self.means.shape[1]

    def logs(self, codes: Point, are_known: Array, fold: Scalar | float) -> Float[Array, " components"]:
        """Return logarithms of the components' weights times the shares of the codes that are known.

        Those of components that were fitted to the row's own fold, if it has one, are -inf.
        """
        is_own = (jnp.asarray(self.folds, codes.dtype) == fold) & (jnp.asarray(fold) >= 0)
        total = jnp.where(is_own, -jnp.inf, jnp.asarray(self.log_weights, codes.dtype))
        for code, is_known, logs in zip(codes, are_known, self.shares, strict=True):
            of_level = jnp.asarray(logs, codes.dtype)[:, jnp.clip(code.astype(int), 0, logs.shape[1] - 1)]
            total = total + jnp.where(is_known > 0, of_level, 0.0)
        return total

    def laws(self, logs: Array, values: Point, given: Bool[Array, " numbers"], asked: Bool[Array, " numbers"]) -> Law:
        """Return the law of each number that is asked for, given what is given and those asked for before it."""
        return self._walk(logs, values, given, asked, None)[1]

    def draw(
        self, logs: Array, values: Point, given: Bool[Array, " numbers"], asked: Bool[Array, " numbers"], u: Point
    ) -> Point:
        """Return numbers that are asked for, of the quantiles of standard normal ones."""
        return self._walk(logs, values, given, asked, u)[0]

    def _walk(self, logs: Array, values: Point, given: Array, asked: Array, u: Point | None) -> tuple[Point, Law]:
        dtype = values.dtype
        order = jnp.argsort(jnp.where(given, 0, jnp.where(asked, 1, 2)), stable=True)

        def step(carry: tuple, j: Array) -> tuple[tuple, tuple]:
            logs, means, covariances = carry
            variance = jnp.maximum(covariances[:, j, j], _ROUNDING * most[j])
            law = Law(jax.nn.log_softmax(logs), means[:, j], jnp.sqrt(variance))
            value = values[j] if u is None else jnp.where(given[j], values[j], law.from_normal(u[j]))
            is_known, off = given[j] | asked[j], value - means[:, j]
            slopes = jnp.where(is_known, covariances[:, j] / variance[:, None], 0.0)
            logs = logs - jnp.where(is_known, 0.5 * (off**2 / variance + jnp.log(variance)), 0.0)
            means = means + slopes * off[:, None]
            return (logs, means, covariances - slopes[:, :, None] * covariances[:, None, j]), (value, law)

        start = (logs, jnp.asarray(self.means, dtype), jnp.asarray(self.covariances, dtype))
        most = jnp.max(jnp.diagonal(start[2], axis1=1, axis2=2), axis=0)
        found = jax.lax.scan(step, start, order)[1]
        back = jnp.argsort(order)
        return jax.tree.map(lambda part: part[back], found)


class Beside(FixedMixin, eqx.Module):
    """A mixture of Gaussians beside a flow: numbers are of the flow with a share, else of the mixture.

    Parameters
    ----------
    mixture
        The mixture.
    share
        The flow's share, 1 until both have been weighed.
    """

    mixture: GaussianMixture
    share: np.ndarray

    def __init__(self, mixture: GaussianMixture, share: float = 1.0):
        self.mixture, self.share = mixture, constant(share)

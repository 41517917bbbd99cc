"""Targets with a sampler and a log-density in closed form."""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp


@dataclasses.dataclass(frozen=True)
class Target:
    """A distribution that is known.

    Attributes
    ----------
    name
        Its name.
    size
        Number of columns.
    sample
        Function of a NumPy generator and a number of rows that draws rows of shape ``(n, size)``.
    log_prob
        Function of rows that returns their log-densities in nats, exactly.
    """

    name: str
    size: int
    sample: Callable[[np.random.Generator, int], np.ndarray]
    log_prob: Callable[[np.ndarray], np.ndarray]


def mixture(name: str, centres: np.ndarray, scales: np.ndarray) -> Target:
    """Return an equal mixture of round Gaussians."""
    size = centres.shape[1]

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        which = rng.integers(0, len(centres), n)
        return centres[which] + rng.normal(size=(n, size)) * scales[which, None]

    def log_prob(x: np.ndarray) -> np.ndarray:
        squares = ((x[:, None] - centres) ** 2).sum(-1) / scales**2
        terms = -0.5 * squares - size * np.log(scales) - size / 2 * np.log(2 * np.pi)
        return logsumexp(terms, axis=1) - np.log(len(centres))

    return Target(name, size, sample, log_prob)


def six_gaussians() -> Target:
    """Return six Gaussians of variance 0.5 on a circle of radius 4 (torchdyn's tutorial).

    Examples
    --------
    >>> target = six_gaussians()
    >>> rows = target.sample(np.random.default_rng(0), 20000)
    >>> print(round(-target.log_prob(rows).mean(), 1))
    3.9
    """
    angles = np.arange(6) * np.pi / 3
    centres = 4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return mixture("six Gaussians", centres, np.full(6, np.sqrt(0.5)))


def three_modes() -> Target:
    """Return three modes of different widths on a line."""
    return mixture("three modes", np.array([[-4.0], [0.0], [3.0]]), np.array([0.3, 1.0, 0.5]))


def banana() -> Target:
    """Return a Gaussian bent along a parabola: ``y ~ N(x^2 / 2, 1)`` with ``x ~ N(0, 4)``."""

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        x = rng.normal(size=(n, 2)) * [2.0, 1.0]
        x[:, 1] += 0.5 * x[:, 0] ** 2
        return x

    def log_prob(x: np.ndarray) -> np.ndarray:
        across, along = x[:, 1] - 0.5 * x[:, 0] ** 2, x[:, 0] / 2
        return -0.5 * (across**2 + along**2) - np.log(2.0) - np.log(2 * np.pi)

    return Target("banana", 2, sample, log_prob)


def two_moons(radius: float = 2.0, noise: float = 0.2) -> Target:
    """Return two half circles, one upside down, which reach into each other, blurred (FlowJAX's).

    Its log-density is a quadrature along the half circles: exact to rounding.

    Parameters
    ----------
    radius
        Of both; the upper one's centre is half of it to the left of the origin, the lower one's to the right.
    noise
        Standard deviation of the noise in each column.

    Examples
    --------
    >>> target = two_moons()
    >>> rows = target.sample(np.random.default_rng(0), 5000)
    >>> print(round(-target.log_prob(rows).mean(), 1))
    2.4
    """
    # Some nodes for each standard deviation of the noise along the arc.
    nodes, weights = np.polynomial.legendre.leggauss(40 + int(8 * radius / noise))
    angles = np.pi / 2 * (nodes + 1)
    upper = radius * np.stack([np.cos(angles) - 0.5, np.sin(angles)], axis=1)
    points, log_weights = np.concatenate([upper, -upper]), np.log(np.tile(weights, 2) / 4)

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        angle = np.pi * rng.random(n)
        arc = radius * np.stack([np.cos(angle) - 0.5, np.sin(angle)], axis=1)
        return arc * rng.choice([-1, 1], n)[:, None] + noise * rng.normal(size=(n, 2))

    def log_prob(x: np.ndarray) -> np.ndarray:
        found = np.empty(len(x))
        for rows in np.array_split(np.arange(len(x)), len(x) // 2000 + 1):
            found[rows] = logsumexp(-cdist(x[rows], points, "sqeuclidean") / (2 * noise**2) + log_weights, axis=1)
        return found - np.log(2 * np.pi * noise**2)

    return Target("two moons", 2, sample, log_prob)

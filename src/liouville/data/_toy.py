"""Targets with a sampler and a log-density in closed form."""

import dataclasses
from collections.abc import Callable

import numpy as np
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

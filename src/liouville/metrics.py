"""Figures of merit, and the densities that anybody has at hand to compare with."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from ._types import Rows
from .bijections import Standardize

MIXTURE_SIZES = (1, 2, 4, 8, 16)
MOST_MIXTURE_ROWS = 20_000
MOST_KERNEL_ROWS = 4_000


class Likelihood(NamedTuple):
    """A negative log-likelihood per row in nats, its standard error, and what it is of."""

    name: str
    nll: float
    std_error: float


def likelihood(name: str, log_prob: np.ndarray) -> Likelihood:
    """Return the mean of minus log-densities with its standard error.

    Examples
    --------
    >>> print(likelihood("a", np.array([-1.0, -3.0])).nll)
    2.0
    """
    return Likelihood(name, float(-np.mean(log_prob)), float(np.std(log_prob, ddof=1) / np.sqrt(len(log_prob))))


def bits_per_dim(nll: float, size: int) -> float:
    """Return nats per row as bits per column: ``nll / (size log 2)``.

    Examples
    --------
    >>> print(bits_per_dim(2 * np.log(2.0), 2))
    1.0
    """
    return nll / (size * np.log(2.0))


def baselines(train: Rows, test: Rows, seed: int = 0) -> list[Likelihood]:
    """Return the test likelihoods of a Gaussian, a Gaussian mixture and a kernel density.

    The mixture's number of components is chosen by BIC, the kernel's bandwidth by cross-validation; both
    see at most some thousand rows of `train`, chosen at random, as their time grows steeply. All work in
    standardized columns, and are brought back to the data's units.
    """
    scale = Standardize.fit(train, np.ones(len(train)))
    rows, _ = scale.inverse_and_log_det(train)
    points, log_det = scale.inverse_and_log_det(test)
    rng = np.random.default_rng(seed)
    models = {"Gaussian": fit_gaussian, "Gaussian mixture (BIC)": fit_mixture, "kernel density (CV)": fit_kernel}
    return [likelihood(name, fit(np.asarray(rows), rng)(points) + log_det) for name, fit in models.items()]


def fit_gaussian(rows: Rows, rng: np.random.Generator) -> Callable[[Rows], np.ndarray]:
    """Return the log-density of the Gaussian with the rows' mean and covariance."""
    return GaussianMixture(1, random_state=0).fit(rows).score_samples


def fit_mixture(rows: Rows, rng: np.random.Generator) -> Callable[[Rows], np.ndarray]:
    """Return the log-density of the Gaussian mixture whose number of components has the least BIC."""
    rows = rows[rng.permutation(len(rows))[:MOST_MIXTURE_ROWS]]
    sizes = [k for k in MIXTURE_SIZES if k * (rows.shape[1] + 1) <= len(rows)] or [1]
    fitted = [GaussianMixture(k, random_state=0, reg_covar=1e-6).fit(rows) for k in sizes]
    return min(fitted, key=lambda model: model.bic(rows)).score_samples


def fit_kernel(rows: Rows, rng: np.random.Generator) -> Callable[[Rows], np.ndarray]:
    """Return the log-density of the Gaussian kernel density whose bandwidth does best in cross-validation."""
    rows = rows[rng.permutation(len(rows))[:MOST_KERNEL_ROWS]]
    scott = len(rows) ** (-1 / (rows.shape[1] + 4))
    search = GridSearchCV(KernelDensity(), {"bandwidth": scott * np.geomspace(0.1, 2.0, 9)}, cv=3)
    return search.fit(rows).best_estimator_.score_samples

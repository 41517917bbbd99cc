"""Figures of merit, and the densities that anybody has at hand to compare with."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from scipy.linalg import solve_triangular
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity

from . import evaluation
from ._copies import first_copies
from ._types import Rows
from .density import Density
from .flows import FlowSpec, MixedSpec
from .frames import fit_table
from .mixed import Column, fit_mixed

_MIXTURE_SIZES = (1, 2, 4, 6, 8, 12, 16, 20)
_MOST_MIXTURE_ROWS = 10_000
_MOST_CHOOSING_ROWS = 2_000
_MOST_KERNEL_ROWS = 10_000


class Likelihood(NamedTuple):
    """How well a density predicts rows.

    Attributes
    ----------
    name
        What the density is.
    nll
        Mean negative log-likelihood per row, in nats.
    std_error
        Standard error of it over the rows, in nats.
    """

    name: str
    nll: float
    std_error: float


def likelihood(name: str, log_prob: np.ndarray) -> Likelihood:
    """Return the mean of minus log-densities with its standard error, in nats.

    Parameters
    ----------
    name
        What the density is.
    log_prob
        Log-densities of two rows or more, in nats. NaN makes the result NaN: it is never left out.

    Raises
    ------
    ValueError
        Where there are fewer than two rows: one has no standard error.

    Examples
    --------
    >>> print(likelihood("a", np.array([-1.0, -3.0])).nll)
    2.0
    """
    if len(log_prob) < 2:
        raise ValueError(f"Expected 2 or more rows for a standard error, got {len(log_prob)}; try more rows.")
    return Likelihood(name, float(-np.mean(log_prob)), float(np.std(log_prob, ddof=1) / np.sqrt(len(log_prob))))


def bits_per_dim(nll: float, size: int) -> float:
    """Return nats per row as bits per column: ``nll / (size log 2)``.

    Parameters
    ----------
    nll
        Negative log-likelihood per row, in nats.
    size
        Number of columns.

    Examples
    --------
    >>> print(bits_per_dim(2 * np.log(2.0), 2))
    1.0
    """
    return nll / (size * np.log(2.0))


def table_of(likelihoods: list[Likelihood], size: int) -> str:
    """Return lines with each NLL in nats and in bits per column, and their standard errors."""
    lines = [f"{'density':24}{'NLL (nats)':>12} {'std. error':>11}{'bits/dim':>11} {'std. error':>11}"]
    for name, nll, error in likelihoods:
        bits = [bits_per_dim(number, size) for number in (nll, error)]
        lines.append(f"{name:24}{nll:12.3f} {error:11.3f}{bits[0]:11.3f} {bits[1]:11.3f}")
    return "\n".join(lines)


def evaluate_baselines(train: Rows, test: Rows, seed: int = 0) -> list[Likelihood]:
    """Return the test likelihoods of a Gaussian, a Gaussian mixture and a kernel density.

    The Gaussian has a full covariance. The mixture's number of components is chosen by BIC, the kernel's
    bandwidth by cross-validation; both see at most some thousand rows of `train`, drawn at random, as
    their time grows with them. All work in standardized columns, and are brought back to the data's units.

    Parameters
    ----------
    train, test
        Rows to fit on, and rows to score, of shape ``(n, d)``.
    seed
        Seed of the draws.

    Returns
    -------
    list of Likelihood
        Nats per row, in the data's own units.
    """
    return [evaluate_baseline(name, train, test, seed) for name in BASELINES]


def evaluate_independent(columns: tuple[Column, ...], train: Rows, test: Rows) -> Likelihood:
    """Return the test likelihood of columns of several kinds that know nothing of each other.

    Levels and atoms have their shares, whole numbers the masses of a normal variable's cells, continuous ones its
    density: it is a `liouville.mixed.Mixed` that has learned nothing.

    Parameters
    ----------
    columns
        What the columns are.
    train, test
        Rows to fit on, and rows to score, as numbers.
    """
    weight = np.ones(len(train))
    frame, points = fit_mixed("standardize", train, weight, columns, by_column=True)
    size = sum(column.kind == "continuous" for column in columns)
    has_gaps = bool(np.isnan(points).any() or np.isnan(frame.encode(test)[0]).any())
    spec = MixedSpec.fit(FlowSpec(size, width=1, depth=0), frame, points, weight, of_subsets=has_gaps)
    untrained = spec(jax.random.key(0))
    return likelihood("independent columns", evaluation.score(Density(untrained, frame), test)[0])


def evaluate_baseline(name: str, train: Rows, test: Rows, seed: int = 0) -> Likelihood:
    """Return the test likelihood of one of `BASELINES`, as `evaluate_baselines` does of all."""
    frame, rows = fit_table("standardize", train, np.ones(len(train)))
    points, log_det = frame.encode(test)
    rows = rows[np.random.default_rng(seed).permutation(len(train))]
    return likelihood(name, BASELINES[name](rows, seed)(points) + log_det)


def fit_gaussian(rows: Rows, seed: int = 0) -> Callable[[Rows], np.ndarray]:
    """Return the log-density of the Gaussian with the rows' mean and covariance."""
    mean, size = rows.mean(axis=0), rows.shape[1]
    root = np.linalg.cholesky(np.atleast_2d(np.cov(rows.T)))
    log_scale = np.log(np.diag(root)).sum() + size / 2 * np.log(2 * np.pi)
    return lambda x: -0.5 * (solve_triangular(root, (x - mean).T, lower=True) ** 2).sum(axis=0) - log_scale


def fit_mixture(rows: Rows, seed: int = 0) -> Callable[[Rows], np.ndarray]:
    """Return the log-density of the Gaussian mixture whose number of components has the least BIC."""
    rows = rows[:_MOST_MIXTURE_ROWS]
    best, least = None, np.inf
    for size in _MIXTURE_SIZES:
        if best is not None and size * (rows.shape[1] + 1) > len(rows):
            break
        with warnings.catch_warnings():
            # A fit that has not quite converged is judged by its BIC like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = GaussianMixture(size, random_state=seed).fit(rows)
        bic = model.bic(rows)
        # Twice past the minimum: more components only cost time.
        if best is not None and bic > least and size >= 2 * best.n_components:
            break
        if bic < least:
            best, least = model, bic
    return best.score_samples  # pyright: ignore[reportOptionalMemberAccess]


def fit_kernel(rows: Rows, seed: int = 0) -> Callable[[Rows], np.ndarray]:
    """Return the log-density of the Gaussian kernel density whose bandwidth does best in cross-validation."""
    few, rows = rows[:_MOST_CHOOSING_ROWS], rows[:_MOST_KERNEL_ROWS]
    rate = -1 / (rows.shape[1] + 4)
    widths = len(few) ** rate * np.geomspace(0.05, 2.0, 12)
    # Copies of a row go to one side: otherwise the narrowest kernel would win.
    first, copy_of = first_copies(few)
    sides = [np.isin(copy_of, held_out) for _, held_out in KFold(3).split(first)]
    folds = [(np.flatnonzero(~side), np.flatnonzero(side)) for side in sides]
    search = GridSearchCV(KernelDensity(), {"bandwidth": widths}, cv=folds, refit=False).fit(few)
    # What is best for two thirds of a few rows is too wide for all: by Scott's rule it shrinks like this.
    width = search.best_params_["bandwidth"] * (len(rows) / (2 / 3 * len(few))) ** rate
    return KernelDensity(bandwidth=width).fit(rows).score_samples


BASELINES: dict[str, Callable[[Rows, int], Callable[[Rows], np.ndarray]]] = {
    "Gaussian": fit_gaussian,
    "Gaussian mixture (BIC)": fit_mixture,
    "kernel density (CV)": fit_kernel,
}

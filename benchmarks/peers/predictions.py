"""What predictions of a number given rows are judged by: log-probability, CRPS, and how uniform their ranks are.

Usage of each script that has such methods: SCRIPT METHOD DATA.npz RESULT.json
"""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from common import machine, parser_of, summary, write
from scipy.special import log_ndtr, logsumexp, ndtr
from scipy.stats import kstest, norm

# Probabilities of what a law has as good as excluded are cut off here: their logarithms are summed.
_LEAST = 1e-10
# Numbers of a grid beyond those asked for, to which sums over it go.
_BEYOND = 20


class Scores(NamedTuple):
    """What laws say of one number each.

    Attributes
    ----------
    log_prob
        Log-densities, of a grid log-probabilities; None of laws that have none.
    below, up_to
        How likely less is, and how likely no more is: the same but for masses.
    crps
        Continuous ranked probability scores.
    """

    log_prob: np.ndarray | None
    below: np.ndarray
    up_to: np.ndarray
    crps: np.ndarray


class Gaussians:
    """A mixture of normals for each row: weights, means and deviations of shape ``(rows, components)``.

    Of a grid with a step each number has the mass of its cell, and the law is that of what is rounded to it.
    """

    def __init__(self, weight, loc, scale):
        self.weight, self.loc, self.scale = weight, loc, scale

    def scores(self, y: np.ndarray, step: float | None) -> Scores:
        """Return what the laws say of numbers, one for each row."""
        if step is None:
            z = (y[:, None] - self.loc) / self.scale
            log_prob = logsumexp(norm.logpdf(z) - np.log(self.scale), b=self.weight, axis=1)
            return Scores(log_prob, self.cdf(y), self.cdf(y), self._crps(y))
        below, up_to = y - step / 2, y + step / 2
        return Scores(self._log_between(below, up_to), self.cdf(below), self.cdf(up_to), self._crps_of_grid(y, step))

    def cdf(self, y: np.ndarray) -> np.ndarray:
        """Return how likely no more than a number is."""
        return (self.weight * ndtr((y[:, None] - self.loc) / self.scale)).sum(1)

    def _log_between(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        low, high = ((ends[:, None] - self.loc) / self.scale for ends in (low, high))
        # Mirrored where both lie above: there distribution functions are 1 but for what floats do not tell.
        is_above = low + high > 0
        low, high = np.where(is_above, -high, low), np.where(is_above, -low, high)
        more, less = log_ndtr(high), log_ndtr(low)
        return logsumexp(more + np.log1p(-np.exp(less - more)), b=self.weight, axis=1)

    def _crps(self, y: np.ndarray) -> np.ndarray:
        """Return ``E|Y - y| - E|Y - Y'| / 2`` in closed form (Grimit and others, 2006, equation 4)."""
        apart = lambda loc, scale: loc * (2 * ndtr(loc / scale) - 1) + 2 * scale * norm.pdf(loc / scale)
        between = apart(self.loc[:, :, None] - self.loc[:, None], np.hypot(self.scale[:, :, None], self.scale[:, None]))
        spread = np.einsum("ni,nj,nij->n", self.weight, self.weight, between)
        return (self.weight * apart(y[:, None] - self.loc, self.scale)).sum(1) - spread / 2

    def _crps_of_grid(self, y: np.ndarray, step: float) -> np.ndarray:
        ends = np.round([y.min() / step - _BEYOND, y.max() / step + _BEYOND])
        found = np.zeros(len(y))
        for number in step * np.arange(ends[0], ends[1] + 1):
            found += step * (self.cdf(np.full(len(y), number + step / 2)) - (number > y - step / 2)) ** 2
        return found


def of_quantiles(values: np.ndarray, y: np.ndarray, step: float | None) -> Scores:
    """Return what quantiles say of numbers, one for each row: those in the middle of equal parts of probability.

    CRPS is twice the mean pinball loss. A number is as likely between any two quantiles as beyond the last.
    """
    values = values if step is None else step * np.round(values / step)
    num, y = values.shape[1], y[:, None]
    level = (np.arange(num) + 0.5) / num
    pinball = (y - values) * (level - (y < values))
    below = (values < y).sum(1)
    return Scores(None, below / (num + 1), (below + (values == y).sum(1) + 1) / (num + 1), 2 * pinball.mean(1))


def anderson_darling(shares: np.ndarray) -> float:
    """Return how likely shares that are uniform are at least as far from it, of many rows.

    The limit's distribution is by Marsaglia and Marsaglia, Evaluating the Anderson-Darling distribution (2004).
    """
    share, num = np.sort(np.clip(shares, _LEAST, 1 - _LEAST)), len(shares)
    odd = 2 * np.arange(num) + 1
    z = -num - float(np.mean(odd * (np.log(share) + np.log1p(-share[::-1]))))
    if z < 2:
        terms = (2.00012, 0.247105, -0.0649821, 0.0347962, -0.011672, 0.00168691)
        return float(1 - np.exp(-1.2337141 / z) / np.sqrt(z) * np.polynomial.Polynomial(terms)(z))
    terms = (1.0776, -2.30695, 0.43424, -0.082433, 0.008056, -0.0003146)
    return float(-np.expm1(-np.exp(np.polynomial.Polynomial(terms)(z))))


def judged(scores: Scores) -> dict:
    """Return means, and how likely ranks of what laws are right about are as far from uniform; masses are split."""
    split = np.random.default_rng(0).random(len(scores.crps))
    share = scores.below + split * (scores.up_to - scores.below)
    found = {"nll": None, "failed": 0} if scores.log_prob is None else summary(scores.log_prob)
    return {
        **found,
        "crps": float(scores.crps.mean()),
        "covered": float(((share >= 0.05) & (share <= 0.95)).mean()),
        "kolmogorov_smirnov": float(kstest(share, "uniform").pvalue),
        "anderson_darling": anderson_darling(share),
    }


def main_of_predictions(methods: dict[str, Callable], packages: tuple[str, ...]) -> None:
    """Fit one method to the rows of a split, and write what it says of its test rows.

    A method is called with training rows, their targets, test rows and a seed. It returns a function of the targets of
    these and of the step of their grid, None where they lie on none, which returns `Scores`; and its settings.
    """
    arguments = parser_of(methods).parse_args()
    with np.load(arguments.data) as found:
        train, y, test, test_y = (found[key] for key in ("train", "y", "test", "test_y"))
        step = float(found["step"]) or None
    start = time.perf_counter()
    scores, settings = methods[arguments.method](train, y, test, 0)
    found = judged(scores(test_y, step))
    write(
        arguments.result,
        {
            "machine": machine(),
            "versions": {name: version(name) for name in packages},
            "settings": settings,
            "seconds": time.perf_counter() - start,
            **found,
        },
    )

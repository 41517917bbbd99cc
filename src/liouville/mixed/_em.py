"""EM: a mixture of Gaussians fitted to rows with gaps, half of its components to each half of the rows."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ._mixture import GaussianMixture

# A share of a column's variance is added to those of components.
_ADDED = 1e-6
# One component is as wide as all rows, and wider, and has this share: nothing is beyond all measure.
_WIDE_SHARE, _WIDE = 1e-3, 4.0
# Components for each half, as many as the other half asks for: of so many numbers, and each of so many rows.
_COMPONENTS, _MOST_NUMBERS, _LEAST_ROWS = (1, 4, 16, 32), 1600, 10
_USUAL = 16
# Of long tables so many rows are learned from, and as many as have gaps of so many kinds.
_MOST_ROWS, _MOST_PATTERNS = 20_000, 1024
_MOST_STEPS, _SMALLEST_GAIN, _LEAST_GAIN, _MOST_WORSE = 60, 2e-3, 5e-3, 2
# The next number of components takes so many times as long.
_LONGER = 4.0


class _Rows(NamedTuple):
    """Rows to learn from.

    Attributes
    ----------
    numbers, codes
        NaN, and -1, where there are none.
    weight
        Of each row.
    levels
        How many each code has.
    known, parts
        Which numbers there are, in each kind of rows, and which these rows are.
    """

    numbers: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    levels: tuple[int, ...]
    known: np.ndarray
    parts: list[np.ndarray]

    @staticmethod
    def of(numbers: np.ndarray, codes: np.ndarray, weight: np.ndarray, levels: Sequence[int]) -> "_Rows":
        known, kind = np.unique(~np.isnan(numbers), axis=0, return_inverse=True)
        order = np.argsort(kind.ravel(), kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(kind.ravel()))[:-1])
        return _Rows(numbers, codes, weight, tuple(levels), known, parts)

    def take(self, index: np.ndarray) -> "_Rows":
        return _Rows.of(self.numbers[index], self.codes[index], self.weight[index], self.levels)


class _Pattern(NamedTuple):
    """Rows that have the same numbers, and what a mixture says of these.

    Attributes
    ----------
    rows
        Which rows.
    logs
        Log-densities of what is known and each component, of shape ``(rows, components)``.
    filled
        The numbers, those that are missing at their conditional means, of shape ``(components, rows, numbers)``.
    left
        Conditional covariances of those that are missing, 0 elsewhere, of shape ``(components, numbers, numbers)``.
    """

    rows: np.ndarray
    logs: np.ndarray
    filled: np.ndarray
    left: np.ndarray


def fit_mixture(
    numbers: np.ndarray,
    codes: np.ndarray,
    levels: Sequence[int],
    weight: np.ndarray,
    folds: np.ndarray,
    until: float | None = None,
    seed: int = 0,
) -> GaussianMixture:
    """Return the mixture of weighted rows, NaN where they have gaps: half of its components of each fold.

    Of as many components as describe the other fold best; and one that is as wide as all rows, and wider. What is not
    known of a row is expected (Ghahramani and Jordan, Supervised learning from incomplete data via an EM approach,
    1994).

    Parameters
    ----------
    numbers
        Numbers, of shape ``(rows, numbers)``.
    codes, levels
        Codes, of shape ``(rows, codes)``, and how many levels each has.
    weight
        Of each row.
    folds
        0 or 1 for each row.
    until
        When more components are tried no longer, nor where they are likely to end later (`time.perf_counter`).
    seed
        Seed of where the components start, and of which rows of a long table are learned from.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(200, 2)) + [[5.0, 0.0]]
    >>> mixture = fit_mixture(rows, np.zeros((200, 0)), (), np.ones(200), np.arange(200) % 2)
    >>> print(mixture.folds, mixture.means[0].round(0)[0])
    [ 0.  1. -1.] 5.0
    """
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(weight > 0))[:_MOST_ROWS]
    chosen = chosen[: _few_patterns(~np.isnan(numbers[chosen]))]
    numbers, folds = numbers[chosen], folds[chosen]
    known = ~np.isnan(numbers)
    count = np.maximum(known.sum(0), 1)
    loc = np.where(known, numbers, 0.0).sum(0) / count
    scale = np.sqrt(np.where(known, (numbers - loc) ** 2, 0.0).sum(0) / count)
    scale = np.where(scale > 0, scale, 1.0)
    codes = np.nan_to_num(codes[chosen], nan=-1).astype(int)
    rows = _Rows.of((numbers - loc) / scale, codes, weight[chosen], levels)
    halves = [rows.take(np.flatnonzero(folds == fold)) for fold in (0, 1)]
    wide = _alone(rows, _WIDE)
    found = _joined(_best(halves, wide, seed, until), (0, 1), wide)
    means, covariances = loc + scale * found.means, found.covariances * np.outer(scale, scale)
    return GaussianMixture(found.log_weights, means, covariances, found.shares, found.folds)


def padded(mixture: GaussianMixture) -> GaussianMixture:
    """Return the mixture with components of no weight, as many as most tables of so many numbers need.

    Mixtures of one size compile once, whatever the preprocessing, and before gaps are filled and after.
    """
    able = max(size for size in _COMPONENTS if size == 1 or size * mixture.num**2 <= _MOST_NUMBERS)
    more = 2 * min(_USUAL, able) + 1 - mixture.size
    if more <= 0:
        return mixture
    # As the last one, which is the widest.
    repeated = lambda part: np.concatenate([part, np.repeat(part[-1:], more, axis=0)])
    logs = np.concatenate([mixture.log_weights, np.full(more, -np.inf)])
    means, covariances, folds = map(repeated, (mixture.means, mixture.covariances, mixture.folds))
    return GaussianMixture(logs, means, covariances, map(repeated, mixture.shares), folds)


def _few_patterns(known: np.ndarray) -> int:
    """Return how many rows have gaps of few kinds: each kind takes time of its own."""
    first = np.sort(np.unique(known, axis=0, return_index=True)[1])
    return int(first[_MOST_PATTERNS]) if len(first) > _MOST_PATTERNS else len(known)


def _best(halves: list[_Rows], wide: GaussianMixture, seed: int, until: float | None) -> list[GaussianMixture]:
    """Return a mixture for each half, of as many components as the other half asks for."""
    best, found, worse, seconds = -math.inf, [], 0, 0.0
    ones = [_improve(wide, half) for half in halves]
    fewest = min(len(half.weight) for half in halves)
    for size in _COMPONENTS:
        started = time.perf_counter()
        is_late = until is not None and started + _LONGER * seconds > until
        if size > 1 and (is_late or size * wide.num**2 > _MOST_NUMBERS or size * _LEAST_ROWS > fewest):
            break
        tried = ones if size == 1 else [_many(size, *of, seed) for of in zip(ones, halves, strict=True)]
        score, seconds = _mean_score(tried, halves, wide), time.perf_counter() - started
        if score > best + _LEAST_GAIN:
            best, found, worse = score, tried, 0
        elif (worse := worse + 1) == _MOST_WORSE:
            break
    # Few rows say less of pairs of columns than nothing.
    alone = [_alone(half) for half in halves]
    return alone if _mean_score(alone, halves, wide) > best else found


def _mean_score(mixtures: list[GaussianMixture], halves: list[_Rows], wide: GaussianMixture) -> float:
    """Return the mean log-density of each half by the mixture of the other one."""
    others = zip(mixtures, reversed(halves), strict=True)
    return float(np.mean([_score(_joined([mixture], (-1,), wide), half) for mixture, half in others]))


def _score(mixture: GaussianMixture, rows: _Rows) -> float:
    of_rows = np.zeros(len(rows.weight))
    for pattern in _patterns(mixture, rows):
        of_rows[pattern.rows] = _log_sum(pattern.logs)
    return float(np.average(of_rows, weights=rows.weight))


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """Return logarithms of sums over components; SciPy's takes longer than a step does, of so few rows at a time."""
    most = logs.max(axis=1)
    return most + np.log(np.exp(logs - most[:, None]).sum(axis=1))


def _patterns(mixture: GaussianMixture, rows: _Rows):
    """Return rows by which numbers they have."""
    known = rows.known
    of_codes = np.tile(mixture.log_weights, (len(rows.numbers), 1))
    for codes, shares in zip(rows.codes.T, mixture.shares, strict=True):
        of_codes += np.where(codes < 0, 0.0, shares[:, codes]).T
    # Of numbers that are missing, the identity: it changes neither determinants nor distances.
    both, neither = (
        known[:, None, :, None] & known[:, None, None, :],
        ~known[:, None, :, None] & ~known[:, None, None, :],
    )
    among = np.where(both, mixture.covariances, np.eye(mixture.num))
    precisions = np.where(both, np.linalg.inv(among), 0.0)
    gains = precisions @ mixture.covariances
    left = np.where(neither, mixture.covariances - np.swapaxes(gains, 2, 3) @ mixture.covariances, 0.0)
    consts = np.linalg.slogdet(among)[1] + known.sum(1)[:, None] * math.log(2 * math.pi)
    for p, (mask, of) in enumerate(zip(known, rows.parts, strict=True)):
        off = np.where(mask, rows.numbers[of] - mixture.means[:, None], 0.0)
        distances = np.sum(off @ precisions[p] * off, axis=-1)
        filled = np.where(mask, rows.numbers[of], mixture.means[:, None] + off @ gains[p])
        yield _Pattern(of, of_codes[of] - 0.5 * (distances + consts[p][:, None]).T, filled, left[p])


def _improve(mixture: GaussianMixture, rows: _Rows) -> GaussianMixture:
    """Do steps of EM until they gain next to nothing."""
    before = -math.inf
    for _ in range(_MOST_STEPS):
        score, better = _step(mixture, rows)
        if score - before < _SMALLEST_GAIN:
            break
        before, mixture = score, better
    return mixture


def _step(mixture: GaussianMixture, rows: _Rows, labels: np.ndarray | None = None) -> tuple[float, GaussianMixture]:
    """Return the mean log-density, and the mixture after a step, by the posterior of components or by labels."""
    size = mixture.size if labels is None else int(labels.max()) + 1
    weight, total = np.zeros((len(rows.numbers), size)), 0.0
    first, second = np.zeros((size, mixture.num)), np.zeros((size, mixture.num, mixture.num))
    for of, logs, filled, left in _patterns(mixture, rows):
        of_rows = _log_sum(logs)
        total += rows.weight[of] @ of_rows
        shares = np.exp(logs - of_rows[:, None]) if labels is None else np.eye(size)[labels[of]]
        weight[of] = now = shares * rows.weight[of, None]
        weighed = now.T[..., None] * filled
        first += weighed.sum(1)
        second += np.swapaxes(weighed, 1, 2) @ np.broadcast_to(filled, weighed.shape)
        second += now.sum(0)[:, None, None] * left
    of_component = weight.sum(0) + 1e-9
    means = first / of_component[:, None]
    outer = means[:, :, None] * means[:, None, :]
    covariances = second / of_component[:, None, None] - outer + _ADDED * np.eye(mixture.num)
    shares = [_level_shares(codes, weight, num) for codes, num in zip(rows.codes.T, rows.levels, strict=True)]
    better = GaussianMixture(np.log(of_component / of_component.sum()), means, covariances, shares)
    return float(total / rows.weight.sum()), better


def _level_shares(codes: np.ndarray, weight: np.ndarray, num: int) -> np.ndarray:
    """Return logarithms of the shares of a code's levels in each component: of one row more than there are."""
    count = np.zeros((num, weight.shape[1]))
    np.add.at(count, codes[codes >= 0], weight[codes >= 0])
    alone = count.sum(1) + 0.5
    count = count.T + alone / alone.sum()
    return np.log(count / count.sum(1, keepdims=True))


def _alone(rows: _Rows, factor: float = 1.0) -> GaussianMixture:
    """Return one component of numbers that know nothing of each other, their variances times a factor."""
    num = rows.numbers.shape[1]
    start = GaussianMixture([0.0], np.zeros((1, num)), np.eye(num)[None], [np.zeros((1, k)) for k in rows.levels])
    found = _step(start, rows)[1]
    variances = np.diag(factor * np.diagonal(found.covariances[0]))
    return GaussianMixture(found.log_weights, found.means, variances[None], found.shares)


def _many(size: int, one: GaussianMixture, rows: _Rows, seed: int) -> GaussianMixture:
    """Return so many components, which start where rows are, their gaps filled by one Gaussian."""
    # Imported where it is needed: it takes long.
    from sklearn.cluster import KMeans

    filled = np.empty(rows.numbers.shape)
    for pattern in _patterns(one, rows):
        filled[pattern.rows] = pattern.filled[0]
    means = KMeans(size, n_init=1, random_state=seed)  # pyright: ignore[reportArgumentType]
    return _improve(_step(one, rows, means.fit(filled, sample_weight=rows.weight).labels_)[1], rows)


def _joined(mixtures: list[GaussianMixture], folds: tuple[int, ...], wide: GaussianMixture) -> GaussianMixture:
    """Return mixtures, each of a fold, in equal parts as one, with a wide component."""
    share = math.log1p(-_WIDE_SHARE) - math.log(len(mixtures))
    logs = [*(mixture.log_weights + share for mixture in mixtures), [math.log(_WIDE_SHARE)]]
    every = [*mixtures, wide]
    means, covariances = (np.concatenate([getattr(one, name) for one in every]) for name in ("means", "covariances"))
    shares = [np.concatenate(of_code) for of_code in zip(*(one.shares for one in every), strict=True)]
    of_fold = np.repeat([*folds, -1], [one.size for one in every])
    return GaussianMixture(np.concatenate(logs), means, covariances, shares, of_fold)

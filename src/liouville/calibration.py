"""Whether a conditional density is calibrated: truths, given their rows, are then what its own draws are.

What is tested is any object with ``sample(X, n_samples, random_state)``, which returns draws of shape
``(n_samples, n, k)``, as `liouville.ConditionalFlowDensity` has it; where told, with ``log_prob(X, y)``, too. All tests
hold for any number of rows and draws: a density that is exact fails one with probability ``1 - level``, or a little
less. To pass is no proof: it says that so many rows show no fault.
"""

import dataclasses
import numbers
from typing import Any

import narwhals as nw
import numpy as np
from scipy.stats import binom
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from ._defaults import check_count, rng_of, seed_of
from ._gaps import is_gap

# The band is asked for at so many levels at most, and found by so many draws of uniform numbers.
_MOST_LEVELS = 100
# So many simulations, or as many as leave some that are as odd as may be, up to a number.
_BAND_DRAWS, _FEWEST_ODD, _MOST_DRAWS = 5000, 2, 100_000
# A classifier that is small: it is fitted many times, and sees differences of a few percent.
_CLASSIFIER = {"max_iter": 40, "max_leaf_nodes": 8, "early_stopping": False, "random_state": 0}
_LABELS = np.array([1, 0])


@dataclasses.dataclass(frozen=True)
class Uniformity:
    """Numbers that are uniform between 0 and 1 where a density is exact, and how far they are from it.

    Attributes
    ----------
    names
        What the numbers are of.
    values
        The numbers, of shape ``(n, k)``.
    grid
        Levels at which they are compared, of shape ``(m,)``.
    shares
        Which share of the numbers is at most each of these, of shape ``(m, k)``.
    low, high
        Where all `shares` of an exact density are together, with probability `level`: of shape ``(m,)``.
    level
        The probability.
    p_values
        How often numbers of an exact density would be as far off, of shape ``(k,)``.
    passes
        True where all shares are within.
    """

    names: tuple[str, ...]
    values: np.ndarray
    grid: np.ndarray
    shares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    p_values: np.ndarray
    passes: bool


@dataclasses.dataclass(frozen=True)
class LocalC2ST:
    """How well a classifier tells a density's draws from truths, at some observations.

    Attributes
    ----------
    statistics
        Mean of ``(probability - 1/2)^2`` over draws given each observation, of shape ``(m,)``.
    high
        What those of an exact density stay below, all together, with probability `level`, of shape ``(m,)``.
    null
        Those of a density that is exact, of shape ``(num_nulls, m)``.
    level
        The probability.
    p_values
        How often an exact density would be as easily told, of shape ``(m,)``.
    passes
        True where no statistic is above `high`.
    """

    statistics: np.ndarray
    high: np.ndarray
    null: np.ndarray
    level: float
    p_values: np.ndarray
    passes: bool


def uniformity(values, names: tuple[str, ...] = ("value",), *, level: float = 0.99, random_state=0) -> Uniformity:
    """Compare numbers with uniform ones, by a simultaneous band of their distribution function.

    The band is that of Saeilynoja, Buerkner and Vehtari (2022, "Graphical test for discrete uniformity"):
    binomial at each level, all as wide as makes them hold together, which is found by simulation. SciPy has other tests
    of the same: Kolmogorov's is ``kstest(values, "uniform")``, that of Anderson and Darling ``goodness_of_fit(uniform,
    values, known_params={"loc": 0, "scale": 1}, statistic="ad")``.

    Parameters
    ----------
    values
        Numbers between 0 and 1, of shape ``(n,)`` or ``(n, k)``: for example those of
        `liouville.ConditionalFlowDensity.cdf`, of a continuous target.
    names
        What the columns are.
    level
        Probability with which numbers that are uniform pass. Of several columns it holds for all together, by
        Bonferroni's bound.
    random_state
        Seed of the simulation.

    Returns
    -------
    Uniformity
        The p-value of each column is exact up to the simulation's draws, which are 5000 or more.

    Raises
    ------
    ValueError
        Where there is no number, one is not between 0 and 1, or the level is none, or too high to be told.

    Examples
    --------
    >>> import numpy as np
    >>> even = (np.arange(200) + 0.5) / 200
    >>> print(uniformity(even).passes, uniformity(even**2).passes)
    True False
    """
    values = np.asarray(values, float)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"Expected numbers between 0 and 1, got others, of shape {values.shape}; try those of cdf.")
    check_level(level)
    num, alpha = len(values), (1 - level) / values.shape[1]
    draws = max(_BAND_DRAWS, int(np.ceil(_FEWEST_ODD / alpha)))
    if draws > _MOST_DRAWS:
        most = 1 - _FEWEST_ODD * values.shape[1] / _MOST_DRAWS
        raise ValueError(
            f"Expected a level that {_MOST_DRAWS} simulations can tell, of {values.shape[1]} columns up to {most:g}, "
            f"got {level:g}; try 0.99."
        )
    size = min(num, _MOST_LEVELS)
    grid = np.arange(1, size) / size if size > 1 else np.array([0.5])
    cells = rng_of(random_state).multinomial(num, np.diff([0.0, *grid, 1.0]), size=draws)
    null = np.sort(_oddest(cells.cumsum(axis=1)[:, :-1], num, grid))
    counts = (values[:, None, :] <= grid[:, None]).sum(axis=0)
    p_values = (1 + np.searchsorted(null, _oddest(counts.T, num, grid), side="right")) / (1 + draws)
    # Numbers that are as odd as this still pass; equal ones, which counts often are, must not fail by rounding.
    width = null[max(int(alpha * (1 + draws)) - 1, 0)] * (1 - 1e-9) / 2
    low, high = binom.ppf(width, num, grid) / num, binom.isf(width, num, grid) / num
    passes = bool((p_values > alpha).all())
    return Uniformity(tuple(names), values, grid, counts / num, low, high, level, p_values, passes)


def _oddest(counts: np.ndarray, num: int, grid: np.ndarray) -> np.ndarray:
    """Return of counts of shape ``(rows, m)`` the least two-sided p-value at any level."""
    # Counts are few numbers, again and again.
    first = counts.min(axis=0)
    table = first + np.arange((counts - first).max() + 1)[:, None]
    tails = np.minimum(binom.cdf(table, num, grid), binom.sf(table - 1, num, grid))
    return np.minimum(2 * np.take_along_axis(tails, counts - first, axis=0).min(axis=1), 1.0)


def sbc_ranks(density: Any, X, y, *, num_draws: int = 100, level: float = 0.99, random_state=0) -> Uniformity:
    """Compare true targets with draws given their rows, column by column: simulation-based calibration.

    The rank of a truth among draws is uniform where the density is exact (Talts and others, 2018, arXiv:1804.06788,
    theorem 1). Of draws that are equal to it, as counts and levels are, the rank is any, at random.

    Parameters
    ----------
    density
        Has ``sample(X, n_samples, random_state)``.
    X, y
        Rows and true targets that it has not seen; targets are numbers, yes and no, or text.
    num_draws
        Draws for each row.
    level
        Probability with which an exact density passes, in all columns together.
    random_state
        Seed.

    Returns
    -------
    Uniformity
        Values are ``(rank + u) / (num_draws + 1)``, with `u` uniform: of shape ``(n, k)``.

    Raises
    ------
    ValueError
        Where draws are NaN, or targets have another number of rows or columns than draws.
    TypeError
        Where a target is a date.

    Examples
    --------
    >>> import numpy as np
    >>> class Normal:
    ...     def sample(self, X, n_samples, random_state):
    ...         return X + np.random.default_rng(random_state).normal(size=(n_samples, *X.shape))
    >>> X = np.zeros((300, 1))
    >>> y = np.random.default_rng(0).normal(size=300)
    >>> print(sbc_ranks(Normal(), X, y).passes, sbc_ranks(Normal(), X, 2 * y).passes)
    True False
    """
    rng = rng_of(random_state)
    truths, drawn, names = _truths_and_draws(density, X, y, num_draws, rng)
    truths, drawn = _as_numbers(truths, drawn)
    return uniformity(_places(truths, drawn, rng), names, level=level, random_state=seed_of(rng))


def expected_coverage(density: Any, X, y, *, num_draws: int = 100, level: float = 0.99, random_state=0) -> Uniformity:
    """Compare how often highest-density regions hold the truth with how often they should, at all levels.

    A truth is in the region of a level where the share of draws that are more probable than it is less than the level
    (Hermans and others, 2022, "A trust crisis in simulation-based inference?", arXiv:2110.06581). More than
    the level are held by a density that is too wide, less by one that is too narrow.

    Parameters
    ----------
    density
        Has ``sample(X, n_samples, random_state)`` and ``log_prob(X, y)``, which is asked once for each draw.
    X, y, num_draws, level, random_state
        As of `sbc_ranks`.

    Returns
    -------
    Uniformity
        One column: `values` are the least levels whose regions hold the truths, `shares` the coverage at each level.

    Raises
    ------
    ValueError
        Where draws or their log-densities are NaN, or targets have another number of rows or columns than draws.

    Examples
    --------
    >>> import numpy as np
    >>> class Normal:
    ...     def sample(self, X, n_samples, random_state):
    ...         return X + np.random.default_rng(random_state).normal(size=(n_samples, *X.shape))
    ...     def log_prob(self, X, y):
    ...         return -((np.reshape(y, X.shape) - X) ** 2).sum(axis=1)
    >>> X = np.zeros((300, 1))
    >>> y = np.random.default_rng(0).normal(size=300)
    >>> print(expected_coverage(Normal(), X, y).passes, expected_coverage(Normal(), X, 2 * y).passes)
    True False
    """
    rng = rng_of(random_state)
    drawn = _truths_and_draws(density, X, y, num_draws, rng)[1]
    truths, draws = density.log_prob(X, y), np.stack([density.log_prob(X, one) for one in drawn])
    if np.isnan(truths).any() or np.isnan(draws).any():
        raise ValueError("Expected log-densities, got NaN where a solve failed; try a density of looser tolerances.")
    # The less probable, the higher the level.
    values = _places(-truths[:, None], -draws[..., None], rng)
    return uniformity(values, ("highest-density region",), level=level, random_state=seed_of(rng))


def local_c2st(
    density: Any,
    X,
    y,
    observation,
    *,
    num_draws: int = 1000,
    num_nulls: int = 100,
    level: float = 0.95,
    random_state=0,
) -> LocalC2ST:
    """Ask a classifier, at some observations, whether draws differ from truths: a local two-sample test, L-C2ST.

    It learns to tell truths from draws, both beside their rows, and is asked of draws given each observation, where it
    should not know (Linhart, Gramfort and Rodrigues, 2023, arXiv:2306.03580). The null distribution
    is that of classifiers to which other draws were told as truths: where the density is exact these are truths as good
    as any, so p-values are exact for any classifier. This one is scikit-learn's of boosted trees.

    Parameters
    ----------
    density
        Has ``sample(X, n_samples, random_state)``.
    X, y
        Rows and true targets that it has not seen, as of `sbc_ranks`; some thousands.
    observation
        Rows like those of `X`, of shape ``(m, d)``, or one of shape ``(d,)``, at which the density is judged.
    num_draws
        Draws given each observation.
    num_nulls
        Classifiers of the null distribution, each of which takes a fit: at least ``m / (1 - level)``.
    level
        Probability with which an exact density passes, at all observations together, by Bonferroni's bound.
    random_state
        Seed.

    Returns
    -------
    LocalC2ST
        Statistic and p-value of each observation.

    Raises
    ------
    ValueError
        Where nulls are too few for the level, draws are NaN, or targets have another number of rows or columns than
        draws.

    Examples
    --------
    >>> import numpy as np
    >>> class Normal:
    ...     def sample(self, X, n_samples, random_state):
    ...         return X + np.random.default_rng(random_state).normal(size=(n_samples, *X.shape))
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-1, 1, size=(400, 1))
    >>> y = X[:, 0] + rng.normal(size=400) * np.where(X[:, 0] > 0, 0.3, 1.0)
    >>> found = local_c2st(Normal(), X, y, [[-0.5], [0.5]], num_nulls=40)
    >>> print(found.statistics > found.high)
    [False  True]
    """
    rng = rng_of(random_state)
    at = observation if hasattr(observation, "columns") else np.atleast_2d(np.asarray(observation))
    alpha = _share_of_each(level, len(at), check_count("num_nulls", num_nulls))
    truths, drawn, _ = _truths_and_draws(density, X, y, num_nulls + 1, rng)
    asked = np.asarray(density.sample(at, check_count("num_draws", num_draws), random_state=seed_of(rng)))
    _check_draws(asked)
    truths, (others, *draws), asked = _as_numbers(truths, drawn, asked)
    rows, at = _as_numbers(_table_of(X)[0], _table_of(at)[0])
    places = np.concatenate([np.broadcast_to(at, (num_draws, *at.shape)), asked], axis=2)
    # By threads many small fits would wait for each other.
    with threadpool_limits(1):
        found = np.stack([_told_apart(rows, one, others, places) for one in (truths, *draws)])
    statistics, null = found[0], found[1:]
    p_values = (1 + (null >= statistics).sum(axis=0)) / (1 + num_nulls)
    # The highest with which a statistic would still fail.
    high = np.sort(null, axis=0)[-int(alpha * (1 + num_nulls) + 1e-9)]
    return LocalC2ST(statistics, high, null, level, p_values, bool((p_values > alpha + 1e-9).all()))


def _share_of_each(level: float, num: int, num_nulls: int) -> float:
    """Return with what probability an exact density may fail at each of so many observations."""
    check_level(level)
    alpha = (1 - level) / num
    if alpha * (1 + num_nulls) < 1 - 1e-9:
        least = int(np.ceil(1 / alpha - 1e-9)) - 1
        raise ValueError(
            f"Expected {least} nulls or more, for a level of {level} at {num} observations, got {num_nulls}; try "
            f"num_nulls={least}."
        )
    return alpha


def _told_apart(rows: np.ndarray, truths: np.ndarray, others: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return how surely a classifier tells truths from others, at places of shape ``(draws, m, columns)``."""
    both = np.concatenate([np.hstack([rows, truths]), np.hstack([rows, others])])
    classifier = HistGradientBoostingClassifier(**_CLASSIFIER).fit(both, _LABELS.repeat(len(rows)))
    found = classifier.predict_proba(places.reshape(-1, places.shape[2]))[:, 1].reshape(places.shape[:2])
    return ((found - 0.5) ** 2).mean(axis=0)


def check_level(level: float) -> None:
    """Raise ``ValueError`` for a level that is none."""
    if not isinstance(level, numbers.Real) or not 0 < float(level) < 1:
        raise ValueError(f"Expected a level above 0 and below 1, got {level!r}; try 0.95.")


def _places(truths: np.ndarray, draws: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return where truths of shape ``(n, k)`` are among draws of shape ``(s, n, k)``, from 0 to 1, ties at random."""
    ties = (draws == truths).sum(axis=0)
    ranks = (draws < truths).sum(axis=0) + rng.randint(ties + 1)
    return (ranks + rng.uniform(size=ranks.shape)) / (len(draws) + 1)


def _truths_and_draws(
    density: Any, X, y, num: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return true targets of shape ``(n, k)``, draws of shape ``(num, n, k)``, and the targets' names."""
    drawn = np.asarray(density.sample(X, check_count("num_draws", num), random_state=seed_of(rng)))
    truths, names = _table_of(y)
    if drawn.shape[1:] != truths.shape:
        raise ValueError(
            f"Expected targets of shape {drawn.shape[1:]}, as draws given X have, got {truths.shape}; try those that "
            "belong to X."
        )
    _check_draws(drawn)
    missing = np.argwhere([[is_gap(cell) for cell in row] for row in truths])
    if len(missing):
        row, column = missing[0]
        raise ValueError(
            f"Expected targets without gaps, got one in row {row}, column {names[column]!r}; try leaving it out."
        )
    return truths, drawn, names


def _check_draws(drawn: np.ndarray) -> None:
    if (drawn != drawn).any():
        raise ValueError("Expected draws, got NaN where a solve failed; try density.certify(X, y).")


def _table_of(table: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a table of shape ``(n, k)``, of objects where it is a frame, and the names of its columns."""
    native = nw.from_native(table, allow_series=True, pass_through=True)
    if isinstance(native, nw.Series):
        native = native.alias(native.name or "y").to_frame()
    if isinstance(native, nw.DataFrame):
        cells = np.empty(native.shape, object)
        for j, name in enumerate(native.columns):
            cells[:, j] = native[name].to_list()
        return cells, tuple(map(str, native.columns))
    cells = np.asarray(table)
    cells = cells[:, None] if cells.ndim == 1 else cells
    return cells, ("y",) if cells.shape[1] == 1 else tuple(f"y{j}" for j in range(cells.shape[1]))


def _as_numbers(*tables: np.ndarray) -> list[np.ndarray]:
    """Return tables of the same columns as numbers: of text, which all of them have or none, its place in the order."""
    found = [np.empty(table.shape) for table in tables]
    for j in range(tables[0].shape[-1]):
        columns = [table[..., j].ravel() for table in tables]
        numbers: list[Any] = [_floats(column) for column in columns]
        are_text = [column is None for column in numbers]
        if any(are_text) and not all(are_text):
            is_first = are_text[0]
            raise TypeError(
                f"Expected numbers, or text in all of truths and draws, got {'truths' if is_first else 'draws'} in "
                f"column {j} alone that are no numbers; try dates as numbers of days."
            )
        if any(are_text):
            levels = np.unique(np.concatenate(columns).astype(str), return_inverse=True)[1]
            numbers = np.split(levels, np.cumsum([len(column) for column in columns])[:-1])
        for table, column in zip(found, numbers, strict=True):
            table[..., j] = np.reshape(column, table.shape[:-1])
    return found


def _floats(column: np.ndarray) -> np.ndarray | None:
    """Return a column as numbers, None where it is of dates, or of what is no number."""
    if column.dtype.kind in "mMSU":
        return None
    try:
        return column.astype(float)
    except (TypeError, ValueError):
        return None

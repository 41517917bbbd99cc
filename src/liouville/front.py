"""Location and scale of a number given others, by boosted trees: what a flow of it may stand behind."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import equinox as eqx
import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln, ndtr, ndtri, stdtr, stdtrit
from threadpoolctl import ThreadpoolController

from ._types import FixedMixin, constant

# Each row's location and scale, as a flow is trained on them, are by trees that have not seen it.
_FOLDS = 5
# Of few rows there are several such sets of trees: the mean of some is then as good as that of all, which new rows are
# told of.
_REPEATED_ROWS, _MOST_REPEATS = 12_000, 4
# Trees of these sizes, until held-out rows say that more do not help.
_LEARNING_RATE, _MOST_TREES, _LEAVES, _FEWEST_IN_LEAF, _PATIENCE, _HELD_OUT = 0.05, 500, 31, 10, 20, 0.15
# Of longer tables trees learn from so many rows.
_MOST_LEARNED = 200_000
# Tails are no heavier than these, and beyond those normal; less probability than this is none.
_LEAST_DEGREES, _MOST_TAIL, _LEAST_TAIL = 1.5, 100.0, 1e-300
# So small a share of a typical distance counts as one, and so few rows are followed through trees at a time.
_LEAST_DISTANCE, _BLOCK = 1e-3, 1024


class Trees(FixedMixin, eqx.Module):
    """A sum of regression trees, as plain arrays: nodes of all trees behind each other.

    Parameters
    ----------
    feature, threshold
        The column that a node asks for, -1 of a leaf, and the largest number that goes to the left.
    left, right
        The nodes that come behind it.
    missing_left
        1 where rows that lack the number go to the left, too.
    value
        What a leaf adds.
    roots
        The first node of each tree.
    start
        What is added to.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    start: np.ndarray

    def __init__(self, feature, threshold, left, right, missing_left, value, roots, start):
        whole = lambda numbers: np.asarray(numbers, np.int64)
        self.feature, self.left, self.right, self.roots = map(whole, (feature, left, right, roots))
        self.threshold, self.missing_left = constant(threshold), constant(missing_left)
        self.value, self.start = constant(value), constant(start)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the sums for rows of numbers, NaN where they have gaps, of shape ``(n,)``."""
        parts = [self._sums(rows[first : first + _BLOCK]) for first in range(0, len(rows), _BLOCK)]
        return np.concatenate([np.zeros(0), *parts])

    def _sums(self, rows: np.ndarray) -> np.ndarray:
        node = np.tile(self.roots, (len(rows), 1))
        while (inner := self.feature[node] >= 0).any():
            x = np.take_along_axis(rows, np.maximum(self.feature[node], 0), axis=1)
            to_left = np.where(np.isnan(x), self.missing_left[node] > 0, x <= self.threshold[node])
            node = np.where(inner, np.where(to_left, self.left[node], self.right[node]), node)
        return self.start + self.value[node].sum(axis=1)

    @staticmethod
    def mean(models: list) -> "Trees":
        """Return the mean of scikit-learn's histogram gradient boosting models."""
        parts, roots, first = [], [], 0
        for model in models:
            for (tree,) in model._predictors:
                nodes, size = tree.nodes, len(tree.nodes)
                is_leaf = nodes["is_leaf"].astype(bool)
                parts.append(
                    (
                        np.where(is_leaf, -1, nodes["feature_idx"].astype(int)),
                        nodes["num_threshold"],
                        np.where(is_leaf, 0, nodes["left"].astype(int) + first),
                        np.where(is_leaf, 0, nodes["right"].astype(int) + first),
                        nodes["missing_go_to_left"],
                        np.where(is_leaf, nodes["value"], 0.0) / len(models),
                    )
                )
                roots.append(first)
                first += size
        start = float(np.mean([np.ravel(model._baseline_prediction)[0] for model in models]))
        arrays = [np.concatenate(part) for part in zip(*(parts or [(np.zeros(0),) * 6]), strict=True)]
        feature, threshold, left, right, missing_left, value = arrays
        return Trees(feature, threshold, left, right, missing_left, value, roots, start)


class Front(FixedMixin, eqx.Module):
    """Location, scale and tails of a number `y` given a row `x`: what ``(y - m(x)) / s(x)`` is Student's `t` of.

    ``z = Phi^-1(T_nu((y - m(x)) / s(x)))`` is then standard normal, but for what a flow of it has to learn.

    Parameters
    ----------
    location, log_scale
        Trees for `m` and for ``log s``.
    tail
        Degrees of freedom of the law of distances: the less, the heavier its tails.
    """

    location: Trees
    log_scale: Trees
    tail: np.ndarray

    def __init__(self, location: Trees, log_scale: Trees, tail):
        self.location, self.log_scale, self.tail = location, log_scale, constant(tail)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """How many nodes and how many roots the trees of each have."""
        return [(len(trees.feature), len(trees.roots)) for trees in (self.location, self.log_scale)]

    @staticmethod
    def of_sizes(sizes) -> "Front":
        """Return trees of these sizes, with zeros everywhere: those of a file take their place."""
        zeros = lambda nodes, roots: Trees(*(np.zeros(num) for num in (*[nodes] * 6, roots)), start=0.0)
        location, log_scale = (zeros(nodes, roots) for nodes, roots in sizes)
        return Front(location, log_scale, 1.0)

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return location and scale for rows of numbers, each of shape ``(n,)``."""
        return self.location(rows), np.exp(self.log_scale(rows))


class FittedFront(NamedTuple):
    """A front, and location and scale of the rows that it was fitted to, by trees that have not seen them."""

    front: Front
    location: np.ndarray
    scale: np.ndarray


def fit_front(
    rows: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    seed: int = 0,
    threads: int = 1,
    copies: int = 1,
    until: float = math.inf,
) -> FittedFront:
    """Return location, scale and tails of a number given rows, by boosted trees, cross-fitted.

    The scale is by trees on the logarithms of distances from locations that were not fitted to them, up to the factor
    with which distances are likeliest under Student's t. Residuals of rows that trees were fitted to would be too
    small, and whatever is learned of them too sure.

    Parameters
    ----------
    rows
        Rows of shape ``(n, d)``: numbers, codes as numbers, NaN where there are gaps.
    y
        The number, of shape ``(n,)``.
    weight
        Of each row.
    seed
        Seed of the folds, and of the rows by which the number of trees is chosen.
    threads
        How many folds, at most, are fitted at a time.
    copies
        Rows are so many copies of a table behind each other, with other gaps. Trees learn from one of each row, drawn
        at random, and are asked of all.
    until
        When, by `time.perf_counter`, no further sets of trees are begun.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(-1, 1, (2000, 1))
    >>> y = 3 * x[:, 0] + np.where(x[:, 0] > 0, 1.0, 0.1) * rng.normal(size=2000)
    >>> found = fit_front(x, y, np.ones(2000))
    >>> location, scale = found.front(np.array([[-0.7], [0.7]]))
    >>> print(location.round(0), scale[1] / scale[0] > 4)
    [-2.  2.] True
    """
    # Trees end where the loss hardly falls, by a number that knows no unit.
    largest = float(np.max(np.abs(y))) or 1.0
    middle = float(np.mean(y / largest)) * largest
    unit = float(np.std(y / largest)) * largest or 1.0
    y = (y - middle) / unit
    rng, num = np.random.default_rng(seed), len(y) // copies
    repeats = int(np.clip(_REPEATED_ROWS // num, 1, _MOST_REPEATS))
    folds = [np.tile(rng.permutation(num) % min(_FOLDS, num), copies) for _ in range(repeats)]
    is_learned = np.zeros(len(y), bool)
    one_of_each = np.arange(num) + num * rng.integers(copies, size=num)
    is_learned[one_of_each if num <= _MOST_LEARNED else rng.choice(one_of_each, _MOST_LEARNED, replace=False)] = True
    now = time.perf_counter()
    location, of_location = _cross_fit(rows, y, weight, folds, is_learned, seed, threads, now + (until - now) / 2)
    off = np.abs(y - location)
    least = _LEAST_DISTANCE * np.average(off, weights=weight)
    log_off = np.log(np.maximum(off, max(least, 1e-300)))
    log_scale, of_scale = _cross_fit(rows, log_off, weight, folds, is_learned, seed, threads, until)
    tail, shift = _tail_of(off / np.exp(log_scale), weight) if least > 0 else (_MOST_TAIL, 0.0)
    of_scale = eqx.tree_at(lambda trees: trees.start, of_scale, constant(of_scale.start + shift + math.log(unit)))
    values = lambda trees: (trees.value, trees.start)
    moved = (unit * of_location.value, unit * of_location.start + middle)
    of_location = eqx.tree_at(values, of_location, tuple(map(constant, moved)))
    return FittedFront(Front(of_location, of_scale, tail), unit * location + middle, unit * np.exp(log_scale + shift))


def to_normal(u: np.ndarray, tail: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``z = Phi^-1(T_nu(u))`` and ``log dz/du``."""
    z = np.copysign(ndtri(np.maximum(stdtr(tail, -np.abs(u)), _LEAST_TAIL)), u)
    return z, log_student(u, tail) + (z**2 + math.log(2 * math.pi)) / 2


def from_normal(z: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """Return the `u` that `to_normal` maps to `z`."""
    return np.copysign(stdtrit(tail, np.maximum(ndtr(-np.abs(z)), _LEAST_TAIL)), z)


def log_student(u: np.ndarray, tail: Any) -> np.ndarray:
    """Return the log-density of Student's t."""
    norm = gammaln((tail + 1) / 2) - gammaln(tail / 2) - np.log(tail * np.pi) / 2
    # The square of what is far out is no float.
    return norm - (tail + 1) * np.log(np.hypot(1.0, u / np.sqrt(tail)))


def _tail_of(off: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return degrees of freedom and the logarithm of the scale of which distances are the likeliest."""

    def law(parameters: np.ndarray) -> tuple[float, float]:
        log_tail = np.clip(parameters[0], np.log(_LEAST_DEGREES), np.log(_MOST_TAIL))
        return float(np.exp(log_tail)), float(parameters[1])

    def loss(parameters: np.ndarray) -> float:
        tail, shift = law(parameters)
        return float(-np.average(log_student(off * np.exp(-shift), tail) - shift, weights=weight))

    start = np.array([np.log(5.0), 0.5 * np.log(np.average(off**2, weights=weight)) - 0.2])
    return law(minimize(loss, start, method="Nelder-Mead").x)


def _cross_fit(
    rows: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    folds: list[np.ndarray],
    is_learned: np.ndarray,
    seed: int,
    threads: int,
    until: float,
) -> tuple[np.ndarray, Trees]:
    """Return the mean of what trees say of rows that they have not seen, and the mean of all of them."""
    # Imported where it is needed: it takes long.
    from sklearn.ensemble import HistGradientBoostingRegressor

    def fit(chosen: tuple[int, int]):
        repeat, k = chosen
        kept = (folds[repeat] != k) & is_learned
        model = HistGradientBoostingRegressor(
            learning_rate=_LEARNING_RATE,
            max_iter=_MOST_TREES,
            max_leaf_nodes=_LEAVES,
            min_samples_leaf=_FEWEST_IN_LEAF,
            n_iter_no_change=_PATIENCE,
            early_stopping=cast(Any, len(y) >= 100),
            validation_fraction=_HELD_OUT,
            random_state=seed + repeat,
        )
        # A fold is of one thread: OpenMP's wait for each other by spinning, for long where other programs are busy.
        with controller.limit(limits=1):
            return model.fit(rows[kept], y[kept], sample_weight=None if are_equal else weight[kept])

    # Weights that say nothing take four times as long.
    are_equal = bool(np.all(weight == weight[0]))
    controller = ThreadpoolController()
    models, sums, num = [], np.zeros(len(y)), 0
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for repeat, fold in enumerate(folds):
            if num and time.perf_counter() > until:
                break
            new = list(pool.map(fit, [(repeat, k) for k in range(fold.max() + 1)]))
            for k, model in enumerate(new):
                sums[fold == k] += Trees.mean([model])(rows[fold == k])
            models, num = models + new, num + 1
    return sums / num, Trees.mean(models)

"""Location and scale of a number given others, by boosted trees: what a flow of it may stand behind."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from threadpoolctl import threadpool_limits

from ._types import FixedMixin, constant

# Each row's location and scale, as a flow is trained on them, are by trees that have not seen it.
_FOLDS = 5
# Trees of these sizes, until held-out rows say that more do not help.
_LEARNING_RATE, _MOST_TREES, _LEAVES, _PATIENCE, _HELD_OUT = 0.05, 500, 31, 20, 0.15
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
    """``u = (y - m(x)) / s(x)``: location and scale of a number `y` given a row `x`.

    A density of `u` given `x` is one of `y`: ``log p(y | x) = log p(u | x) - log s(x)``.

    Parameters
    ----------
    location, log_scale
        Trees for `m` and for ``log s``.
    """

    location: Trees
    log_scale: Trees

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return location and scale for rows of numbers, each of shape ``(n,)``."""
        return self.location(rows), np.exp(self.log_scale(rows))


class FittedFront(NamedTuple):
    """A front, and location and scale of the rows that it was fitted to, by trees that have not seen them."""

    front: Front
    location: np.ndarray
    scale: np.ndarray


def fit_front(rows: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int = 0, threads: int = 1) -> FittedFront:
    """Return location and scale of a number given rows, by boosted trees, cross-fitted.

    The scale is by trees on the logarithms of distances from locations that were not fitted to them, such that the
    square of the distances in its units is 1 in the mean. Residuals of rows that trees were fitted to would be too
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
        How many threads, at most, the trees are fitted in.

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
    fold = np.random.default_rng(seed).permutation(len(y)) % min(_FOLDS, len(y))
    with threadpool_limits(threads):
        location, of_location = _cross_fit(rows, y, weight, fold, seed)
        off = np.abs(y - location)
        least = _LEAST_DISTANCE * np.average(off, weights=weight)
        log_scale, of_scale = _cross_fit(rows, np.log(np.maximum(off, max(least, 1e-300))), weight, fold, seed)
    # Logarithms are lower in the mean than that of the root of the mean square.
    shift = 0.5 * np.log(np.average((off / np.exp(log_scale)) ** 2, weights=weight)) if least > 0 else 0.0
    of_scale = eqx.tree_at(lambda trees: trees.start, of_scale, of_scale.start + shift)
    return FittedFront(Front(of_location, of_scale), location, np.exp(log_scale + shift))


def _cross_fit(
    rows: np.ndarray, y: np.ndarray, weight: np.ndarray, fold: np.ndarray, seed: int
) -> tuple[np.ndarray, Trees]:
    """Return what trees say of rows that they have not seen, and the mean of all of them."""
    # Imported where it is needed: it takes long.
    from sklearn.ensemble import HistGradientBoostingRegressor

    found, models = np.empty(len(y)), []
    for k in range(fold.max() + 1):
        model = HistGradientBoostingRegressor(
            learning_rate=_LEARNING_RATE, max_iter=_MOST_TREES, max_leaf_nodes=_LEAVES, n_iter_no_change=_PATIENCE,
            early_stopping=len(y) >= 100, validation_fraction=_HELD_OUT, random_state=seed,  # pyright: ignore
        )  # fmt: skip
        model.fit(rows[fold != k], y[fold != k], sample_weight=weight[fold != k])
        found[fold == k] = model.predict(rows[fold == k])
        models.append(model)
    return found, Trees.mean(models)

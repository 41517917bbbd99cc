"""Checks at the public boundary: tables in, float arrays out, and errors that name row and column."""

from typing import Any

import narwhals as nw
import numpy as np
from sklearn.utils.validation import _check_sample_weight, validate_data

from ._errors import DataError
from ._types import Rows
from .selection import Split

COLLINEAR = 1e-13


def check_frame(X, estimator, *, reset: bool) -> Rows:
    """Return a table as floats; check its columns against those of the fit, or take note of them."""
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        for name, dtype in frame.schema.items():
            if not (dtype.is_numeric() or dtype == nw.Boolean):
                raise DataError(
                    f"Expected numbers, got {dtype} in column {name!r}; try leaving it out, or encoding it."
                )
    elif getattr(getattr(X, "dtype", None), "kind", "f") in "USTMm":
        raise DataError(f"Expected numbers, got an array of {X.dtype}; try X.astype(float).")
    rows: Any = validate_data(
        estimator,
        X,
        reset=reset,
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,
        ensure_min_samples=2 if reset else 1,
    )
    _check_finite(rows, getattr(estimator, "feature_names_in_", None))
    return rows


def check_points(Z, columns: int) -> Rows:
    """Return points of the base as floats."""
    Z = np.asarray(Z, dtype=float)
    if Z.ndim != 2 or Z.shape[1] != columns:
        raise DataError(f"Expected points of shape (n, {columns}), got {Z.shape}; try Z.reshape(-1, {columns}).")
    _check_finite(Z, None)
    return Z


def check_weight(sample_weight, X: Rows) -> np.ndarray:
    """Return the weights of the rows, ones where there are none."""
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if weight.sum() <= 0:
        raise DataError("Expected a positive sum of weights, got 0; try leaving sample_weight out.")
    return weight


def check_varied(X: Rows, weight: np.ndarray, names) -> None:
    """Raise `DataError` where a table has no density: too few rows, constant or collinear columns."""
    rows, columns = X.shape
    if rows <= columns:
        raise DataError(
            f"Expected more rows than columns, got {rows} samples of {columns} columns; try fewer columns, "
            "for example by principal components."
        )
    name = lambda j: f"{j}" if names is None else f"{j} ({names[j]!r})"  # noqa: E731
    loc = np.average(X, axis=0, weights=weight)
    spread = np.max(np.abs(X - loc), axis=0)
    flat = np.flatnonzero(spread <= 8 * np.finfo(X.dtype).eps * np.abs(loc))
    if flat.size:
        raise DataError(
            f"Expected columns that vary, got a constant column {name(flat[0])}; try leaving it out: it has no density."
        )
    z = (X - loc) / spread
    z = z / np.sqrt(np.average(z**2, axis=0, weights=weight))
    values, vectors = np.linalg.eigh((z * weight[:, None]).T @ z / weight.sum())
    if values[0] < COLLINEAR * columns:
        involved = np.flatnonzero(np.abs(vectors[:, 0]) > 0.1 * np.abs(vectors[:, 0]).max())
        listed = ", ".join(name(j) for j in involved[:8])
        raise DataError(
            f"Expected columns that are no combination of each other, got collinear columns {listed}; try leaving one "
            "of them out: together they have no density."
        )


def split_rows(X: Rows, weight: np.ndarray, fraction: float, most: int, seed: int) -> Split:
    """Split a table at random into rows to train on and at most `most` rows to choose by.

    Rows of weight 0 are left out; weights are scaled to a mean of 1 in each part. Without a fraction,
    and on fewer than 8 rows, choices are made by the rows that are trained on.
    """
    kept = np.flatnonzero(weight)
    order = kept[np.random.default_rng(seed).permutation(len(kept))]
    num = min(most, max(int(fraction * len(order)), min(20, len(order) // 4)))
    if fraction == 0 or len(order) < 8 or len(order) - num <= X.shape[1]:
        train, chosen = order, order[:most]
    else:
        train, chosen = order[num:], order[:num]
    scaled = lambda index: weight[index] / weight[index].mean()  # noqa: E731
    return Split(X[train], scaled(train), X[chosen], scaled(chosen))


def _check_finite(X: Rows, names) -> None:
    # One pass without a mask of the whole table: a sum is finite unless an entry is not (or overflows).
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum(dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(X))
    if len(bad):
        row, column = bad[0]
        found = "NaN" if np.isnan(X[row, column]) else "infinity"
        where = f"{column}" if names is None else f"{column} ({names[column]!r})"
        raise DataError(
            f"Expected finite numbers, got {found} in row {row}, column {where}; try dropping or imputing the row."
        )

"""Checks at the public boundary: tables in, float arrays out, and errors that name row and column."""

from collections.abc import Iterable
from typing import Any

import narwhals as nw
import numpy as np
from sklearn.utils.validation import _check_sample_weight, validate_data

from ._errors import DataError
from ._types import Rows
from .selection import Split

COLLINEAR = 1e-13
# On fewer rows nothing can be held out, and a flow would learn the rows by heart.
FEWEST_ROWS = 8


def check_frame(X, estimator, *, reset: bool) -> Rows:
    """Return a table as floats; check its columns against those of the fit, or take note of them."""
    _check_numbers(X)
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


def _check_numbers(X) -> None:
    """Raise `DataError` where a table holds other things than numbers, or no rows and columns.

    scikit-learn would find all this, too: but its messages do not say where, or show the whole table.
    """
    if isinstance(X, np.ndarray):
        _check_array(X)
        return
    try:
        frame = nw.from_native(X, eager_only=True, pass_through=True)
        schema = frame.schema if isinstance(frame, nw.DataFrame) else {}
    except nw.exceptions.DuplicateError:
        names = list(X.columns)
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(f"Expected columns of different names, got {repeated!r} twice; try renaming one.") from None
    for name, dtype in schema.items():
        if dtype == nw.Object:
            _check_cells(((row, repr(name)), cell) for row, cell in enumerate(frame.get_column(name).to_list()))
        elif not (dtype.is_numeric() or dtype == nw.Boolean):
            raise DataError(f"Expected numbers, got {dtype} in column {name!r}; try leaving it out, or encoding it.")


def _check_array(X: np.ndarray) -> None:
    if X.ndim == 1:
        raise DataError(
            f"Expected a 2D array, got one of shape {X.shape}. Reshape your data: try X.reshape(-1, 1) for one "
            "column, X.reshape(1, -1) for one row."
        )
    kind = X.dtype.kind
    if kind == "c":
        raise DataError(f"Complex data not supported: expected real numbers, got {X.dtype}; try X.real.")
    if X.ndim == 2 and kind in "OUT":
        _check_cells(np.ndenumerate(X))
    if kind in "USTMm":
        raise DataError(f"Expected numbers, got an array of {X.dtype}; try X.astype(float).")


def _check_cells(cells: Iterable) -> None:
    for (row, column), cell in cells:
        try:
            if isinstance(cell, str):
                float(cell)
        except ValueError:
            raise DataError(
                f"Expected numbers, got {cell!r} in row {row}, column {column}; try leaving it out, or encoding it."
            ) from None


def check_points(Z, columns: int) -> Rows:
    """Return points of the base as floats."""
    Z = np.asarray(Z, dtype=float)
    if Z.ndim != 2 or Z.shape[1] != columns:
        raise DataError(f"Expected points of shape (n, {columns}), got {Z.shape}; try Z.reshape(-1, {columns}).")
    _check_finite(Z, None)
    return Z


def check_weight(sample_weight, X: Rows) -> np.ndarray:
    """Return the weights of the rows, ones where there are none."""
    given = np.asarray(1.0 if sample_weight is None else sample_weight)
    if given.ndim == 1 and given.dtype.kind in "fi":
        bad = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
        if bad.size:
            # scikit-learn's own words first: it is known by them.
            known = "Negative values in data passed to `sample_weight`: e" if np.isfinite(given[bad[0]]) else "E"
            raise DataError(
                f"{known}xpected weights of at least 0, got {given[bad[0]]:g} in row {bad[0]}; "
                "try a weight of 0 for rows to leave out."
            )
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if weight.sum() <= 0:
        raise DataError("Expected a positive sum of weights, got 0; try leaving sample_weight out.")
    return weight


def check_varied(X: Rows, weight: np.ndarray, names) -> None:
    """Raise `DataError` where a table has no density: too few rows, constant or collinear columns."""
    kept = weight > 0
    X, weight = (X, weight) if kept.all() else (X[kept], weight[kept])
    rows, columns = X.shape
    if rows <= columns:
        counted = "samples" if kept.all() else "samples of positive weight"
        raise DataError(
            f"Expected more rows than columns, got {rows} {counted} of {columns} columns; try fewer columns, "
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
    involved = _collinear(X, weight)
    if involved.size:
        listed = ", ".join(name(j) for j in involved[:8])
        far = int(np.argmax(np.max(np.abs(X - loc) / spread, axis=1)))
        rest = np.arange(rows) != far
        if rows > columns + 1 and np.ptp(X[rest], axis=0).all() and not _collinear(X[rest], weight[rest]).size:
            row = np.flatnonzero(kept)[far]
            raise DataError(
                f"Expected rows of one scale, got row {row} so far out that columns {listed} hardly vary beside it; "
                "try leaving it out."
            )
        raise DataError(
            f"Expected columns that are no combination of each other, got collinear columns {listed}; try leaving one "
            "of them out: together they have no density."
        )


def _collinear(X: Rows, weight: np.ndarray) -> np.ndarray:
    """Return the columns that are a combination of each other, none where no columns are."""
    z = X - np.average(X, axis=0, weights=weight)
    z = z / np.max(np.abs(z), axis=0)
    z = z / np.sqrt(np.average(z**2, axis=0, weights=weight))
    values, vectors = np.linalg.eigh((z * weight[:, None]).T @ z / weight.sum())
    if values[0] >= COLLINEAR * X.shape[1]:
        return np.empty(0, int)
    return np.flatnonzero(np.abs(vectors[:, 0]) > 0.1 * np.abs(vectors[:, 0]).max())


def split_rows(X: Rows, weight: np.ndarray, fraction: float, most: int, seed: int) -> Split:
    """Split a table at random into rows to train on and at most `most` rows to choose by.

    Rows of weight 0 are left out; weights are scaled to a mean of 1 in each part. Without a fraction,
    and on fewer than `FEWEST_ROWS`, choices are made by the rows that are trained on.
    """
    kept = np.flatnonzero(weight)
    order = kept[np.random.default_rng(seed).permutation(len(kept))]
    num = min(most, max(int(fraction * len(order)), min(100, len(order) // 4)))
    if fraction == 0 or len(order) < FEWEST_ROWS or len(order) - num <= X.shape[1]:
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

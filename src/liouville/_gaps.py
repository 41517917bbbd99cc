"""Missing cells of tables as people have them: None, NaN, NA and NaT."""

import warnings
from collections.abc import Sequence
from typing import Any, cast

import narwhals as nw
import numpy as np

from ._errors import DataError

# Of what is wrong in many places, so many are named.
_MOST_NAMED = 10


def is_gap(cell: Any) -> bool:
    """Return True for None, NaN, and pandas' NA and NaT."""
    return (
        cell is None
        or type(cell).__name__ in ("NAType", "NaTType")
        or (isinstance(cell, float | np.floating) and cell != cell)
    )


def unmasked(X) -> Any:
    """Return an array whose masked cells are missing values, and all else as it is."""
    if not isinstance(X, np.ma.MaskedArray) or X.dtype.kind not in "fiub":
        return X
    return np.ma.filled(X.astype(np.result_type(X.dtype, np.float32)), np.nan)


def with_nan(X: Any) -> Any:
    """Return a table whose things that are numbers, or gaps, are floats: of these None and NA are NaN."""
    as_float = lambda cells: [np.nan if is_gap(cell) else _exact(cell) for cell in cells]
    is_number = lambda cell: is_gap(cell) or (isinstance(cell, int | float | np.number) and not isinstance(cell, bool))
    if isinstance(X, list) or (isinstance(X, np.ndarray) and X.dtype.kind == "O" and X.ndim == 2):
        try:
            return np.array([as_float(row) for row in X], np.float64)
        except DataError:
            raise
        except (TypeError, ValueError):
            # What is wrong is said where it is looked for.
            return X
    try:
        frame = nw.from_native(cast(Any, X), eager_only=True)
    except (TypeError, nw.exceptions.DuplicateError):
        return X
    things = [frame.get_column(name) for name, dtype in frame.schema.items() if dtype == nw.Object]
    things = [series for series in things if all(map(is_number, series.to_list()))]
    if not things or not len(frame) or not frame.implementation.is_pandas_like():
        return X
    native = cast(Any, X).copy()
    for series in things:
        native[series.name] = as_float(series.to_list())
    return native


def _exact(cell: Any) -> float:
    """Return a number as a float that has all its digits."""
    number = float(cell)
    if isinstance(cell, int | np.integer) and int(number) != int(cell):
        raise DataError(
            f"Expected whole numbers up to 2**53, got {cell}, whose last digits no float keeps; try leaving the column "
            "out, or text."
        )
    return number


def unmatched(names: Sequence, found: Sequence) -> tuple[list, list]:
    """Return which names were not found, and which others were."""
    return [name for name in names if name not in found], [name for name in found if name not in names]


def check_some(X: Any, names: list) -> None:
    """Raise where a frame has none of some columns; warn where it lacks some and has others."""
    frame = nw.from_native(X, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        return
    absent, others = unmatched(names, frame.columns)
    if len(absent) == len(names):
        raise DataError(
            f"Expected some of the columns {names[:_MOST_NAMED]}, got {others[:_MOST_NAMED]}; try renaming."
        )
    if absent and others:
        warnings.warn(
            f"Expected columns of the fit, got {others[:_MOST_NAMED]} too, and none called {absent[:_MOST_NAMED]}: "
            "these are drawn; try renaming, where one is meant.",
            UserWarning,
            stacklevel=5,
        )

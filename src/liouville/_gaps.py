"""Missing cells of tables as people have them: None, NaN, NA and NaT."""

from typing import Any, cast

import narwhals as nw
import numpy as np


def is_gap(cell: Any) -> bool:
    """Return True for None, NaN, and pandas' NA and NaT."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def with_nan(X: Any) -> Any:
    """Return a table whose things that are numbers, or gaps, are floats: of these None and NA are NaN."""
    as_float = lambda cells: [np.nan if is_gap(cell) else float(cell) for cell in cells]
    is_number = lambda cell: is_gap(cell) or (isinstance(cell, int | float | np.number) and not isinstance(cell, bool))
    if isinstance(X, list) or (isinstance(X, np.ndarray) and X.dtype.kind == "O" and X.ndim == 2):
        try:
            return np.array([as_float(row) for row in X], np.float64)
        except (TypeError, ValueError):
            # What is wrong is said where it is looked for.
            return X
    try:
        frame = nw.from_native(cast(Any, X), eager_only=True)
    except (TypeError, nw.exceptions.DuplicateError):
        return X
    things = [frame.get_column(name) for name, dtype in frame.schema.items() if dtype == nw.Object]
    things = [series for series in things if all(map(is_number, series.to_list()))]
    if not things or not len(frame):
        return X
    # Columns of things are pandas' alone.
    return cast(Any, X).assign(**{series.name: as_float(series.to_list()) for series in things})

"""Targets at the public boundary: what `y` is as a table."""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import narwhals as nw
import numpy as np
from sklearn.utils.validation import check_consistent_length

from ._errors import DataError
from ._gaps import is_gap, unmasked
from ._tables import check_names, check_rows, check_table
from ._types import Rows
from .mixed import Column, Columns, Field

Checked = TypeVar("Checked")
# The name of a target that has none.
_NAME = "y"
# Of ten rows of three columns that say half of a target, intervals of 90 % held 49 to 85 %, of thirty 71 to 93 %.
_FEWEST_ROWS = 50


def target_table(y: Any, name: str, names: Sequence[str] = ()) -> Any:
    """Return targets as a table, of one column where they are one axis.

    `name` is that of the estimator, and an array of text has the names of its targets, if there are so many.
    """
    if y is None:
        raise ValueError(
            f"This {name} requires y to be passed, but the target y is None: expected targets, got none; try "
            "FlowDensity for the density of X."
        )
    check_names(y)
    native = nw.from_native(y, allow_series=True, pass_through=True)
    if isinstance(native, nw.Series):
        # One target is what it is, whatever it is called.
        name = names[0] if len(names) == 1 else native.name or _NAME
        return native.alias(name).to_frame().to_native()
    if isinstance(native, nw.DataFrame):
        is_one = len(names) == len(native.columns) == 1
        return native.rename({native.columns[0]: names[0]}).to_native() if is_one else y
    y = np.asarray(unmasked(y))
    y = y[:, None] if y.ndim == 1 else y
    if y.dtype.kind == "b" and y.ndim == 2:
        return y.astype(int)
    if y.dtype.kind not in "OUS" or y.ndim != 2:
        return y
    if len(names) != y.shape[1]:
        names = [_NAME] if y.shape[1] == 1 else [str(j) for j in range(y.shape[1])]
    columns = {name: column.tolist() for name, column in zip(names, y.T, strict=True)}
    for name, cells in columns.items():
        _check_alike(name, cells)
    return nw.from_dict(columns, backend="pyarrow").to_native()


def _check_alike(name: str, cells: list) -> None:
    """Raise where some cells of a column are text and others are not."""
    is_text = [isinstance(cell, str) for cell in cells]
    others = [i for i, cell in enumerate(cells) if not (is_text[i] or is_gap(cell))]
    if any(is_text) and others:
        raise DataError(
            f"Of y: Expected text in column {name!r}, as in row {is_text.index(True)}, got {cells[others[0]]!r} in row "
            f"{others[0]}; try text, or numbers, in all rows."
        )


def check_targets(X: Any, y: Any, estimator: Any, declared: Any) -> tuple[Rows, Columns]:
    """Return targets of a fit as numbers, and what they are; none may be missing.

    One that has a density everywhere ends where it is declared to, and nowhere else: what it is given a row says more
    than that none was negative.
    """
    table = target_table(y, type(estimator).__name__)
    check_consistent_length(X, table)
    with warnings.catch_warnings():
        # A target of one value is refused below.
        warnings.filterwarnings("ignore", "Expected columns that vary, but not in every row, got one value")
        rows, columns = _of_targets(lambda: check_table(table, type(estimator)(), declared))
    for field, values in zip(columns.fields, rows.T, strict=True):
        if len(field.levels) == 1 or (not field.levels and np.ptp(values) == 0):
            value = field.levels[0] if field.levels else float(values[0])
            raise DataError(f"Of y: Expected targets that vary, got only {value!r} in {field.name!r}; try another.")
    known = {str(name) for name in declared or {}}
    columns.fields = tuple(field if str(field.name) in known else _without_end(field) for field in columns.fields)
    return rows, columns


def _without_end(field: Field) -> Field:
    column = field.column
    return dataclasses.replace(field, column=Column("continuous")) if column.is_density else field


def check_target_rows(X: Any, y: Any, estimator: Any, columns: Columns) -> Rows:
    """Return targets as numbers, by what their columns are in the fit; dates may be numbers, as drawn ones are."""
    names = [str(field.name) for field in columns.fields]
    table = target_table(y, type(estimator).__name__, names)
    check_consistent_length(X, table)
    fitted = type(estimator)()
    fitted.columns_, fitted.n_features_in_ = _of_numbers(columns, table), len(names)
    if isinstance(nw.from_native(table, pass_through=True), nw.DataFrame) and columns.backend is None:
        # Names say nothing to a fit that had none.
        table = nw.from_native(table).to_numpy()
    if hasattr(table, "columns") and columns.backend is not None:
        fitted.feature_names_in_ = np.array(names, object)
    return _of_targets(lambda: check_rows(table, fitted))


def _of_numbers(columns: Columns, table: Any) -> Columns:
    """Return what columns are to a table: dates that it has as numbers of their unit since 1970 are these numbers."""
    frame = nw.from_native(table, pass_through=True)
    schema = frame.schema if isinstance(frame, nw.DataFrame) else {}
    is_number = lambda name: schema[name].is_numeric() if name in schema else not schema and table.dtype.kind in "iuf"
    found = copy.copy(columns)
    found.fields = tuple(
        dataclasses.replace(field, unit="", zone="", writing=None) if field.unit and is_number(field.name) else field
        for field in columns.fields
    )
    return found


def check_given(X: Any, y: Any, estimator: Any) -> tuple[Rows, Columns]:
    """Return as numbers what rows of a fit are given, and what it is: whole numbers of one column are classes."""
    y = _plain(y)
    is_class = isinstance(y, np.ndarray) and y.dtype.kind in "iub" and (y.size,) == y.shape[:1]
    rows, columns = check_targets(X, y, estimator, {"0": "category"} if is_class else None)
    columns.unseen = None
    return rows, columns


def given_rows(y: Any, num: int, estimator: Any, columns: Columns) -> Rows:
    """Return as numbers what each of so many rows is given, of which `y` may say one for all."""
    y = _plain(y)
    if isinstance(y, np.ndarray) and (y.ndim == 0 or (y.ndim == 1 and len(columns.fields) > 1)):
        y = y[None]
    rows = check_target_rows(y, y, estimator, columns)
    if len(rows) not in (1, num):
        raise DataError(f"Expected y for {num} pictures, or one for all, got {len(rows)}; try y[:{num}].")
    return np.broadcast_to(rows[:1], (num, rows.shape[1])) if len(rows) == 1 else rows


def _plain(y: Any) -> Any:
    """Return a frame of several columns as it is, and all else as an array, without a name; of integers if it can."""
    if isinstance(nw.from_native(y, pass_through=True), nw.DataFrame):
        return y
    y = np.asarray(unmasked(y))
    if y.dtype == object and all(isinstance(cell, int | np.integer) for cell in y.flat):
        return y.astype(int)
    return y


def named(numbers: np.ndarray, levels: Sequence, dtype: type) -> np.ndarray:
    """Return numbers of targets, of shape ``(..., k)``, with the levels of each in the place of its codes, if any."""
    found = numbers.astype(dtype)
    for j, column in enumerate(levels):
        if column is not None:
            found[..., j] = np.asarray(column, dtype)[numbers[..., j].astype(int)]
    return found


def warn_of_few_rows(num: int) -> None:
    """Warn where rows are so few that what is learned of their targets is too sure."""
    if num < _FEWEST_ROWS:
        warnings.warn(
            f"Expected {_FEWEST_ROWS} rows or more, got {num}: intervals may be far too narrow; try more rows, and "
            "look at how often intervals hold targets of others.",
            UserWarning,
            stacklevel=4,
        )


def _of_targets(check: Callable[[], Checked]) -> Checked:
    """Return what a check returns; where it raises, the error says that it is of them."""
    try:
        return check()
    except ValueError as error:
        said = str(error)
        if said.startswith("Expected finite numbers"):
            said = f"{said.rpartition('; try ')[0]}; try leaving out rows whose targets are not known."
        raise type(error)(f"Of y: {said}") from None

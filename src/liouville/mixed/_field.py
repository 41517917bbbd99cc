"""What a column of a frame is: found by its cells, or said by the user."""

import dataclasses
import math
import re
from typing import Any

import narwhals as nw
import numpy as np

from .._errors import DataError
from ._dates import DATE, as_numbers, ends_of, holds_dates, unit_of, writing_of
from ._find import find_column
from ._frame import Column, whole_numbers

# So few whole numbers are categories: their order says less than they do.
_FEWEST_NUMBERS = 10
# Floats of so many digits are whole numbers one by one.
_MOST_DIGITS = 2.0**53
_KINDS = ("continuous", "positive", "category", "integer")


@dataclasses.dataclass(frozen=True)
class Field:
    """A column of a frame: its name, what it is, and what its cells were.

    Attributes
    ----------
    name
        Its name.
    column
        What its numbers are.
    why
        Why it is that, in words.
    levels
        Of a category the levels that the codes stand for, in order; empty for numbers.
    dtype
        Type of the cells, as the frame's library calls it.
    categories
        Of a categorical column all categories that it may have, and whether they are ordered.
    unit
        Of dates the unit that they are whole numbers of: that of the first table, whatever comes later.
    writing
        Of dates that are text how they are written (`writing_of` of `liouville.mixed._dates`).
    zone
        Of times the zone in which they are told.
    """

    name: str
    column: Column
    why: str
    levels: tuple = ()
    dtype: Any = None
    categories: tuple[tuple, bool] | None = None
    unit: str = ""
    writing: tuple[str, str] | None = None
    zone: str = ""


def field_of(series: nw.Series, declared: Any, places: np.ndarray, has_gaps: bool = False) -> Field:
    """Return what a column is, as declared or found, by its cells and by the rows in which they are."""
    dtype, name = series.dtype, series.name
    is_pandas = series.implementation.is_pandas_like()
    # Decimals are floats in what is learned, and so in what is drawn.
    native = str(series.to_native().dtype) if is_pandas else nw.Float64() if dtype == nw.Decimal else dtype
    native = "double[pyarrow]" if is_pandas and dtype == nw.Decimal else native
    if declared is not None:
        return _declared(series, declared, native, places)
    writing = writing_of(series)
    if holds_dates(series) or writing is not None:
        unit = unit_of(series, writing)
        why = "a date" if unit == DATE else f"a date, in units of 1 {unit}"
        low, high = ends_of(unit, native)
        column = dataclasses.replace(find_column(as_numbers(series, unit), is_whole=True), lowest=low, highest=high)
        zone = getattr(dtype, "time_zone", None) or ""
        return Field(name, column, why, dtype=native, unit=unit, writing=writing, zone=zone)
    if not holds_numbers(series):
        return _category(series, f"holds {dtype}", native)
    values = numbers_of(series)
    if dtype.is_integer() and np.max(np.abs(values), initial=0.0) > _MOST_DIGITS:
        row = int(np.argmax(np.abs(values)))
        raise DataError(
            f"Expected whole numbers up to 2**53 in column {name!r}, got {series[row]} in row {places[row]}, whose "
            f"last digits no float keeps; try columns={{{name!r}: 'category'}}, or leaving it out."
        )
    if len(series) > 1 and np.ptp(values) == 0:
        return _category(series, "one value", native)
    if dtype.is_integer() and len(np.unique(values)) <= _FEWEST_NUMBERS:
        return _category(series, f"whole numbers of {_FEWEST_NUMBERS} values or fewer", native)
    # Gaps make floats of whole numbers.
    is_whole = dtype.is_integer() or bool(has_gaps and np.all(values == np.round(values)))
    column = find_column(values, is_whole)
    if dtype.is_integer():
        column = _within(column, dtype)
    why = "whole numbers" if is_whole else "values that rows share" if column.kind == "whole" else "numbers"
    return Field(name, column, why, dtype=native)


def numbers_of(series: nw.Series) -> np.ndarray:
    """Return a column of numbers, or of yes and no, as floats."""
    return np.asarray(series.to_numpy(), np.float64)


def holds_numbers(series: nw.Series) -> bool:
    """Return True for a column of numbers, of things as well if all of them are numbers."""
    if series.dtype != nw.Object:
        return series.dtype.is_numeric()
    return all(isinstance(cell, int | float | np.number) and not isinstance(cell, bool) for cell in series.to_list())


def _within(column: Column, dtype: Any) -> Column:
    """Return whole numbers within the range of their type, where that is a narrow one."""
    found = re.fullmatch(r"(u?int)(8|16|32)", str(dtype).lower())
    if not found:
        return column
    span, step = np.iinfo(found[0]), column.step
    low, high = math.ceil(span.min / step) * step, math.floor(span.max / step) * step
    return dataclasses.replace(column, lowest=max(column.lowest, float(low)), highest=float(high))


def _category(series: nw.Series, why: str, native: Any) -> Field:
    cells, categories = set(series.to_list()), None
    if others := sorted({type(cell).__name__ for cell in cells if not isinstance(cell, str | bool | int | float)}):
        raise DataError(
            f"Expected text, numbers, or yes and no in column {series.name!r}, got {', '.join(others)}; try making "
            "them strings."
        )
    if native == "category":
        accessor = series.to_native().cat
        categories = (tuple(accessor.categories.tolist()), bool(accessor.ordered))
    if isinstance(series.dtype, nw.Enum) and categories is None:
        categories = (tuple(series.dtype.categories), True)
    # Yes and 1 are equal to Python, and text and numbers have no order.
    kinds = {"int" if type(cell).__name__ == "float" else type(cell).__name__ for cell in cells}
    if len(kinds) > 1:
        raise DataError(
            f"Expected cells of one kind in column {series.name!r}, got {', '.join(sorted(kinds))}; try making them "
            "strings."
        )
    order = sorted(cells) if categories is None else [level for level in categories[0] if level in cells]
    if not order:
        raise DataError(f"Expected rows, got none in column {series.name!r}; try another table.")
    return Field(series.name, Column("code", len(order)), why, tuple(order), native, categories)


def _declared(series: nw.Series, kind: Any, native: Any, places: np.ndarray) -> Field:
    """Return a column that is what the user says, or raise where it cannot be."""
    name, why = series.name, "as declared"
    if kind == "category":
        return _category(series, why, native)
    form = kind[0] if isinstance(kind, tuple | list) and kind else kind
    sizes = {"grid": 2, "bounded": 3}
    length = 0 if isinstance(kind, str) else len(kind)
    if form not in (*_KINDS, *sizes) or length != sizes.get(form, 0):
        raise ValueError(
            f"Expected a kind among {list(_KINDS)}, ('bounded', a, b) and ('grid', step) for column {name!r}, got "
            f"{kind!r}; try 'continuous'."
        )
    if not holds_numbers(series):
        raise DataError(f"Expected numbers in column {name!r} for {kind!r}, got {series.dtype}; try 'category'.")
    values = numbers_of(series)
    is_number = lambda size: isinstance(size, int | float | np.number) and not isinstance(size, bool)
    is_size = lambda size: is_number(size) and np.isfinite(size)
    sizes_ok = isinstance(kind, str) or all(map(is_size, kind[1:]))
    ends = [float(size) for size in kind[1:]] if sizes_ok and not isinstance(kind, str) else []
    if not sizes_ok or (form == "grid" and ends[0] <= 0) or (form == "bounded" and ends[0] >= ends[1]):
        raise ValueError(
            f"Expected ('bounded', a, b) with a < b or ('grid', step) with a step above 0 for column {name!r}, got "
            f"{kind!r}; try 'auto'."
        )
    if form in ("integer", "grid"):
        column = _on_grid(values, ends[0] if form == "grid" else 1.0, name, places)
        return Field(name, _within(column, series.dtype), why, dtype=native)
    low, high = {"positive": (0.0, math.inf), "continuous": (-math.inf, math.inf)}.get(form) or ends
    atoms = find_column(values).atoms
    if form == "continuous" and atoms:
        raise DataError(
            f"Expected a density of column {name!r}, got values that many rows share, such as {atoms[0]:g}, which have "
            "none; try columns='auto'."
        )
    edge = tuple(sorted({*atoms, *(end for end in (low, high) if end in values)}))
    beyond = np.flatnonzero((values < low) | (values > high))
    if beyond.size:
        raise DataError(
            f"Expected numbers from {low:g} to {high:g} in column {name!r}, got {values[beyond[0]]:g} in row "
            f"{places[beyond[0]]}; try other bounds."
        )
    return Field(name, Column("continuous", atoms=edge, edges=(low, high)), why, dtype=native)


def _on_grid(values: np.ndarray, step: float, name: str, places: np.ndarray) -> Column:
    off = np.flatnonzero(np.isinf(whole_numbers(values, Column("whole", step=step))[1]))
    if off.size:
        raise DataError(
            f"Expected multiples of {step:g} in column {name!r}, got {values[off[0]]:g} in row {places[off[0]]}; try "
            "'continuous'."
        )
    column = find_column(np.round(values / step), is_whole=True)
    atoms = tuple(atom * step for atom in column.atoms)
    return dataclasses.replace(column, step=step, atoms=atoms, lowest=column.lowest * step)


def said_of(field: Field) -> str:
    """Return what a column is, and by which measure its log-probability is one, in words."""
    column = field.column
    gaps = ", one of them for gaps" if column.gaps else ""
    if column.kind == "code":
        return f"category of {column.levels} levels{gaps} ({field.why}); counting measure"
    listed = [*(f"{atom:g}" for atom in column.atoms[:5]), *(["gaps"] if column.gaps else [])]
    atoms = f" with atoms at {', '.join(listed)}" if listed else ""
    if column.kind == "whole":
        return f"whole numbers in steps of {column.step:g}{atoms} ({field.why}); counting measure"
    edges = " from {:g} to {:g}".format(*column.edges) if column.is_bounded else ""
    measure = "Lebesgue measure, counting measure on the atoms" if atoms else "Lebesgue measure"
    return f"continuous{edges}{atoms} ({field.why}); {measure}"

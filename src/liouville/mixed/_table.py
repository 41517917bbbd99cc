"""Tables as people have them: categories, counts, dates and amounts in a frame, as numbers and back."""

import dataclasses
import datetime
import decimal
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any, cast

import narwhals as nw
import numpy as np

from .._errors import DataError, did_you_mean
from .._types import Rows
from ._find import find_column
from ._frame import Column, whole_numbers

# So few whole numbers are categories: their order says less than they do.
_FEWEST_NUMBERS = 10
# Where so many of the rows have levels of their own, there is little to learn.
_MANY_LEVELS = 0.5
# Of what is wrong in many places, so many are named.
_MOST_NAMED = 10
# Units of dates, in microseconds, the largest first.
_UNITS = {"day": 86_400e6, "s": 1e6, "ms": 1e3, "us": 1.0}
# Of cells that are days, and no times of theirs.
_DATE = "date"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC).replace(tzinfo=None)
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
    """

    name: str
    column: Column
    why: str
    levels: tuple = ()
    dtype: Any = None
    categories: tuple[tuple, bool] | None = None
    unit: str = ""


class Columns:
    """The columns of a frame: what each is, its cells as numbers, and numbers as a frame of that kind.

    Strings, booleans and categories are codes; so are integers of ten values or fewer; other integers, and dates by
    the largest unit that fits them, are whole numbers. What floats are is found by their numbers
    (`liouville.mixed.find_columns`).

    Parameters
    ----------
    X
        A data frame: pandas, polars or another that narwhals knows.
    declared
        What columns are, by name, instead: ``"continuous"``, ``"positive"``, ``("bounded", a, b)``, ``"category"``,
        ``"integer"`` or ``("grid", step)``.

    Raises
    ------
    DataError
        Where cells are missing, a column holds things of several kinds, or one that is said to be continuous has
        values that many rows share.
    ValueError
        Where what is declared has no meaning.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"kind": ["cat", "dog", "dog"], "legs": [4, 4, 3]})
    >>> columns = Columns(frame)
    >>> print(columns.rows(frame).tolist(), columns.frame(columns.rows(frame)).equals(frame))
    [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]] True
    """

    def __init__(self, X: Any, declared: Mapping[str, Any] | None = None):
        frame, declared = _framed(X), {str(name): kind for name, kind in (declared or {}).items()}
        _check_gaps(frame, frame.columns)
        known = list(map(str, frame.columns))
        for name in declared:
            if name not in known:
                raise ValueError(
                    f"Expected kinds of columns of the table, got one of {name!r}{did_you_mean(name, known)}; try "
                    f"names among {known[:_MOST_NAMED]}."
                )
        # None is an array, whose columns have numbers for names.
        self.backend = None if isinstance(X, np.ndarray) else frame.implementation
        self.fields = tuple(_field(frame.get_column(name), declared.get(str(name))) for name in frame.columns)
        if self.backend is not None:
            _warn_of_levels(self.fields, len(frame))

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the numbers of each column are, for `liouville.mixed.fit_mixed`."""
        return tuple(field.column for field in self.fields)

    def rows(self, X: Any) -> Rows:
        """Return a frame of these columns as numbers, of shape ``(n, columns)``.

        A level that was not there before is -1, which has no probability; a warning names the first.
        """
        frame = _framed(X)
        names = [field.name for field in self.fields]
        if self.backend is None or isinstance(X, np.ndarray):
            # Without names columns are those of the fit by their order.
            if len(frame.columns) != len(names):
                raise DataError(f"Expected {len(names)} columns, got {len(frame.columns)}; try a table like the first.")
            names_in = frame.columns
        else:
            names_in = names
        if not len(frame):
            raise DataError("Expected a row or more, got none; try another table.")
        if missing := [name for name in names_in if name not in frame.columns]:
            raise DataError(f"Expected columns {names}, got none called {missing[0]!r}; try a table like the first.")
        _check_gaps(frame, names_in)
        series = [frame.get_column(name) for name in names_in]
        rows = np.stack([self._numbers(*pair) for pair in zip(self.fields, series, strict=True)], axis=1)
        unknown = [
            f"{series[j].to_list()[row]!r} in row {row}, column {field.name!r}"
            for j, field in enumerate(self.fields)
            for row in np.flatnonzero(rows[:, j] == -1)[:1]
            if field.levels
        ]
        if unknown:
            warnings.warn(
                f"Expected levels that the fit has seen, got {'; '.join(unknown)}: their log-probability is -inf.",
                UserWarning,
                stacklevel=3,
            )
        return rows

    @property
    def has_levels(self) -> bool:
        """Return True where cells are other things than numbers."""
        return any(isinstance(level, str | bool) for field in self.fields for level in field.levels)

    @property
    def is_continuous(self) -> bool:
        """Return True where all columns are continuous, without atoms."""
        return all(column.is_density for column in self.columns)

    def values(self, rows: Rows) -> Rows:
        """Return rows of numbers with the levels that are numbers in the place of their codes.

        Raises
        ------
        TypeError
            Where cells are text, or dates, which no number says.
        """
        others = [f.name for f in self.fields if f.unit or any(isinstance(level, str) for level in f.levels)]
        if others:
            raise TypeError(
                f"Expected numbers alone, got others in columns {others[:_MOST_NAMED]}; try sample in Python."
            )
        columns = [np.asarray(_out_of(field, column), float) for field, column in zip(self.fields, rows.T, strict=True)]
        return np.stack(columns, axis=1)

    def are_masses(self, rows: Rows) -> np.ndarray:
        """Return which rows, as numbers, have no density in any column: their log-probability is that of a mass."""
        found = np.ones(len(rows), bool)
        for column, values in zip(self.columns, rows.T, strict=True):
            if column.kind == "continuous":
                found &= column.on_atoms(values).any(-1)
        return found

    def to_facts(self) -> dict[str, Any]:
        """Return all that there is to know of the columns, in JSON's types."""
        fields = [{**dataclasses.asdict(field), "dtype": str(field.dtype)} for field in self.fields]
        return {"backend": None if self.backend is None else self.backend.value, "fields": fields}

    @staticmethod
    def of_facts(facts: dict[str, Any]) -> "Columns":
        """Return the columns that facts describe."""
        self = Columns.__new__(Columns)
        self.backend = None if facts["backend"] is None else nw.Implementation.from_backend(facts["backend"])
        self.fields = tuple(_field_of(fact, self.backend) for fact in facts["fields"])
        return self

    def __repr__(self) -> str:
        """Return a line for each column: its name, what it is, and why."""
        width = max(len(str(field.name)) for field in self.fields)
        return "\n".join(f"{field.name!s:{width}}  {_said(field)}" for field in self.fields)

    def _numbers(self, field: Field, series: nw.Series) -> np.ndarray:
        if not field.levels:
            is_date = _holds_dates(series)
            if is_date != bool(field.unit) or not (is_date or series.dtype.is_numeric() or series.dtype == nw.Boolean):
                kind = "dates" if field.unit else "numbers"
                raise DataError(
                    f"Expected {kind} in column {field.name!r}, got {series.dtype}; try a table like the first."
                )
            return _as_numbers(series, field.unit)
        place = {level: i for i, level in enumerate(field.levels)}
        return np.array([place.get(cell, -1) for cell in series.to_list()], np.float64)

    def frame(self, rows: Rows) -> Any:
        """Return rows of numbers as a frame of the kind, with the types and levels, of the one it was made by."""
        if self.backend is None:
            cells = [np.asarray(_out_of(field, column)) for field, column in zip(self.fields, rows.T, strict=True)]
            return np.stack(cells, axis=1)
        if not self.backend.is_pandas_like():
            series = [self._series(field, column) for field, column in zip(self.fields, rows.T, strict=True)]
            return nw.concat([s.to_frame() for s in series], how="horizontal").to_native()
        library = self.backend.to_native_namespace()
        return library.DataFrame({f.name: _of_pandas(library, f, c) for f, c in zip(self.fields, rows.T, strict=True)})

    def _series(self, field: Field, column: np.ndarray) -> nw.Series:
        cells = _out_of(field, column)
        series = nw.new_series(field.name, cells, backend=cast(Any, self.backend))
        return series if series.dtype == field.dtype else series.cast(field.dtype)


def _of_pandas(library: Any, field: Field, column: np.ndarray) -> Any:
    cells = _out_of(field, column)
    if field.categories is not None:
        categories, is_ordered = field.categories
        return library.Categorical(cells, categories=list(categories), ordered=is_ordered)
    return library.Series(cells).astype(field.dtype)


def _out_of(field: Field, column: np.ndarray) -> Any:
    """Return numbers as the cells that they stand for."""
    if field.levels:
        return [field.levels[int(code)] for code in column]
    if field.unit:
        micros = _micros(field.unit)
        times = [_EPOCH + datetime.timedelta(microseconds=int(n) * micros) for n in column]
        return [time.date() for time in times] if field.unit == _DATE else times
    step = field.column.step
    if field.column.kind == "whole" and step == 1 and np.all(column == np.round(column)):
        return np.round(column).astype(np.int64)
    # Of a grid as many decimals as its step is written with, so that 0.1 comes back as 0.1.
    decimals = max(0, -cast(int, decimal.Decimal(repr(step)).as_tuple().exponent))
    return np.round(column, decimals) if field.column.kind == "whole" else column


def _micros(unit: str) -> int:
    return int(_UNITS["day" if unit == _DATE else unit])


def _holds_dates(series: nw.Series) -> bool:
    return series.dtype == nw.Date or isinstance(series.dtype, nw.Datetime)


def _warn_of_levels(fields: tuple[Field, ...], rows: int) -> None:
    """Warn of columns that say nothing, and of text in which nearly every value is another."""
    for field in fields:
        if len(field.levels) == 1:
            said, advice = f"one value ({field.levels[0]!r})", "it is a category of one level, and says nothing"
        elif len(field.levels) > max(_MANY_LEVELS * rows, 20):
            said, advice = f"{len(field.levels)} levels in {rows} rows", "hardly any is there twice"
        else:
            continue
        warnings.warn(
            f"Expected columns that vary, but not in every row, got {said} in column {field.name!r}: {advice}; try "
            "leaving it out.",
            UserWarning,
            stacklevel=6,
        )


def _framed(X: Any) -> nw.DataFrame:
    """Return a frame; of an array one whose columns are named by their numbers."""
    if isinstance(X, np.ndarray):
        return nw.from_dict({str(j): column for j, column in enumerate(X.T)}, backend="pyarrow")
    return nw.from_native(X, eager_only=True)


def _said(field: Field) -> str:
    """Return what a column is, and by which measure its log-probability is one, in words."""
    column = field.column
    if column.kind == "code":
        return f"category of {column.levels} levels ({field.why}); counting measure"
    atoms = f" with atoms at {', '.join(f'{atom:g}' for atom in column.atoms[:5])}" if column.atoms else ""
    if column.kind == "whole":
        return f"whole numbers in steps of {column.step:g}{atoms} ({field.why}); counting measure"
    low, high = column.edges
    edges = "" if (low, high) == (-math.inf, math.inf) else f" from {low:g} to {high:g}"
    measure = "Lebesgue measure, counting measure on the atoms" if atoms else "Lebesgue measure"
    return f"continuous{edges}{atoms} ({field.why}); {measure}"


def _field_of(fact: dict[str, Any], backend: nw.Implementation | None) -> Field:
    fact = {name: as_tuple(value) for name, value in fact.items()}
    column = Column(**{name: as_tuple(value) for name, value in fact["column"].items()})
    categories, dtype = fact["categories"], fact["dtype"]
    if backend is None or not backend.is_pandas_like():
        name = dtype.split("(")[0]
        dtype = nw.Enum(list(categories[0])) if name == "Enum" else getattr(nw, name)
    return Field(**{**fact, "column": column, "dtype": dtype})


def as_tuple(value: Any) -> Any:
    """Return what was a tuple before it stood in a file as one, whatever is in it."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def _as_numbers(series: nw.Series, unit: str = "us") -> np.ndarray:
    if isinstance(series.dtype, nw.Datetime):
        return np.asarray(series.dt.timestamp("us").to_numpy(), np.float64) / _micros(unit)
    if series.dtype == nw.Date:
        return np.array([(cell - _EPOCH.date()).days for cell in series.to_list()], np.float64)
    return np.asarray(series.to_numpy(), np.float64)


def _unit_of(series: nw.Series) -> str:
    """Return the largest unit of which all dates are whole numbers."""
    if series.dtype == nw.Date:
        return _DATE
    micros = np.asarray(series.dt.timestamp("us").to_numpy(), np.int64)
    return next(unit for unit in _UNITS if (micros % _micros(unit) == 0).all())


def _check_gaps(frame: nw.DataFrame, names: list) -> None:
    """Raise where cells are missing or infinite, naming the first of each column."""
    found = []
    for name in names:
        series = frame.get_column(name)
        dtype = series.dtype
        bad = np.asarray(series.is_null().to_numpy(), bool)
        if dtype.is_float():
            bad = bad | ~np.isfinite(np.asarray(series.to_numpy(), np.float64))
        if bad.any():
            found.append(f"{bad.sum()} in column {name!r}, the first in row {int(bad.argmax())}")
    if found:
        more = f"; and {len(found) - _MOST_NAMED} more columns" if len(found) > _MOST_NAMED else ""
        listed = "; ".join(found[:_MOST_NAMED])
        raise DataError(f"Expected no missing or infinite cells, got {listed}{more}; try dropping these rows.")


def _field(series: nw.Series, declared: Any) -> Field:
    """Return what a column is, as declared or found."""
    dtype, name = series.dtype, series.name
    is_pandas = series.implementation.is_pandas_like()
    native = str(series.to_native().dtype) if is_pandas else dtype
    is_date = _holds_dates(series)
    is_number = dtype.is_numeric()
    if declared is not None:
        return _declared(series, declared, native, is_number)
    if not (is_number or is_date):
        return _category(series, f"holds {dtype}", native)
    if is_date:
        unit = _unit_of(series)
        why = "a date" if unit == _DATE else f"a date, in units of 1 {unit}"
        column = find_column(_as_numbers(series, unit), is_whole=True)
        return Field(name, dataclasses.replace(column, lowest=-math.inf), why, dtype=native, unit=unit)
    values = _as_numbers(series)
    if len(series) > 1 and np.ptp(values) == 0:
        return _category(series, "one value", native)
    if dtype.is_integer() and len(np.unique(values)) <= _FEWEST_NUMBERS:
        return _category(series, f"whole numbers of {_FEWEST_NUMBERS} values or fewer", native)
    column = find_column(values, is_whole=dtype.is_integer())
    if dtype.is_integer():
        column = _within(column, native)
    why = "whole numbers" if dtype.is_integer() else "values that rows share" if column.kind == "whole" else "numbers"
    return Field(name, column, why, dtype=native)


def _within(column: Column, native: Any) -> Column:
    """Return whole numbers within the range of their type, where that is a narrow one."""
    found = re.fullmatch(r"(u?int)(8|16|32)", str(native).lower())
    if not found:
        return column
    span = np.iinfo(found[0])
    return dataclasses.replace(column, lowest=max(column.lowest, float(span.min)), highest=float(span.max))


def _category(series: nw.Series, why: str, native: Any) -> Field:
    cells, categories = set(series.to_list()), None
    if others := sorted({type(cell).__name__ for cell in cells if not isinstance(cell, str | bool | int | float)}):
        raise DataError(
            f"Expected text, numbers, or yes and no in column {series.name!r}, got {', '.join(others)}; try making "
            "them strings."
        )
    if series.dtype in (nw.Categorical, nw.Enum) and series.implementation.is_pandas_like():
        accessor = series.to_native().cat
        categories = (tuple(accessor.categories.tolist()), bool(accessor.ordered))
    if isinstance(series.dtype, nw.Enum) and categories is None:
        categories = (tuple(series.dtype.categories), True)
    try:
        order = sorted(cells) if categories is None else [level for level in categories[0] if level in cells]
    except TypeError:
        kinds = sorted({type(cell).__name__ for cell in cells})
        raise DataError(
            f"Expected cells of one kind in column {series.name!r}, got {', '.join(kinds)}; try making them strings."
        ) from None
    return Field(series.name, Column("code", len(order)), why, tuple(order), native, categories)


def _declared(series: nw.Series, kind: Any, native: Any, is_number: bool) -> Field:
    """Return a column that is what the user says, or raise where it cannot be."""
    name, why = series.name, "as declared"
    if kind == "category":
        return _category(series, why, native)
    form = kind[0] if isinstance(kind, tuple | list) and kind else kind
    sizes = {"grid": 2, "bounded": 3}
    if form not in (*_KINDS, *sizes) or (form in sizes and (isinstance(kind, str) or len(kind) != sizes[form])):
        raise ValueError(
            f"Expected a kind among {list(_KINDS)}, ('bounded', a, b) and ('grid', step) for column {name!r}, got "
            f"{kind!r}; try 'continuous'."
        )
    if not is_number:
        raise DataError(f"Expected numbers in column {name!r} for {kind!r}, got {series.dtype}; try 'category'.")
    values = _as_numbers(series)
    sizes_ok = isinstance(kind, str) or all(isinstance(size, int | float | np.number) for size in kind[1:])
    ends = [float(size) for size in kind[1:]] if sizes_ok and not isinstance(kind, str) else []
    if not sizes_ok or (form == "grid" and ends[0] <= 0) or (form == "bounded" and ends[0] >= ends[1]):
        raise ValueError(
            f"Expected ('bounded', a, b) with a < b or ('grid', step) with a step above 0 for column {name!r}, got "
            f"{kind!r}; try 'auto'."
        )
    if form in ("integer", "grid"):
        return Field(name, _on_grid(values, ends[0] if form == "grid" else 1.0, name), why, dtype=native)
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
            f"{beyond[0]}; try other bounds."
        )
    return Field(name, Column("continuous", atoms=edge, edges=(low, high)), why, dtype=native)


def _on_grid(values: np.ndarray, step: float, name: str) -> Column:
    off = np.flatnonzero(np.isinf(whole_numbers(values, Column("whole", step=step))[1]))
    if off.size:
        raise DataError(
            f"Expected multiples of {step:g} in column {name!r}, got {values[off[0]]:g} in row {off[0]}; try "
            "'continuous'."
        )
    column = find_column(np.round(values / step), is_whole=True)
    atoms = tuple(atom * step for atom in column.atoms)
    return dataclasses.replace(column, step=step, atoms=atoms, lowest=column.lowest * step)

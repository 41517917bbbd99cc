"""Tables as people have them: categories, counts, dates and amounts in a frame, as numbers and back."""

import copy
import dataclasses
import decimal
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import narwhals as nw
import numpy as np
import pyarrow as pa

from .._errors import DataError, did_you_mean
from .._types import Rows
from ._dates import DATE, as_cells, as_numbers, holds_dates
from ._field import Field, field_of, holds_numbers, numbers_of, said_of
from ._frame import Column, are_densities

# Where so many of the rows have levels of their own, there is little to learn.
_MANY_LEVELS = 0.5
# Of what is wrong in many places, so many are named.
_MOST_NAMED = 10


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
    missing
        What missing cells are: ``"error"`` refuses them, ``"ignore"`` leaves them out, ``"model"`` takes them for
        values.

    Raises
    ------
    DataError
        Where cells are missing that should not, a column holds things of several kinds, or one that is said to be
        continuous has values that many rows share.
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

    # What becomes of levels that the fit has not seen, in words; None refuses them.
    unseen: str | None = "their log-probability is -inf"

    def __init__(self, X: Any, declared: Mapping[str, Any] | None = None, missing: str = "error"):
        frame, declared = _framed(X), {str(name): kind for name, kind in (declared or {}).items()}
        gaps = {name: gaps_of(frame.get_column(name)) for name in frame.columns}
        _check_cells(frame, gaps, missing != "error")
        if empty := [name for name, bad in gaps.items() if len(frame) and bad.all()]:
            raise DataError(
                f"Expected values in each column, got none in {', '.join(map(repr, empty[:_MOST_NAMED]))}; try leaving "
                "it out."
            )
        known = list(map(str, frame.columns))
        if repeated := next((name for name in known if known.count(name) > 1), None):
            raise DataError(f"Expected columns of different names, got {repeated!r} twice; try renaming one.")
        for name in declared:
            if name not in known:
                raise ValueError(
                    f"Expected kinds of columns of the table, got one of {name!r}{did_you_mean(name, known)}; try "
                    f"names among {known[:_MOST_NAMED]}."
                )
        # None is an array, whose columns have numbers for names.
        self.backend = None if isinstance(X, np.ndarray) else frame.implementation
        self.missing = missing
        found = [_found_field(frame.get_column(name), declared.get(str(name)), gaps[name]) for name in frame.columns]
        have_gaps = [missing == "model" and bool(gaps[name].any()) for name in frame.columns]
        self.fields = tuple(_with_gaps(field) if has else field for field, has in zip(found, have_gaps, strict=True))
        if self.backend is not None:
            _warn_of_levels(self.fields, len(frame))
        elif not declared and not self.is_mixed:
            # An array of floats is taken as it is: it may end at zero by chance.
            self.fields = tuple(
                dataclasses.replace(field, column=Column("continuous"), why="numbers") for field in self.fields
            )

    @staticmethod
    def of_floats(names: list | None, size: int) -> "Columns":
        """Return columns that are all continuous, of rows that are arrays."""
        names = [str(j) for j in range(size)] if names is None else names
        self = Columns.__new__(Columns)
        self.backend, self.fields = None, tuple(Field(name, Column("continuous"), "numbers") for name in names)
        self.missing = "error"
        return self

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the numbers of each column are, for `liouville.mixed.fit_mixed`."""
        return tuple(field.column for field in self.fields)

    @property
    def is_mixed(self) -> bool:
        """Return True where some column has masses: not all are continuous, without atoms."""
        return not are_densities(self.columns)

    @property
    def has_levels(self) -> bool:
        """Return True where cells are other things than numbers."""
        return any(field.writing or any(isinstance(v, str | bool) for v in field.levels) for field in self.fields)

    @property
    def texts(self) -> list[str]:
        """Names of the columns whose levels are text, which may look like numbers in a file."""
        return [str(field.name) for field in self.fields if any(isinstance(level, str) for level in field.levels)]

    def rows(self, X: Any, needed: Sequence[int] | None = None, gaps: bool | None = None) -> Rows:
        """Return a frame of these columns as numbers, of shape ``(n, columns)``.

        A level that was not there before is -1, which has no probability; a warning names the first. A missing cell is
        NaN, or the value that it is.

        Parameters
        ----------
        X
            The frame.
        needed
            Numbers of the columns that it must have, and that are read: others are missing cells. None is all, and an
            empty list those that are there.
        gaps
            Whether cells may be missing; None is as in the table that the columns were made by.
        """
        gaps = self.missing != "error" if gaps is None else gaps
        frame = _framed(X)
        names = [field.name for field in self.fields]
        if needed is not None and self.backend is not None and not isinstance(X, np.ndarray):
            kept = list(needed) or [j for j, name in enumerate(names) if name in frame.columns]
            if len(kept) < len(names):
                rows = np.full((len(frame), len(names)), np.nan)
                rows[:, kept] = self._some(kept).rows(X, gaps=gaps)
                return rows
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
        series = [frame.get_column(name) for name in names_in]
        _check_cells(frame, {name: gaps_of(one) for name, one in zip(names_in, series, strict=True)}, gaps)
        rows = np.stack([_numbers(*pair) for pair in zip(self.fields, series, strict=True)], axis=1)
        unknown = [
            f"{series[j].to_list()[row]!r} in row {row}, column {field.name!r}"
            for j, field in enumerate(self.fields)
            for row in np.flatnonzero(rows[:, j] == -1)[:1]
            if field.levels
        ]
        said = "; ".join(unknown)
        if unknown and self.unseen is None:
            raise DataError(f"Expected levels that the fit has seen, got {said}; try leaving these rows out.")
        if unknown:
            warnings.warn(
                f"Expected levels that the fit has seen, got {said}: {self.unseen}.", UserWarning, stacklevel=3
            )
        return rows

    def _some(self, places: Sequence[int]) -> "Columns":
        """Return some of the columns."""
        some = copy.copy(self)
        some.fields = tuple(self.fields[j] for j in places)
        return some

    def are_masses(self, rows: Rows) -> np.ndarray:
        """Return which rows, as numbers, have no density in any column: their log-probability is that of a mass."""
        found = np.ones(len(rows), bool)
        for column, values in zip(self.columns, rows.T, strict=True):
            if column.kind == "continuous":
                found &= column.on_atoms(values).any(-1) | np.isnan(values)
        return found

    def frame(self, rows: Rows) -> Any:
        """Return rows of numbers as a table of the kind, with the types and levels, of the one it was made by."""
        pairs = zip(self.fields, rows.T, strict=True)
        if self.backend is None:
            has_gaps = not _is_solved(rows) or any(column.gaps for column in self.columns)
            dtype = float if has_gaps else None
            return np.stack([np.asarray(_out_of(field, column), dtype) for field, column in pairs], axis=1)
        if self.backend.is_pandas_like():
            library = self.backend.to_native_namespace()
            return library.DataFrame({field.name: _of_pandas(library, field, column) for field, column in pairs})
        series = [_series(field, column, self.backend) for field, column in pairs]
        return nw.concat([s.to_frame() for s in series], how="horizontal").to_native()

    def arrow(self, rows: Rows) -> pa.Table:
        """Return rows of numbers as a table of Arrow's, to be written: with all that a file can keep."""
        pairs = zip(self.fields, rows.T, strict=True)
        return pa.table([_of_arrow(field, column) for field, column in pairs], [str(f.name) for f in self.fields])

    def to_facts(self) -> dict[str, Any]:
        """Return all that there is to know of the columns, in JSON's types."""
        fields = [{**dataclasses.asdict(field), "dtype": str(field.dtype)} for field in self.fields]
        backend = None if self.backend is None else self.backend.value
        return {"backend": backend, "missing": self.missing, "unseen": self.unseen, "fields": fields}

    @staticmethod
    def of_facts(facts: dict[str, Any]) -> "Columns":
        """Return the columns that facts describe."""
        self = Columns.__new__(Columns)
        self.backend = None if facts["backend"] is None else nw.Implementation.from_backend(facts["backend"])
        self.missing, self.unseen = facts.get("missing", "error"), facts.get("unseen", Columns.unseen)
        self.fields = tuple(_field_of(fact, self.backend) for fact in facts["fields"])
        return self

    def __repr__(self) -> str:
        """Return a line for each column: its name, what it is, and why."""
        width = max(len(str(field.name)) for field in self.fields)
        return "\n".join(f"{field.name!s:{width}}  {said_of(field)}" for field in self.fields)


def _found_field(series: nw.Series, declared: Any, gaps: np.ndarray) -> Field:
    """Return what a column is, by the cells that there are."""
    places = np.flatnonzero(~gaps)
    has_gaps = bool(gaps.any())
    return field_of(series.filter((~gaps).tolist()) if has_gaps else series, declared, places, has_gaps)


def _with_gaps(field: Field) -> Field:
    """Return a column in which a missing cell is a value: a level, or an atom."""
    column = dataclasses.replace(field.column, gaps=True, levels=field.column.levels + (field.column.kind == "code"))
    return dataclasses.replace(field, column=column, levels=(*field.levels, None) if field.levels else ())


def _numbers(field: Field, series: nw.Series) -> np.ndarray:
    """Return the cells of a column as numbers: NaN for one that is missing, or the level that it is."""
    gaps = gaps_of(series)
    if not gaps.any():
        return _known_numbers(field, series)
    is_level = field.levels and field.levels[-1] is None
    found = np.full(len(series), len(field.levels) - 1.0 if is_level else np.nan)
    if not gaps.all():
        found[~gaps] = _known_numbers(field, series.filter((~gaps).tolist()))
    return found


def _known_numbers(field: Field, series: nw.Series) -> np.ndarray:
    if field.unit:
        zone = getattr(series.dtype, "time_zone", None) or ""
        if bool(zone) != bool(field.zone):
            said = [f"zone {one}" if one else "no zone" for one in (field.zone, zone)]
            raise DataError(
                f"Expected times of {said[0]} in column {field.name!r}, got {said[1]}; try a table like the first."
            )
        if holds_dates(series) or series.dtype in (nw.String, nw.Object):
            return as_numbers(series, field.unit)
    elif field.levels:
        place = {level: i for i, level in enumerate(field.levels)}
        return np.array([place.get(cell, -1) for cell in series.to_list()], np.float64)
    elif holds_numbers(series) or series.dtype == nw.Boolean:
        return numbers_of(series)
    kind = "dates" if field.unit else "numbers"
    raise DataError(f"Expected {kind} in column {field.name!r}, got {series.dtype}; try a table like the first.")


def _series(field: Field, column: np.ndarray, backend: nw.Implementation) -> nw.Series:
    series = nw.new_series(field.name, _out_of(field, column), backend=cast(Any, backend))
    if field.zone:
        series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(field.zone)
    is_whole = _is_solved(column) or field.column.gaps
    is_as_it_was = series.dtype == field.dtype or not is_whole or _is_dictionary(field)
    return series if is_as_it_was else series.cast(field.dtype)


def _of_pandas(library: Any, field: Field, column: np.ndarray) -> Any:
    cells = _out_of(field, column)
    if field.categories is not None:
        categories, is_ordered = field.categories
        return library.Categorical(cells, categories=list(categories), ordered=is_ordered)
    series = library.Series(cells)
    if field.zone:
        series = series.dt.tz_localize("UTC").dt.tz_convert(field.zone)
    is_whole = _is_solved(column) or field.column.gaps
    return series.astype(field.dtype) if is_whole and not _is_dictionary(field) else series


def _is_dictionary(field: Field) -> bool:
    """Return True for an Arrow dictionary that no cast makes: its cells come back as they are."""
    is_of_numbers = field.dtype == nw.Categorical and not any(isinstance(level, str) for level in field.levels)
    return str(field.dtype).startswith("dictionary") or is_of_numbers


def _of_arrow(field: Field, column: np.ndarray) -> pa.Array:
    cells = _out_of(field, column)
    if field.unit and field.writing is None and field.unit != DATE:
        fine = field.unit if field.unit in ("ms", "us") else "s"
        return pa.array(cells, pa.timestamp(fine, field.zone or None))
    if "float32" in str(field.dtype).lower():
        cells = np.asarray(cells, np.float32)
    return pa.array(cells)


def _is_solved(column: np.ndarray) -> bool:
    """Return True where all numbers were drawn: one that was not is NaN, which not all types can be."""
    return bool(np.isfinite(column).all())


def _out_of(field: Field, column: np.ndarray) -> Any:
    """Return numbers as the cells that they stand for; None, or NaN of a number, for one that was not solved."""
    if not _is_solved(column) and (field.levels or field.unit or field.column.gaps):
        solved = np.isfinite(column)
        cells = iter(_out_of(field, column[solved]))
        return [next(cells) if is_there else None for is_there in solved]
    if field.levels:
        # A level that the fit has not seen has no name.
        return [field.levels[int(code)] if code >= 0 else None for code in column]
    if field.unit:
        return as_cells(column, field.unit, field.writing)
    step = field.column.step
    if field.column.kind == "whole" and step == 1 and np.all(column == np.round(column)):
        return np.round(column).astype(np.int64)
    # Of a grid as many decimals as its step is written with, so that 0.1 comes back as 0.1.
    decimals = max(0, -cast(int, decimal.Decimal(repr(step)).as_tuple().exponent))
    return np.round(column, decimals) if field.column.kind == "whole" else column


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


def _field_of(fact: dict[str, Any], backend: nw.Implementation | None) -> Field:
    fact = {name: as_tuple(value) for name, value in fact.items()}
    column = Column(**{name: as_tuple(value) for name, value in fact["column"].items()})
    categories, dtype = fact["categories"], fact["dtype"]
    if backend is not None and not backend.is_pandas_like():
        dtype = _dtype_of(dtype, categories)
    return Field(**{**fact, "column": column, "dtype": dtype})


def _dtype_of(said: str, categories: tuple[tuple, bool] | None) -> Any:
    """Return narwhals' type of a name, such as ``Datetime(time_unit='us', time_zone='UTC')``."""
    name = said.split("(")[0]
    if name == "Enum":
        return nw.Enum(list(cast(tuple, categories)[0]))
    if name == "Datetime":
        return nw.Datetime(**dict(re.findall(r"(time_unit|time_zone)='([^']+)'", said)))
    return getattr(nw, name)()


def as_tuple(value: Any) -> Any:
    """Return what was a tuple before it stood in a file as one, whatever is in it."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def gaps_of(series: nw.Series) -> np.ndarray:
    """Return which cells of a column are missing: None, NaN, NA and NaT."""
    gaps = np.asarray(series.is_null().to_numpy(), bool)
    return gaps | np.isnan(np.asarray(series.to_numpy(), np.float64)) if series.dtype.is_float() else gaps


def _check_cells(frame: nw.DataFrame, gaps: dict[Any, np.ndarray], may_be_missing: bool) -> None:
    """Raise where cells are infinite, or missing where they should not, naming the first of each column."""
    found = []
    for name, bad in gaps.items():
        series = frame.get_column(name)
        if series.dtype.is_float():
            infinite = np.isinf(np.asarray(series.to_numpy(), np.float64))
            bad = infinite if may_be_missing else infinite | bad
        elif may_be_missing:
            continue
        if bad.any():
            found.append(f"{bad.sum()} in column {name!r}, the first in row {int(bad.argmax())}")
    if found:
        more = f"; and {len(found) - _MOST_NAMED} more columns" if len(found) > _MOST_NAMED else ""
        listed = "; ".join(found[:_MOST_NAMED])
        what = "infinite" if may_be_missing else "missing or infinite"
        advice = "dropping these rows" if may_be_missing else "missing='ignore', or dropping these rows"
        raise DataError(f"Expected no {what} cells, got {listed}{more}; try {advice}.")

"""Tables from and to files: CSV, Parquet, NPY, NPZ."""

import contextlib
import csv
import os
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from .._errors import DataError
from .._files import replacing

SUFFIXES = (".csv", ".parquet", ".npy", ".npz")
MISSING = {"", "na", "n/a", "nan", "null", "#n/a"}


class Table(NamedTuple):
    """Numbers, and the names of the columns.

    Attributes
    ----------
    values
        The numbers, float64, of shape ``(n, d)``.
    columns
        A name for each column.
    """

    values: np.ndarray
    columns: list[str]

    def frame(self) -> pa.Table:
        """Return the table as a frame whose columns have names."""
        return pa.table({name: self.values[:, j] for j, name in enumerate(self.columns)})


def default_names(size: int) -> list[str]:
    """Return the names of columns that have none: x0, x1, and so on."""
    return [f"x{j}" for j in range(size)]


def column_names(estimator: Any) -> list[str]:
    """Return the names of a fitted density's columns, made up where its table had none."""
    names = getattr(estimator, "feature_names_in_", None)
    return default_names(estimator.n_features_in_) if names is None else [str(name) for name in names]


def as_fitted(estimator: Any, rows: np.ndarray) -> Any:
    """Return rows in the form that a density was fitted on: a frame where its columns have names."""
    return Table(rows, column_names(estimator)).frame() if hasattr(estimator, "feature_names_in_") else rows


def read_table(path: str | os.PathLike) -> Table:
    r"""Read a table of numbers from a file; booleans and integers become floats.

    Parameters
    ----------
    path
        A CSV file (a first line of numbers is no header: its columns are then called x0, x1, ...), a
        Parquet file, an NPY file, or an NPZ file with one array, or with one that is called ``X``.

    Returns
    -------
    Table
        Values, all finite, of shape ``(n, d)``, and the columns' names.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    DataError
        Where the file is no table of numbers, or one is missing or infinite; the message names file, row
        (counted from 0, without the header) and column.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "heights.csv"
    >>> _ = path.write_text("height,weight\n1.8,75\n1.6,60\n")
    >>> print(read_table(path).columns)
    ['height', 'weight']
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table, got no file at {path}; try another path.")
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npy": _read_npy, ".npz": _read_npz}
    return readers[_format(path)](path)


def write_table(path: str | os.PathLike | None, values: np.ndarray, columns: list[str]) -> None:
    """Write a table to a file, all or nothing, or as CSV to standard output.

    Parameters
    ----------
    path
        File whose suffix says the format, or None for standard output.
    values
        Numbers of shape ``(n, d)``; all digits of them are written.
    columns
        Names of the columns; NPY and NPZ files keep none.

    Raises
    ------
    DataError
        Where the suffix is of no known format.
    FileNotFoundError
        Where there is no folder for the file.
    """
    if path is None:
        _write(sys.stdout.buffer, ".csv", values, columns)
        sys.stdout.flush()
        return
    check_output(path)
    path = Path(path)
    with replacing(path) as file:
        _write(file, _format(path) if path.suffix else ".csv", values, columns)


def check_output(path: str | os.PathLike | None) -> None:
    """Raise what `write_table` would raise of a path, before the work is done that it is for."""
    if path is None or not Path(path).suffix:
        return
    _format(Path(path))
    if not Path(path).resolve().parent.is_dir():
        raise FileNotFoundError(f"Expected a folder for {path}, got none; try creating it first.")


def _format(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"Expected a file that ends in {', '.join(SUFFIXES)}, got {path}; try renaming or converting it."
        )
    return suffix


def _write(file: BinaryIO, suffix: str, values: np.ndarray, columns: list[str]) -> None:
    if suffix == ".npy":
        np.save(file, values, allow_pickle=False)
    elif suffix == ".npz":
        np.savez(file, allow_pickle=False, X=values)
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(Table(values, columns).frame(), file)
    else:
        # Where Arrow may quote, it quotes every name: it is let only where one of them needs it.
        special = any(mark in name for name in columns for mark in ',"\r\n')
        options = pyarrow.csv.WriteOptions(quoting_header="needed" if special else "none")
        pyarrow.csv.write_csv(Table(values, columns).frame(), file, options)


def _read_csv(path: Path) -> Table:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = next((cells for cells in csv.reader(file) if cells), [])
        names = None if _is_header(first) else default_names(len(first))
        table = pyarrow.csv.read_csv(path, pyarrow.csv.ReadOptions(column_names=names))
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        if isinstance(error, pa.ArrowException):
            _check_widths(path)
        raise _unreadable(path, error) from None
    return _from_arrow(table, path)


def _check_widths(path: Path) -> None:
    """Name the first row that is longer or shorter than the first line: Arrow, which reads in parallel, cannot."""
    with (
        contextlib.suppress(csv.Error, UnicodeDecodeError),
        open(path, encoding="utf-8-sig", newline="") as file,
    ):
        lines = (cells for cells in csv.reader(file) if cells)
        first = next(lines, [])
        for row, cells in enumerate(lines, start=0 if _is_header(first) else 1):
            if len(cells) != len(first):
                raise DataError(
                    f"Expected {len(first)} cells in every row of {path}, got {len(cells)} in row {row}; "
                    "try filling in or dropping the row."
                )


def _is_header(cells: list[str]) -> bool:
    """Return True where a first line holds names; a cell that is missing says nothing."""
    told = [_is_number(cell) for cell in cells if cell.strip().lower() not in MISSING]
    return not told or not all(told)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> Table:
    try:
        # One group of rows at a time, so that the file and its floats are never both in memory.
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = [file.read_row_group(index) for index in range(file.num_row_groups)]
            table = pa.concat_tables(groups) if groups else file.read()
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    return _from_arrow(table, path)


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return DataError(f"Expected a table in {path}, got a file that cannot be read ({reason}); try another.")


def _from_arrow(table: pa.Table, path: Path) -> Table:
    names = [name.strip() for name in table.column_names]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"Expected columns of different names in {path}, got {repeated[0]!r} twice; try renaming one.")
    if not table.num_rows or not names:
        raise DataError(f"Expected rows in {path}, got none; try another file.")
    values = np.empty((table.num_rows, len(names)))
    for j, (name, column) in enumerate(zip(names, table.columns, strict=True)):
        values[:, j] = _numbers(column, name, path)
    return Table(_finite(values, names, path), names)


def _numbers(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    kind = column.type
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"Expected numbers in {path}, got nothing in row {row}, column {name!r}; try filling it in.")
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        row, text = _first_text(column)
        separator = ";" in name or "\t" in name
        advice = "commas between the cells" if separator else "leaving the column out"
        raise DataError(f"Expected numbers in {path}, got {text!r} in row {row}, column {name!r}; try {advice}.")
    return column.to_numpy()


def _first_text(column: pa.ChunkedArray) -> tuple[int, str]:
    cells = [str(cell) for cell in column.to_pylist()]
    return next(((row, cell) for row, cell in enumerate(cells) if not _is_number(cell)), (0, cells[0]))


def _finite(values: np.ndarray, names: list[str], path: Path) -> np.ndarray:
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        found = "NaN" if np.isnan(values[row, column]) else "infinity"
        raise DataError(
            f"Expected finite numbers in {path}, got {found} in row {row}, column {names[column]!r}; "
            "try dropping or imputing the row."
        )
    return values


def _read_npy(path: Path) -> Table:
    try:
        return _from_array(np.load(path, allow_pickle=False), path)
    except (ValueError, EOFError, OSError) as error:
        raise error if isinstance(error, DataError) else _unreadable(path, error) from None


def _read_npz(path: Path) -> Table:
    try:
        with zipfile.ZipFile(path):
            pass  # np.load would take another kind of file for a pickle
        with np.load(path, allow_pickle=False) as arrays:
            names = arrays.files
            if len(names) != 1 and "X" not in names:
                raise DataError(f"Expected one array, or one called 'X', in {path}, got {names}; try saving X alone.")
            return _from_array(arrays[names[0] if len(names) == 1 else "X"], path)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise error if isinstance(error, DataError) else _unreadable(path, error) from None


def _from_array(array: np.ndarray, path: Path) -> Table:
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiub":
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"Expected a table of numbers (n, d) in {path}, got {found}; try X.reshape(-1, d).")
    if 0 in array.shape:
        raise DataError(f"Expected rows in {path}, got an array of shape {array.shape}; try another file.")
    names = default_names(array.shape[1])
    return Table(_finite(array.astype(np.float64), names, path), names)

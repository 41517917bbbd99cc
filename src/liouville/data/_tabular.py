"""Tables from and to files: CSV, Parquet, NPY, NPZ."""

import os
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from .._errors import DataError

SUFFIXES = (".csv", ".parquet", ".npy", ".npz")


class Table(NamedTuple):
    """Numbers of shape ``(n, d)`` and the names of the columns."""

    values: np.ndarray
    columns: list[str]

    def frame(self) -> pa.Table:
        """Return the table as a frame whose columns have names."""
        return pa.table({name: self.values[:, j] for j, name in enumerate(self.columns)})


def read_table(path: str | os.PathLike) -> Table:
    """Read a table of numbers from a file.

    Parameters
    ----------
    path
        A CSV file with or without a header, a Parquet, an NPY file, or an NPZ file with one array, or
        with one that is called ``X``.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    DataError
        Where the file is no table of numbers; the message names file, row and column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table, got no file at {path}; try another path.")
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npy": _read_numpy, ".npz": _read_numpy}
    if path.suffix.lower() not in readers:
        raise DataError(f"Expected a file that ends in {', '.join(SUFFIXES)}, got {path}; try renaming or converting it.")
    try:
        return readers[path.suffix.lower()](path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"Expected a table in {path}, got a file that cannot be read ({reason}); try another.") from None


def write_table(path: str | os.PathLike | None, values: np.ndarray, columns: list[str]) -> None:
    """Write a table to a file, all or nothing, or as CSV to standard output.

    Parameters
    ----------
    path
        File whose suffix says the format (CSV where it has no known one), or None for standard output.
    values
        Numbers of shape ``(n, d)``.
    columns
        Names of the columns; NPY keeps none.
    """
    if path is None:
        _write(sys.stdout.buffer, ".csv", values, columns)
        sys.stdout.flush()
        return
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _write(file, path.suffix.lower(), values, columns)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write(file: BinaryIO, suffix: str, values: np.ndarray, columns: list[str]) -> None:
    if suffix == ".npy":
        np.save(file, values)
    elif suffix == ".npz":
        np.savez(file, X=values)
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(Table(values, columns).frame(), file)
    else:
        options = pyarrow.csv.WriteOptions(quoting_style="needed", quoting_header="needed")
        pyarrow.csv.write_csv(Table(values, columns).frame(), file, options)


def _read_csv(path: Path) -> Table:
    with open(path, encoding="utf-8-sig") as file:
        first = file.readline().strip().split(",")
    if all(_is_number(cell) for cell in first):
        names = [f"x{j}" for j in range(len(first))]
        options = pyarrow.csv.ReadOptions(column_names=names)
    else:
        options = pyarrow.csv.ReadOptions()
    return _from_arrow(pyarrow.csv.read_csv(path, options), path)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> Table:
    return _from_arrow(pyarrow.parquet.read_table(path), path)


def _from_arrow(table: pa.Table, path: Path) -> Table:
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise DataError(f"Expected numbers in {path}, got nothing in row {row}, column {name!r}; try filling it in.")
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            row, text = _first_text(column)
            raise DataError(
                f"Expected numbers in {path}, got {text!r} in row {row}, column {name!r}; try leaving the column out."
            )
        columns.append(column.to_numpy().astype(np.float64))
    return Table(np.stack(columns, axis=1), list(table.column_names))


def _first_text(column: pa.ChunkedArray) -> tuple[int, str]:
    cells = [str(cell) for cell in column.to_pylist()]
    return next(((row, cell) for row, cell in enumerate(cells) if not _is_number(cell)), (0, cells[0]))


def _read_numpy(path: Path) -> Table:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            names = loaded.files
            if len(names) != 1 and "X" not in names:
                raise DataError(f"Expected one array, or one called 'X', in {path}, got {names}; try saving X alone.")
            loaded = loaded[names[0] if len(names) == 1 else "X"]
    except (ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Expected an array of numbers in {path}, got a file that cannot be read; try saving it anew.") from None
    if loaded.ndim != 2 or loaded.dtype.kind not in "fiub":
        raise DataError(
            f"Expected a table of numbers (n, d) in {path}, got {loaded.dtype} of shape {loaded.shape}; try X.reshape(-1, d)."
        )
    return Table(loaded.astype(np.float64), [f"x{j}" for j in range(loaded.shape[1])])

"""Tables from and to files: CSV, Parquet, NPY, NPZ."""

import contextlib
import csv
import io
import json
import os
import re
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from .._errors import DataError, did_you_mean
from .._files import check_writable, replacing
from ._csv import Source, default_names, nameless_at_head, open_csv, pc

SUFFIXES = (".csv", ".tsv", ".parquet", ".npy", ".npz")
PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
# What has no name says by its first bytes what it is; all else is CSV.
FIRST_BYTES = {
    b"PAR1": ".parquet",
    b"\x93NUMPY": ".npy",
    b"PK\x03\x04": ".npz",
    b"\x1f\x8b": ".csv.gz",
    b"BZh": ".csv.bz2",
    b"\x28\xb5\x2f\xfd": ".csv.zst",
}
# What to do about text, gaps and infinities: in Python, or on the command line.
ADVICE = (
    "leaving columns out by drop or --drop",
    "leaving rows out by drop_missing or --drop-missing",
    "dropping or imputing the row",
)
ROWS_ADVICE = ("another table", "filling in what is missing", "another row")
# Of what is wrong in many columns, so many are named.
MOST_NAMED = 10
LONGEST_SHOWN = 40


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


def column_names(estimator: Any) -> list[str]:
    """Return the names of a fitted density's columns, made up where its table had none."""
    names = getattr(estimator, "feature_names_in_", None)
    return default_names(estimator.n_features_in_) if names is None else [str(name) for name in names]


def as_fitted(estimator: Any, rows: np.ndarray) -> Any:
    """Return rows in the form that a density was fitted on: a frame where its columns have names."""
    return Table(rows, column_names(estimator)).frame() if hasattr(estimator, "feature_names_in_") else rows


def read_table(
    path: str | os.PathLike | BinaryIO,
    *,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    drop_missing: bool = False,
) -> Table:
    r"""Read a table of numbers from a file; booleans and integers become floats.

    The index of a pandas frame is no column: that of a Parquet file is left out, and so, with a warning, are columns
    without a name at the head of a CSV file. Comments at its head, lines that begin with ``#``, are passed over; names
    in the last of them, as `numpy.savetxt` writes them, are the columns'.

    Parameters
    ----------
    path
        A CSV file, with commas, semicolons (then decimals may have commas) or tabs; ``.tsv``; both packed or not
        (``.csv.gz``, ``.bz2``, ``.zst``); a Parquet, NPY, or NPZ file, the latter with one array or with one called
        ``X``; or a file that is open for reading bytes. A first line of numbers is no header, and a warning says so:
        the columns are then called x0, x1, ...; only 0, 1, 2, ..., as pandas writes them, are names.
    columns
        Names of the columns to read, in this order; all where left out. Others may hold what they like.
    drop
        Names of columns to leave out.
    drop_missing
        True leaves out rows with a missing value in a column that is read, with a warning that says how many.

    Returns
    -------
    Table
        Values, all finite, of shape ``(n, d)``, and the columns' names. In a CSV file of one column a blank line is
        a missing value; in one of several it is no row, nor are blank lines at a file's end.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    DataError
        Where the file is no table of numbers, or one is missing or infinite; the message names file, and for each
        column that is wrong the first row (counted from 0, without the header).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "heights.csv"
    >>> _ = path.write_text("height,weight,name\n1.8,75,Ann\n1.6,60,Bob\n")
    >>> print(read_table(path, drop=["name"]).columns)
    ['height', 'weight']
    """
    columns = [columns] if isinstance(columns, str) else columns
    source = _open(path, columns or ())
    with _said(source):
        places = _chosen(source, columns, [drop] if isinstance(drop, str) else drop)
        return _load(source, places, drop_missing, ADVICE)


def read_rows(
    path: str | os.PathLike | BinaryIO,
    names: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    drop_missing: bool = False,
) -> np.ndarray:
    """Read the columns of a model from a file, in the model's order, whatever else the file holds.

    Parameters
    ----------
    path
        As for `read_table`.
    names
        Names of the model's columns. They are found by name; where the file or the model has no names, by position.
    columns
        Names in the file of the model's columns, where they have others.
    drop_missing
        True leaves out rows with a missing value, with a warning that says how many.

    Returns
    -------
    ndarray
        Values, all finite, of shape ``(n, len(names))``.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    DataError
        Where the file has not these columns, or what they hold is missing or no number.
    """
    source = _open(path, columns or names)
    with _said(source):
        places = _chosen(source, columns, ()) if columns else _places_of(source, names)
        if len(places) != len(names):
            raise DataError(
                f"Expected the model's {len(names)} columns in {source.label}, got {len(places)} ("
                f"{_listed([source.columns[j] for j in places])}) and no names by which to choose; try --columns."
            )
        return _load(source, places, drop_missing, ROWS_ADVICE).values


def _places_of(source: Source, names: Sequence[str]) -> list[int]:
    """Return where a model's columns are in a file: by name, or without names on either side all."""
    missing = [name for name in names if name not in source.columns]
    if source.named and not missing:
        return _chosen(source, names, ())
    if source.named and list(names) != default_names(len(names)):
        raise DataError(
            f"Expected columns {_listed(names)} in {source.label}, got none called {missing[0]!r}"
            f"{did_you_mean(missing[0], source.columns)}; try renaming its columns, or --columns."
        )
    return _chosen(source, None, ())


@contextlib.contextmanager
def _said(source: Source) -> Iterator[None]:
    """Give a file's warnings when it has been read, or has been refused."""
    try:
        with _readable(source.label):
            yield
    finally:
        for note in source.notes:
            warnings.warn(note, stacklevel=4)


@contextlib.contextmanager
def _readable(label: str) -> Iterator[None]:
    """Turn what readers raise of a broken file into `DataError`."""
    broken = (pa.ArrowException, OSError, EOFError, ValueError, csv.Error, zipfile.BadZipFile, zlib.error)
    try:
        yield
    except DataError:
        raise
    except broken as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise DataError(
            f"Expected a table in {label}, got a file that cannot be read ({reason}); try another."
        ) from None


def _open(path: str | os.PathLike | BinaryIO, wanted: Sequence[str]) -> Source:
    """Look into a file: a regular one is read in parts, a pipe or an open one as a whole."""
    if isinstance(path, (str, os.PathLike)):
        path = Path(path)
        if not path.exists() or path.is_dir():
            raise FileNotFoundError(f"Expected a table, got no file at {path}; try another path.")
        if path.is_file():
            return _look(path, str(path), *_format(path), wanted)
        label, content = str(path), path.read_bytes()
    else:
        label, content = str(getattr(path, "name", "the stream")), path.read()
    name = next((name for start, name in FIRST_BYTES.items() if content.startswith(start)), ".csv")
    return _look(io.BytesIO(content), label, *_format(Path(f"table{name}")), wanted)


def _look(file: Path | io.BytesIO, label: str, suffix: str, codec: str | None, wanted: Sequence[str]) -> Source:
    with _readable(label):
        if suffix == ".parquet":
            return _open_parquet(file, label)
        if suffix in (".npy", ".npz"):
            return _open_array((_read_npy if suffix == ".npy" else _read_npz)(file, label), label)
        if codec is not None:
            content = pa.py_buffer(pa.input_stream(file, compression=codec).read())
        else:
            # What is mapped need not be in memory beside the numbers.
            content = pa.memory_map(str(file)).read_buffer() if isinstance(file, Path) else pa.py_buffer(file.read())
        return open_csv(content, label, "\t" if suffix == ".tsv" else None, wanted)


def _chosen(source: Source, columns: Sequence[str] | None, drop: Sequence[str]) -> list[int]:
    """Return the places of the columns to read."""
    names = source.columns
    unknown = [name for name in [*(columns or ()), *drop] if name not in names]
    if unknown:
        raise DataError(
            f"Expected columns among {_listed(names)} in {source.label}, got {unknown[0]!r}"
            f"{did_you_mean(unknown[0], names)}; try one of them."
        )
    if columns is None:
        places = [j for j in range(len(names)) if j not in source.frame_index and names[j] not in drop]
        _check_named(source, places, drop)
    else:
        places = [names.index(name) for name in columns if name not in drop]
    chosen = [names[j] for j in places]
    repeated = [name for name in chosen if names.count(name) > 1 or chosen.count(name) > 1]
    if repeated:
        raise DataError(
            f"Expected columns of different names in {source.label}, got {repeated[0]!r} twice; try renaming one."
        )
    if not places:
        raise DataError(f"Expected columns in {source.label}, got none beside those left out; try naming some.")
    return places


def _check_named(source: Source, places: list[int], drop: Sequence[str]) -> None:
    nameless = [j for j in places if not source.columns[j]]
    if nameless:
        raise DataError(
            f"Expected a name for every column of {source.label}, got none for column {nameless[0]}; try naming it, or "
            "columns or --columns to choose others."
        )
    head = [j for j in source.frame_index if j in nameless_at_head(source.columns) and source.columns[j] not in drop]
    if head:
        source.notes.append(
            f"left out column{'s' * (len(head) > 1)} {', '.join(map(str, head))} of {source.label}, without a name, as "
            "the index of a data frame; try naming what is none"
        )


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(map(repr, names[:MOST_NAMED]))
    return listed if len(names) <= MOST_NAMED else f"{listed} and {len(names) - MOST_NAMED} more"


def _load(source: Source, places: list[int], drop_missing: bool, advice: tuple[str, str, str]) -> Table:
    """Read columns; name what is wrong in all of them at once."""
    names, columns = [source.columns[j] for j in places], source.load(places)
    if not len(columns[0]):
        raise DataError(f"Expected rows in {source.label}, got none; try another file.")
    values = np.empty((len(columns[0]), len(names)))
    odd = [_fill(values[:, j], column) for j, column in enumerate(columns)]
    missing = np.isnan(values)
    # A column of text is refused as such, not for its gaps.
    missing[:, [found is not None for found in odd]] = False
    kept = np.ones(len(values), bool)
    if drop_missing:
        kept &= ~missing.any(axis=1)
    gaps, infinite = missing & kept[:, None], np.isinf(values) & kept[:, None]
    found = [_fault(name, odd[j], gaps[:, j], infinite[:, j]) for j, name in enumerate(names)]
    if any(found):
        kinds = (any(odd), gaps.any(), infinite.any())
        advised = [what for what, is_there in zip(advice, kinds, strict=True) if is_there]
        raise _refusal(source, [fault for fault in found if fault], advised)
    if not kept.any():
        emptiest = names[missing.sum(axis=0).argmax()]
        raise DataError(
            f"Expected rows without a missing value in {source.label}, got none of {len(kept)}; try leaving out column "
            f"{emptiest!r}."
        )
    if not kept.all():
        source.notes.append(f"left out {(~kept).sum()} of {len(kept)} rows of {source.label}, with a missing value")
        values = values[kept]
    return Table(values, names)


def _fill(into: np.ndarray, column: pa.ChunkedArray) -> str | None:
    """Fill in the numbers of a column, NaN where one is missing; return the first cell that is none, and its row."""
    kind, test = column.type, pa.types
    numbers = test.is_integer(kind) or test.is_floating(kind) or test.is_decimal(kind) or test.is_boolean(kind)
    if numbers or column.null_count == len(column):
        into[:] = column.cast(pa.float64(), safe=False).to_numpy() if numbers else np.nan
        return None
    into[:] = np.nan
    row = pc.index(column.is_valid(), True).as_py()
    cell = column[row].as_py()
    text = repr(cell) if isinstance(cell, (str, bytes)) else f"{re.sub('[^a-z].*', '', str(kind))} {cell}"
    return f"{text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + '...'} in row {row}"


def _fault(name: str, odd: str | None, gaps: np.ndarray, infinite: np.ndarray) -> str | None:
    if odd is not None:
        return f"{odd}, column {name!r}"
    if infinite.any():
        return f"infinity in row {infinite.argmax()}, column {name!r}"
    if gaps.any():
        return f"nothing in row {gaps.argmax()}, column {name!r} ({gaps.sum()} of {len(gaps)} rows)"
    return None


def _refusal(source: Source, faults: list[str], advice: list[str]) -> DataError:
    listed = "; ".join(faults[:MOST_NAMED])
    if len(faults) > MOST_NAMED:
        listed += f"; and {len(faults) - MOST_NAMED} more columns"
    only = source.columns[0] if len(source.columns) == 1 else ""
    tried = "commas between the cells" if any(mark in only for mark in " |:") else " and ".join(advice)
    return DataError(f"Expected numbers in {source.label}, got {listed}; try {tried}.")


def _open_parquet(file: Path | io.BytesIO, label: str) -> Source:
    with pyarrow.parquet.ParquetFile(file) as opened:
        schema = opened.schema_arrow
    described = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    # A range is kept as numbers, not as a column.
    index = [name for name in described.get("index_columns", []) if isinstance(name, str)]
    names = [name.strip() for name in schema.names]
    places = [j for j, name in enumerate(schema.names) if name in index]

    def load(chosen: list[int]) -> list[pa.ChunkedArray]:
        wanted = [schema.names[j] for j in chosen]
        with _readable(label), pyarrow.parquet.ParquetFile(file) as opened:
            # One group of rows at a time, so that the file and its floats are never both in memory.
            groups = [opened.read_row_group(number, wanted) for number in range(opened.num_row_groups)]
            table = pa.concat_tables(groups) if groups else opened.read(wanted)
        # A point in a name is a path to Parquet, which then may read more.
        return [table.column(name) for name in wanted]

    return Source(label, names, sorted({*places, *nameless_at_head(names)}), load, [])


def _open_array(array: np.ndarray, label: str) -> Source:
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiub":
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"Expected a table of numbers (n, d) in {label}, got {found}; try X.reshape(-1, d).")
    if 0 in array.shape:
        raise DataError(f"Expected rows in {label}, got an array of shape {array.shape}; try another file.")

    def load(chosen: list[int]) -> list[pa.ChunkedArray]:
        return [pa.chunked_array([pa.array(array[:, j].astype(np.float64))]) for j in chosen]

    return Source(label, default_names(array.shape[1]), [], load, [], named=False)


def _read_npy(file: Path | io.BytesIO, label: str) -> np.ndarray:
    return np.load(file, allow_pickle=False)


def _read_npz(file: Path | io.BytesIO, label: str) -> np.ndarray:
    with zipfile.ZipFile(file):
        pass  # np.load would take another kind of file for a pickle
    with np.load(file, allow_pickle=False) as arrays:
        names = arrays.files
        if len(names) != 1 and "X" not in names:
            raise DataError(f"Expected one array, or one called 'X', in {label}, got {names}; try saving X alone.")
        return arrays[names[0] if len(names) == 1 else "X"]


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
    OSError
        Where the file cannot be written.
    """
    if path is None:
        _write(sys.stdout.buffer, (".csv", None), values, columns)
        sys.stdout.flush()
        return
    check_output(path)
    path = Path(path)
    with replacing(path) as file:
        _write(file, _format(path) if path.suffix else (".csv", None), values, columns)


def check_output(path: str | os.PathLike | None) -> None:
    """Raise what `write_table` would raise of a path, before the work is done that it is for."""
    if path is None:
        return
    if Path(path).suffix:
        _format(Path(path))
    check_writable(path)


def _format(path: Path) -> tuple[str, str | None]:
    """Return the suffix of a table, and by what it is packed."""
    codec = PACKED.get(path.suffix.lower())
    suffix = Path(path.stem if codec else path.name).suffix.lower()
    if suffix not in (SUFFIXES if codec is None else SUFFIXES[:2]):
        raise DataError(
            f"Expected a file that ends in {', '.join(SUFFIXES)} (.csv and .tsv also with {', '.join(PACKED)}), got "
            f"{path}; try renaming or converting it."
        )
    return suffix, codec


def _write(file: BinaryIO, form: tuple[str, str | None], values: np.ndarray, columns: list[str]) -> None:
    suffix, codec = form
    if suffix == ".npy":
        np.save(file, values, allow_pickle=False)
    elif suffix == ".npz":
        np.savez(file, allow_pickle=False, X=values)
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(Table(values, columns).frame(), file)
    else:
        mark = "\t" if suffix == ".tsv" else ","
        # Where Arrow may quote, it quotes every name: it is let only where one of them needs it.
        special = any(sign in name for name in columns for sign in f'{mark}"\r\n')
        options = pyarrow.csv.WriteOptions(delimiter=mark, quoting_header="needed" if special else "none")
        if codec is None:
            pyarrow.csv.write_csv(Table(values, columns).frame(), file, options)
            return
        # Arrow closes what it packs into.
        packed = pa.BufferOutputStream()
        with pa.CompressedOutputStream(packed, codec) as stream:
            pyarrow.csv.write_csv(Table(values, columns).frame(), stream, options)
        file.write(packed.getvalue())

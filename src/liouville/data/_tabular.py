"""Tables from and to files: CSV, Parquet, NPY, NPZ."""

import contextlib
import csv
import io
import json
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from .._errors import DataError, did_you_mean
from .._gaps import unmatched
from ._csv import SAMPLE_ROWS, Source, default_names, nameless_at_head, open_csv, pc
from ._table import MOST_NAMED, Table, column_names, format_of, holds_numbers, listed

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
    "texts, --column name=category, drop or --drop for columns of text",
    "keeping gaps by gaps=True or --missing, leaving rows out by drop_missing or --drop-missing",
    "dropping or imputing the row",
)
ROWS_ADVICE = ("another table", "filling in what is missing", "another row")
LONGEST_SHOWN = 40


def read_table(
    path: str | os.PathLike | BinaryIO,
    *,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    drop_missing: bool = False,
    texts: Collection[str] = (),
    gaps: bool = False,
) -> Table:
    r"""Read a table from a file: numbers, text, dates, yes and no.

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
    texts
        Names of columns that hold text, though some of it, or all, may look like numbers.
    gaps
        True keeps missing values.

    Returns
    -------
    Table
        The columns, without infinities, and without missing values but with `gaps`. In a CSV file of one column a
        blank line is a missing value; in one of several it is no row, nor are blank lines at a file's end.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    DataError
        Where the file is no table, a cell is missing or infinite, or there is text among numbers; the message names
        file, and for each column that is wrong the first row (counted from 0, without the header).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "heights.csv"
    >>> _ = path.write_text("height,weight,name\n1.8,75,Ann\n1.6,60,Bob\n")
    >>> print(read_table(path, drop=["name"]).values.tolist())
    [[1.8, 75.0], [1.6, 60.0]]
    """
    columns = [columns] if isinstance(columns, str) else columns
    source = _open(path, columns or ())
    with _said(source):
        places = _chosen(source, columns, [drop] if isinstance(drop, str) else drop)
        of_text = [place for place in places if source.columns[place] in texts]
        return _load(source, places, of_text, drop_missing, ADVICE, gaps)


def read_rows_of(
    estimator: Any,
    path: str | os.PathLike | BinaryIO,
    *,
    columns: Sequence[str] | None = None,
    drop_missing: bool = False,
    names: Sequence[str] | None = None,
    some: bool = False,
) -> Any:
    """Read rows of a file as a fitted estimator takes them: a frame, or where its table had no names an array.

    Parameters
    ----------
    estimator
        What is fitted to a table.
    path, columns, drop_missing
        As of `read_rows`.
    names
        Names of those of its columns that are read; None is all.
    some
        True reads those of the columns that the file has, whatever gaps they have.
    """
    known = estimator.columns_
    chosen: dict[str, Any] = {"columns": columns, "drop_missing": drop_missing, "texts": known.texts}
    gaps = some or known.missing != "error"
    table = read_rows(path, names or column_names(estimator), **chosen, gaps=gaps, some=some)
    return table.frame() if hasattr(estimator, "feature_names_in_") else table.values


def read_rows_and_targets_of(estimator: Any, path: str | os.PathLike | BinaryIO) -> tuple[Any, Any]:
    """Read rows and targets of a file, as a fitted density of targets given rows takes them: two frames.

    Parameters
    ----------
    estimator
        What is fitted to a table whose columns have names.
    path
        As of `read_rows`.
    """
    rows, targets = estimator.columns_, estimator.target_columns_
    names = column_names(estimator), [str(field.name) for field in targets.fields]
    texts = [*rows.texts, *targets.texts]
    table = read_rows(path, [*names[0], *names[1]], texts=texts, gaps=rows.missing != "error").frame()
    return table.select(names[0]), table.select(names[1])


def read_rows(
    path: str | os.PathLike | BinaryIO,
    names: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    drop_missing: bool = False,
    texts: Collection[str] = (),
    gaps: bool = False,
    some: bool = False,
) -> Table:
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
    texts
        Those of the names whose columns hold text, though it may look like numbers.
    gaps
        True keeps missing values.
    some
        True reads those of the columns that the file has, at least one, where it names its columns.

    Returns
    -------
    Table
        The columns under the model's names, without infinities, and without missing values but with `gaps`.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    DataError
        Where the file has not these columns, or some of what they hold is missing.
    """
    source = _open(path, columns or names)
    if some and source.named and columns is None:
        absent, others = unmatched(names, source.columns)
        if absent and others:
            source.notes.append(
                f"found no column {listed(absent)} in {source.label}, which has {listed(others)} too; try renaming one"
            )
        names = [name for name in names if name in source.columns] or names
    with _said(source):
        places = _chosen(source, columns, ()) if columns else _places_of(source, names)
        if len(places) != len(names):
            raise DataError(
                f"Expected the model's {len(names)} columns in {source.label}, got {len(places)} ("
                f"{listed([source.columns[j] for j in places])}) and no names by which to choose; try --columns."
            )
        of_text = [place for place, name in zip(places, names, strict=True) if name in texts]
        table = _load(source, places, of_text, drop_missing, ROWS_ADVICE, gaps)
        return Table(table.frame().rename_columns(list(names)))


def _places_of(source: Source, names: Sequence[str]) -> list[int]:
    """Return where a model's columns are in a file: by name, or without names on either side all."""
    missing = [name for name in names if name not in source.columns]
    if source.named and not missing:
        return _chosen(source, names, ())
    if source.named and list(names) != default_names(len(names)):
        raise DataError(
            f"Expected columns {listed(names)} in {source.label}, got none called {missing[0]!r}"
            f"{did_you_mean(missing[0], source.columns)}; try renaming its columns, or, where there is one, --columns."
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
            return _look(path, str(path), *format_of(path), wanted)
        label, content = str(path), path.read_bytes()
    else:
        label, content = str(getattr(path, "name", "the stream")), path.read()
    name = next((name for start, name in FIRST_BYTES.items() if content.startswith(start)), ".csv")
    return _look(io.BytesIO(content), label, *format_of(Path(f"table{name}")), wanted)


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
            f"Expected columns among {listed(names)} in {source.label}, got {unknown[0]!r}"
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


def _load(
    source: Source,
    places: list[int],
    texts: Collection[int],
    drop_missing: bool,
    advice: tuple[str, str, str],
    may_be_missing: bool,
) -> Table:
    """Read columns; name what is wrong in all of them at once."""
    names = [source.columns[j] for j in places]
    columns, among = source.load(places, texts)
    columns = [_as_floats(column) for column in columns]
    rows = len(columns[0])
    if not rows:
        raise DataError(f"Expected rows in {source.label}, got none; try another file.")
    odd = [_odd_cell(column, among.get(j)) for j, column in zip(places, columns, strict=True)]
    # A column of text among numbers is refused as such, not for its gaps.
    missing = [np.zeros(rows, bool) if said else _gaps(column) for said, column in zip(odd, columns, strict=True)]
    kept = ~np.any(missing, axis=0) if drop_missing else np.ones(rows, bool)
    gaps = [gap & kept & (not may_be_missing) for gap in missing]
    infinite = [_infinite(column) & kept for column in columns]
    found = [_fault(*faults) for faults in zip(names, odd, gaps, infinite, strict=True)]
    if any(found):
        kinds = (any(odd), np.any(gaps), np.any(infinite))
        advised = [what for what, is_there in zip(advice, kinds, strict=True) if is_there]
        raise _refusal(source, [fault for fault in found if fault], advised)
    _check_separated(names, columns, source.label)
    frame = pa.table(dict(zip(names, columns, strict=True)))
    if not kept.any():
        emptiest = names[int(np.argmax([gap.sum() for gap in missing]))]
        raise DataError(
            f"Expected rows without a missing value in {source.label}, got none of {rows}; try leaving out column "
            f"{emptiest!r}."
        )
    if not kept.all():
        source.notes.append(f"left out {(~kept).sum()} of {rows} rows of {source.label}, with a missing value")
        frame = frame.filter(pa.array(kept))
    return Table(frame)


def _holds_levels(kind: pa.DataType) -> bool:
    """Return True for text, categories and dates."""
    test = pa.types
    kind = kind.value_type if test.is_dictionary(kind) else kind
    return any(is_kind(kind) for is_kind in (test.is_string, test.is_large_string, test.is_date, test.is_timestamp))


def _as_floats(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return decimals as floats, and other cells as they are."""
    return column.cast(pa.float64(), safe=False) if pa.types.is_decimal(column.type) else column


def _gaps(column: pa.ChunkedArray) -> np.ndarray:
    return pc.is_null(column, nan_is_null=pa.types.is_floating(column.type)).to_numpy()


def _infinite(column: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_floating(column.type):
        return np.zeros(len(column), bool)
    return np.isinf(column.to_numpy())


def _odd_cell(column: pa.ChunkedArray, row: int | None) -> str | None:
    """Return a cell of text among numbers, or the first that is none of a table, and its row; else None."""
    kind = column.type
    if not (holds_numbers(kind) or _holds_levels(kind) or column.null_count == len(column)):
        row = pc.index(column.is_valid(), True).as_py()
    if row is None:
        return None
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
    return DataError(f"Expected a table in {source.label}, got {listed}; try {' and '.join(advice)}.")


def _check_separated(names: list[str], columns: list[pa.ChunkedArray], label: str) -> None:
    """Raise where one column of text is several of numbers, with a mark between them that separates none here."""
    if len(names) > 1 or not pa.types.is_string(columns[0].type):
        return
    cells = [cell for cell in columns[0][:SAMPLE_ROWS].to_pylist() if cell is not None]
    for mark in " |:":
        width, parts = len(names[0].split(mark)), [cell.split(mark) for cell in cells]
        numbers = [part for row in parts for part in row if re.fullmatch(r"[-+]?\d+([.,]\d+)?", part.strip())]
        if width > 1 and all(len(row) == width for row in parts) and 2 * len(numbers) > width * len(parts):
            raise DataError(
                f"Expected a table in {label}, got {cells[0]!r} in one column; try commas between the cells."
            )


def _open_parquet(file: Path | io.BytesIO, label: str) -> Source:
    with pyarrow.parquet.ParquetFile(file) as opened:
        schema = opened.schema_arrow
    described = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    # A range is kept as numbers, not as a column.
    index = [name for name in described.get("index_columns", []) if isinstance(name, str)]
    names = [name.strip() for name in schema.names]
    places = [j for j, name in enumerate(schema.names) if name in index]

    def load(chosen: list[int], _: Collection[int]) -> tuple[list[pa.ChunkedArray], dict[int, int]]:
        wanted = [schema.names[j] for j in chosen]
        with _readable(label), pyarrow.parquet.ParquetFile(file) as opened:
            # One group of rows at a time, so that the file and its floats are never both in memory.
            groups = [opened.read_row_group(number, wanted) for number in range(opened.num_row_groups)]
            table = pa.concat_tables(groups) if groups else opened.read(wanted)
        # A point in a name is a path to Parquet, which then may read more.
        return [table.column(name) for name in wanted], {}

    return Source(label, names, sorted({*places, *nameless_at_head(names)}), load, [])


def _open_array(array: np.ndarray, label: str) -> Source:
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiub":
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"Expected a table of numbers (n, d) in {label}, got {found}; try X.reshape(-1, d).")
    if 0 in array.shape:
        raise DataError(f"Expected rows in {label}, got an array of shape {array.shape}; try another file.")

    def load(chosen: list[int], _: Collection[int]) -> tuple[list[pa.ChunkedArray], dict[int, int]]:
        return [pa.chunked_array([pa.array(array[:, j])]) for j in chosen], {}

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

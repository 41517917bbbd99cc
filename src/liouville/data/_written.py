"""Tables to files, all or nothing."""

import os
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from .._errors import DataError
from .._files import check_writable, replacing
from ._csv import pc
from ._table import Table, format_of, holds_numbers, listed


def write_table(path: str | os.PathLike | None, table: Any) -> None:
    """Write a table to a file, all or nothing, or as CSV to standard output.

    Parameters
    ----------
    path
        File whose suffix says the format, or None for standard output.
    table
        Columns by name, or a data frame: what `pyarrow.table` takes. All digits of numbers are written.

    Raises
    ------
    DataError
        Where the suffix is of no known format, or of one that keeps numbers alone while there are other cells.
    OSError
        Where the file cannot be written.
    """
    table = pa.table(table)
    if path is None:
        _write(sys.stdout.buffer, (".csv", None), table)
        sys.stdout.flush()
        return
    check_output(path, table.schema)
    path = Path(path)
    with replacing(path) as file:
        _write(file, _form(path), table)


def check_output(path: str | os.PathLike | None, schema: pa.Schema | None = None) -> None:
    """Raise what `write_table` would raise of a path, and of columns, before the work is done that it is for."""
    if path is None:
        return
    suffix, _ = _form(Path(path))
    others = [field.name for field in schema or () if not holds_numbers(field.type)]
    if others and suffix in (".npy", ".npz"):
        raise DataError(
            f"Expected numbers alone for {path}, got other cells in columns {listed(others)}; try .csv or .parquet."
        )
    check_writable(path)


def _form(path: Path) -> tuple[str, str | None]:
    return format_of(path) if path.suffix else (".csv", None)


def _write(file: BinaryIO, form: tuple[str, str | None], table: pa.Table) -> None:
    suffix, codec = form
    if suffix == ".npy":
        np.save(file, Table(table).values, allow_pickle=False)
    elif suffix == ".npz":
        np.savez(file, allow_pickle=False, X=Table(table).values)
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(table, file)
    elif codec is None:
        _write_csv(file, table, "\t" if suffix == ".tsv" else ",")
    else:
        # Arrow closes what it packs into.
        packed = pa.BufferOutputStream()
        with pa.CompressedOutputStream(packed, codec) as stream:
            _write_csv(stream, table, "\t" if suffix == ".tsv" else ",")
        file.write(packed.getvalue())


def _write_csv(file: Any, table: pa.Table, mark: str) -> None:
    # Where Arrow may quote, it quotes every name, and every text: it is let only where one of them needs it.
    special = rf'[{mark}"\r\n]'
    texts = [c for c in table.columns if pa.types.is_string(c.type) or pa.types.is_large_string(c.type)]
    needs = {
        "quoting_header": any(re.search(special, name) for name in table.column_names),
        "quoting_style": any(pc.any(pc.match_substring_regex(text, special)).as_py() for text in texts),
    }
    options = {name: "needed" if is_needed else "none" for name, is_needed in needs.items()}
    pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(delimiter=mark, **options))

"""A table that is, or will be, in a file: its columns, and by which name a file says its format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .._errors import DataError
from ._csv import default_names

SUFFIXES = (".csv", ".tsv", ".parquet", ".npy", ".npz")
PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
# Of what is wrong in many columns, so many are named.
MOST_NAMED = 10


class Table:
    """What a file holds: columns with names, of numbers, text, dates, or yes and no.

    Parameters
    ----------
    frame
        The columns, as Arrow has them.
    """

    def __init__(self, frame: pa.Table):
        self._frame = frame

    def frame(self) -> pa.Table:
        """Return the columns as a frame, for an estimator to fit; it can be one of pandas (``.to_pandas()``)."""
        return self._frame

    @property
    def columns(self) -> list[str]:
        """A name for each column."""
        return self._frame.column_names

    @property
    def values(self) -> np.ndarray:
        """The numbers, float64, of shape ``(n, d)``; yes is 1 and no is 0.

        Raises
        ------
        DataError
            Where a column holds other things.
        """
        others = [field.name for field in self._frame.schema if not holds_numbers(field.type)]
        if others:
            raise DataError(f"Expected numbers alone, got other cells in columns {listed(others)}; try frame().")
        columns = [column.cast(pa.float64(), safe=False).to_numpy() for column in self._frame.columns]
        return np.stack(columns, axis=1)


def column_names(estimator: Any) -> list[str]:
    """Return the names of a fitted density's columns, made up where its table had none."""
    names = getattr(estimator, "feature_names_in_", None)
    return default_names(estimator.n_features_in_) if names is None else [str(name) for name in names]


def holds_numbers(kind: pa.DataType) -> bool:
    test = pa.types
    return test.is_integer(kind) or test.is_floating(kind) or test.is_boolean(kind) or test.is_null(kind)


def listed(names: Sequence[str]) -> str:
    listed = ", ".join(map(repr, names[:MOST_NAMED]))
    return listed if len(names) <= MOST_NAMED else f"{listed} and {len(names) - MOST_NAMED} more"


def format_of(path: Path) -> tuple[str, str | None]:
    """Return the suffix of a table, and by what it is packed."""
    codec = PACKED.get(path.suffix.lower())
    suffix = Path(path.stem if codec else path.name).suffix.lower()
    if suffix not in (SUFFIXES if codec is None else SUFFIXES[:2]):
        raise DataError(
            f"Expected a file that ends in {', '.join(SUFFIXES)} (.csv and .tsv also with {', '.join(PACKED)}), got "
            f"{path}; try renaming or converting it."
        )
    return suffix, codec

"""Dates, and text that is dates, as whole numbers of their unit, and back."""

import datetime
import re

import narwhals as nw
import numpy as np
import pyarrow as pa

from .._errors import DataError

# Units of dates, in microseconds, the largest first.
_UNITS = {"day": 86_400e6, "h": 3600e6, "min": 60e6, "s": 1e6, "ms": 1e3, "us": 1.0}
# Of cells that are days, and no times of theirs.
DATE = "date"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC).replace(tzinfo=None)
# As ISO 8601 has them: a day, or a day and a time.
_DAY = r"(?!0000)\d{4}-\d\d-\d\d"
_TIME = rf"{_DAY}[T ]\d\d:\d\d(:\d\d(\.\d{{1,6}})?)?"


def holds_dates(series: nw.Series) -> bool:
    """Return True for a column of dates, with times or without."""
    return series.dtype == nw.Date or isinstance(series.dtype, nw.Datetime)


def writing_of(series: nw.Series) -> tuple[str, str] | None:
    """Return how text that is dates is written, or None of another column.

    Returns
    -------
    tuple
        What stands between days and times, and how fine these are (`datetime.datetime.isoformat`); both empty for days
        alone.
    """
    # A long column of other text is told by its first cell.
    if series.dtype not in (nw.String, nw.Object) or not len(series) or not _is_written(series[0], _DAY, _TIME):
        return None
    cells = series.to_list()
    if all(_is_written(cell, _DAY) for cell in cells):
        writing = ("", "")
    elif all(_is_written(cell, _TIME) for cell in cells) and len({cell[10] for cell in cells}) == 1:
        sizes = {len(cell) for cell in cells}
        fineness = {16: "minutes", 19: "seconds"}.get(sizes.pop(), "auto") if len(sizes) == 1 else "auto"
        writing = (cells[0][10], fineness)
    else:
        return None
    try:
        _micros_of(cells)
    except pa.ArrowInvalid:  # the 31st of a month of 30 days
        return None
    return writing


def _is_written(cell: object, *forms: str) -> bool:
    return isinstance(cell, str) and any(re.fullmatch(form, cell) for form in forms)


def unit_of(series: nw.Series, writing: tuple[str, str] | None) -> str:
    """Return the largest unit of which all dates are whole numbers."""
    if series.dtype == nw.Date or writing == ("", ""):
        return DATE
    micros = as_numbers(series, "us").astype(np.int64)
    return next(unit for unit in _UNITS if (micros % _micros_in(unit) == 0).all())


def as_numbers(series: nw.Series, unit: str) -> np.ndarray:
    """Return dates, or text that is dates, as numbers of a unit since 1970.

    Raises
    ------
    DataError
        Where a cell of text is no date.
    """
    if series.dtype == nw.Date:
        days = np.array([(cell - _EPOCH.date()).days for cell in series.to_list()], np.float64)
        return days * (_UNITS["day"] / _micros_in(unit))
    if holds_dates(series):
        return np.asarray(series.dt.timestamp("us").to_numpy(), np.float64) / _micros_in(unit)
    cells = series.to_list()
    odd = next((row for row, cell in enumerate(cells) if not _is_written(cell, _DAY, _TIME)), None)
    try:
        if odd is None:
            return _micros_of(cells).astype(np.float64) / _micros_in(unit)
        said = f"{cells[odd]!r} in row {odd}"
    except pa.ArrowInvalid as error:
        said = str(error)
    raise DataError(f"Expected dates in column {series.name!r}, got {said}; try writing them like 2020-01-31.")


def ends_of(unit: str, dtype: object) -> tuple[float, float]:
    """Return the first and the last number of a unit that the calendar has, or pandas' type of nanoseconds."""
    first, last = datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 31)
    if "[ns" in str(dtype):
        first, last = datetime.datetime(1677, 9, 22), datetime.datetime(2262, 4, 11)
    micros = [(end - _EPOCH) // datetime.timedelta(microseconds=1) / _micros_in(unit) for end in (first, last)]
    return float(np.ceil(micros[0])), float(np.floor(micros[1]))


def as_cells(numbers: np.ndarray, unit: str, writing: tuple[str, str] | None) -> list:
    """Return numbers of a unit as dates, as times without a zone, or, as `writing_of` says it, as text of these."""
    micros = _micros_in(unit)
    times = [_EPOCH + datetime.timedelta(microseconds=int(n) * micros) for n in numbers]
    if writing is None:
        return [time.date() for time in times] if unit == DATE else times
    return [time.isoformat(*writing) if writing[0] else time.date().isoformat() for time in times]


def days_of(numbers: np.ndarray, unit: str) -> np.ndarray:
    """Return numbers of a unit as days, which need not be whole."""
    return numbers * (_micros_in(unit) / _UNITS["day"])


def _micros_in(unit: str) -> int:
    return int(_UNITS["day" if unit == DATE else unit])


def _micros_of(cells: list[str]) -> np.ndarray:
    return pa.array(cells).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()

"""What kind of numbers the columns of a table hold, by the numbers themselves."""

import dataclasses
import math
from collections.abc import Collection, Mapping

import numpy as np

from .._types import Rows
from ._frame import Column

# A value is an atom where more rows have it than this share, and this number.
_ATOM_SHARE, _ATOM_ROWS = 0.01, 20
# Its neighbourhood is as dense where one of so many values on either side has a share of its rows as large as this.
_NEIGHBOURS, _AS_DENSE = 2, 0.2
# Numbers that lie on a decimal grid are whole numbers of it where more rows than this share have one of them.
_GRID_SHARE, _MOST_DECIMALS = 0.01, 6
# The last bits of one number may differ, so that it is there this many times.
_MOST_WRITINGS = 4
# Beyond so many steps they are counted from their middle.
_FAR_FROM_ZERO = 2.0**16
_FIRST_FEW = 1000
# Numbers that are not there have narrower cells where these would be narrower than this, and so few are there.
_NARROW, _MOST_SEEN = 0.2, 2000


def find_columns(rows: Rows, codes: Mapping[int, int] | None = None, whole: Collection[int] = ()) -> tuple[Column, ...]:
    """Return what the columns of a table are.

    A value that many rows have, while few have those next to it, is an atom: it has a mass. What is left are whole
    numbers where it lies on a decimal grid and many rows share a value of it still; else it is continuous. Numbers that
    are never negative stay so.

    Parameters
    ----------
    rows
        The table.
    codes
        Numbers of the columns that are codes, with how many levels each has.
    whole
        Numbers of the columns that are whole numbers, however few rows share a value.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> amount = rng.lognormal(size=1000) * (rng.random(1000) < 0.7)
    >>> rows = np.stack([amount, rng.poisson(4, 1000), rng.normal(size=1000)], axis=1)
    >>> [(column.kind, column.atoms, column.step) for column in find_columns(rows)]
    [('continuous', (0.0,), 1.0), ('whole', (), 1.0), ('continuous', (), 1.0)]
    """
    codes = codes or {}
    return tuple(
        Column("code", codes[j]) if j in codes else find_column(np.asarray(column, np.float64), j in whole)
        for j, column in enumerate(rows.T)
    )


def find_column(values: np.ndarray, is_whole: bool = False) -> Column:
    """Return what one column of numbers is."""
    written = 0 if is_whole else _decimals(values)
    # The same number may come with another last bit.
    found, counts = np.unique(values if written is None else np.round(values, written), return_counts=True)
    is_atom, lowest = _atoms(counts), 0.0 if found[0] >= 0 else -math.inf
    # One value that is left is one more.
    is_atom |= np.count_nonzero(~is_atom) == 1 and is_atom.any()
    of_left = counts[~is_atom]
    decimals = 0 if is_whole else _decimals(found[~is_atom])
    is_grid = decimals is not None and (not of_left.size or of_left.max() > _GRID_SHARE * of_left.sum())
    if is_whole or is_grid:
        step = 10.0 ** -(decimals or 0)
        nearest = np.min(np.abs(found))
        # Beside numbers near zero, JAX's floats have digits enough.
        is_far = np.max(np.abs(found)) / step > _FAR_FROM_ZERO and nearest >= np.ptp(found)
        origin = float(np.round(np.mean(found) / step)) if is_far else 0.0
        column = Column("whole", atoms=tuple(map(float, found[is_atom])), step=step, lowest=lowest, origin=origin)
        numbers = column.counted(np.round(found[~is_atom] / step))
        width = _unseen_width(numbers, of_left)
        return dataclasses.replace(column, seen=tuple(map(float, numbers)), unseen=width) if width < 1 else column
    # Where many rows are at the end of all, as at a cap, there is nothing beyond.
    low = float(found[0]) if is_atom[0] else lowest
    high = float(found[-1]) if is_atom[-1] else math.inf
    # A density that ends at zero has none there: rows that are there are at an atom, however few.
    is_atom |= found == lowest
    return Column("continuous", atoms=tuple(map(float, found[is_atom])), edges=(low, high))


def _unseen_width(numbers: np.ndarray, counts: np.ndarray) -> float:
    """Return how wide the cells of numbers between those that are there should be, beside theirs.

    As wide as gives them, at the density of their neighbours, the mass of what has not been seen: it is that of what
    has been seen once (Good, The population frequencies of species, 1953, equation 9).
    """
    if not 1 < len(numbers) <= _MOST_SEEN:
        return 1.0
    gaps, beside = np.diff(numbers) - 1, (counts[1:] + counts[:-1]) / 2
    if not gaps.any():
        return 1.0
    total = counts.sum()
    odds = (np.count_nonzero(counts == 1) + 0.5) / (total - np.count_nonzero(counts == 1) + 0.5)
    width = float(odds * total / (gaps * beside).sum())
    return width if width < _NARROW else 1.0


def _atoms(counts: np.ndarray) -> np.ndarray:
    """Return which of the distinct values, in their order, are atoms, by how many rows have each."""
    padded = np.pad(counts, _NEIGHBOURS)
    shifts = [k for k in range(-_NEIGHBOURS, _NEIGHBOURS + 1) if k]
    nearby = np.max([np.roll(padded, k)[_NEIGHBOURS:-_NEIGHBOURS] for k in shifts], axis=0)
    return (counts > max(_ATOM_SHARE * counts.sum(), _ATOM_ROWS)) & (nearby < _AS_DENSE * counts)


def _decimals(values: np.ndarray) -> int | None:
    """Return with how many decimals all values are written, or None where they are more than a few."""
    if len(values) > 2 * _FIRST_FEW and _decimals(values[:_FIRST_FEW]) is None:
        # What the first few do not lie on is no grid of all: a long table is hardly looked at.
        return None
    for decimals in range(_MOST_DECIMALS + 1):
        scaled = values * 10.0**decimals
        # A share of the number, so that what is tiny is no zero, and a number of half the digits is what it says.
        error = np.abs(scaled - np.round(scaled))
        # What is so large has no decimals left to speak of.
        if np.all(error <= np.minimum(1e-6 * np.abs(scaled), 1e-3)) and np.all(np.abs(scaled) < 1e9):
            # Numbers that vary closely around a round one do not lie on it.
            is_told = len(np.unique(values)) <= _MOST_WRITINGS * len(np.unique(np.round(scaled)))
            return decimals if is_told else None
    return None

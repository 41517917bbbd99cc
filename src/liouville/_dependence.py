"""Columns that others fix: their density, given those, has no limit."""

from collections.abc import Callable

import numpy as np

from ._types import Rows
from .mixed import Column

# Columns that are fixed on so few rows may be so by chance.
_FEWEST_ROWS = 20
# So many rows tell which columns are worth looking at as a whole.
_FEW_ROWS = 500
# Of a column's range, what counts as rounding.
_ROUNDING = 1e-9
_COLLINEAR = 1e-13


def fixed_columns(rows: Rows, columns: tuple[Column, ...]) -> dict[int, tuple[int, ...]]:
    """Return the continuous columns that are a function of others, each with those that fix it.

    A function of one other column: the same, or near enough, wherever that one is, or rising or falling with it
    throughout. Or of several: a linear combination of them, or a product of powers of positive ones.

    Parameters
    ----------
    rows
        The table, as numbers.
    columns
        What its columns are. Rows on atoms of a continuous column say nothing of it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> wage, age = rng.lognormal(size=100), rng.normal(size=100)
    >>> fixed_columns(np.stack([wage, age, np.log(wage)], axis=1), (Column("continuous"),) * 3)
    {2: (0,)}
    """
    found: dict[int, tuple[int, ...]] = {}
    for j, column in enumerate(columns):
        if column.kind != "continuous":
            continue
        known = rows[~column.on_atoms(rows[:, j]).any(-1)] if column.is_switched else rows
        few = known[:: 1 + len(known) // _FEW_ROWS]
        others = [k for k in range(len(columns)) if k != j and found.get(k) != (j,)]
        # What fixes it from behind would be named twice: a pair names its later column.
        others = [k for k in others if k < j or columns[k].kind != "continuous"]
        for k in others:
            if _is_fixed_by(few[:, j], few[:, k]) and _is_fixed_by(known[:, j], known[:, k]):
                found[j] = (k,)
                break
    return found | _combined(rows, columns, found)


def _is_fixed_by(values: np.ndarray, by: np.ndarray) -> bool:
    """Return True where values rise with others or fall with them throughout, or are the same where those are."""
    is_there = ~(np.isnan(values) | np.isnan(by))
    values, by = values[is_there], by[is_there]
    if len(values) < _FEWEST_ROWS:
        return False
    order = np.lexsort((values, by))
    values, by = values[order], by[order]
    tolerance = _ROUNDING * np.ptp(values)
    steps, is_new = np.diff(values), np.diff(by) > 0
    if not is_new.any() or (np.abs(steps[~is_new]) > tolerance).any():
        return False
    # Where others hardly repeat, any column is a function of them: then it must be a simple one.
    is_monotone = (steps >= -tolerance).all() or (steps <= tolerance).all()
    return bool(is_monotone or is_new.sum() < len(values) / 2)


def _combined(rows: Rows, columns: tuple[Column, ...], known: dict[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Return continuous columns that are combinations of other numbers, of themselves or of their logarithms."""
    numbers = [j for j, column in enumerate(columns) if column.kind != "code" and j not in known]
    is_off = np.all([~columns[j].on_atoms(rows[:, j]).any(-1) for j in numbers if columns[j].is_switched], axis=0)
    is_off = is_off & ~np.isnan(rows[:, numbers]).any(axis=1)
    known_rows, found = rows if np.all(is_off) else rows[is_off], {}
    while True:
        numbers = [j for j in numbers if j not in found]
        positive = [j for j in numbers if len(known_rows) and known_rows[:, j].min() > 0]
        both = (_involved(known_rows, numbers, np.asarray), _involved(known_rows, positive, np.log))
        involved = next((found for found in both if any(columns[j].kind == "continuous" for j in found)), None)
        if involved is None:
            return found
        fixed = [j for j in involved if columns[j].kind == "continuous"][-1]
        found[fixed] = tuple(j for j in involved if j != fixed)


def _involved(rows: Rows, chosen: list[int], scale: Callable) -> list[int]:
    """Return those of the chosen columns that are a combination of each other on a scale."""
    few = rows[:: 1 + len(rows) // (_FEW_ROWS * max(1, len(chosen)))]
    for some in (few, rows):
        chosen = [j for j in chosen if len(some) and np.ptp(some[:, j]) > 0]
        if len(chosen) < 2 or len(some) < max(_FEWEST_ROWS, 2 * len(chosen)):
            return []
        places = collinear(scale(some[:, chosen]), np.ones(len(some)))
        if not places.size:
            return []
    return [chosen[i] for i in places]


def collinear(X: Rows, weight: np.ndarray) -> np.ndarray:
    """Return the columns that are a combination of each other, none where no columns are."""
    z = X - np.average(X, axis=0, weights=weight)
    z = z / np.max(np.abs(z), axis=0)
    z = z / np.sqrt(np.average(z**2, axis=0, weights=weight))
    values, vectors = np.linalg.eigh((z * weight[:, None]).T @ z / weight.sum())
    if values[0] >= _COLLINEAR * X.shape[1]:
        return np.empty(0, int)
    return np.flatnonzero(np.abs(vectors[:, 0]) > 0.1 * np.abs(vectors[:, 0]).max())

"""Checks at the public boundary: tables in, float arrays out, and errors that name row and column."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
from sklearn.utils.validation import _check_sample_weight, validate_data

from ._dependence import collinear, fixed_columns
from ._errors import DataError
from ._gaps import check_some, is_gap, unmasked, with_nan
from ._types import Rows
from .mixed import Columns

# Of what is wrong in many places, so many are named.
MOST_NAMED = 10
MOST_SHOWN = 60
# A cell is far out where it is so many times as far from the median as the next one: beside it, the others are nearly
# one point to a flow. The outermost of a Cauchy variable's rows is so once in a thousand tables, and so once in a
# hundred that a warning is due.
FAR, DOUBTFUL = 1e3, 1e2
# So many rows say how far from the median the rows are.
FEW_ROWS = 10_000
# Weights beyond these cannot be added up.
LEAST_WEIGHT, MOST_WEIGHT = 1e-290, 1e290


class Fault(NamedTuple):
    """Cells of a column that are no finite numbers: what the first is, where it is, and how many there are."""

    what: str
    row: int
    column: str
    cells: int
    kind: type[Exception] = DataError

    def __str__(self) -> str:
        """Return the fault in words."""
        more = f" ({self.cells} such cells)" if self.cells > 1 else ""
        return f"{self.what} in row {self.row}, column {self.column}{more}"


def check_frame(X, estimator, *, reset: bool, gaps: bool = False) -> Rows:
    """Return a table as floats; check its columns against those of the fit, or take note of them."""
    X = unmasked(X)
    _check_numbers(X, gaps=gaps)
    rows: Any = validate_data(
        estimator,
        X,
        reset=reset,
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,
        ensure_min_samples=2 if reset else 1,
    )
    _check_finite(rows, getattr(estimator, "feature_names_in_", None), gaps)
    return rows


def check_table(X, estimator, declared: Any, missing: str = "error") -> tuple[Rows, Columns]:
    """Return a table as numbers, NaN for missing cells that may be, and what its columns are."""
    gaps = missing != "error"
    X = with_nan(unmasked(X)) if gaps else unmasked(X)
    if categorical := categorical_columns(X):
        _check_numbers(X, categorical, gaps)
        _check_rows(X)
        table = Columns(X, declared, missing)
        rows = table.rows(X)
        estimator.n_features_in_ = rows.shape[1]
        estimator.feature_names_in_ = np.array([field.name for field in table.fields], dtype=object)
        return rows, table
    rows = check_frame(X, estimator, reset=True, gaps=gaps)
    X = _table_of(X, rows)
    table = Columns(X, declared, missing)
    return table.rows(X) if table.is_mixed else rows, table


def check_rows(X, estimator, needed: Sequence[int] | None = None) -> Rows:
    """Return a table as numbers, by the columns of the fit.

    Parameters
    ----------
    X
        The table.
    estimator
        What is fitted.
    needed
        Numbers of the columns that are used: others may be absent, and may have gaps. None is all, which have gaps
        where those of the fit might.
    """
    table = estimator.columns_
    gaps = needed is not None or table.missing != "error"
    X = with_nan(unmasked(X)) if gaps else unmasked(X)
    if not table.is_mixed and (needed is None or table.backend is None):
        return check_frame(X, estimator, reset=False, gaps=gaps)
    check_names(X)
    is_absent = needed is not None and table.backend is not None
    if is_absent or table.has_levels or categorical_columns(X):
        X = _table_of(X, None)
        if table.backend is not None:
            names = [field.name for field in table.fields]
            if needed is not None and not needed:
                check_some(X, names)
            X = _chosen(X, [names[j] for j in needed] if needed else names)
        _check_numbers(X, categorical_columns(X), gaps)
        return table.rows(X, needed, gaps)
    return table.rows(_table_of(X, check_frame(X, estimator, reset=False, gaps=gaps)), needed, gaps)


def check_present(rows: Rows, table: Columns, columns: Sequence[int]) -> None:
    """Raise where cells of some columns are missing that may not be, by what the fit was told."""
    may_be = [table.missing == "ignore" or column.gaps for column in table.columns]
    gaps = {j: np.flatnonzero(np.isnan(rows[:, j])) for j in columns if not may_be[j]}
    found = [
        Fault("a missing value (NaN)", int(where[0]), repr(table.fields[j].name), len(where))
        for j, where in gaps.items()
        if where.size
    ]
    if found and table.missing == "model":
        raise DataError(
            f"Expected gaps in columns that had some in the fit alone, got {'; '.join(map(str, found[:MOST_NAMED]))}: "
            "of others their probability is not known; try leaving these rows out."
        )
    _raise(found)


def _chosen(X: Any, names: list) -> Any:
    """Return those columns of a frame that have these names, whatever others it has."""
    frame = nw.from_native(X, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        return X
    kept = [name for name in frame.columns if name in names]
    # Of pandas a name may be a number.
    return X[kept] if frame.implementation.is_pandas_like() else frame.select(kept).to_native()


def _check_rows(X: Any) -> None:
    rows = len(nw.from_native(X, eager_only=True))
    if rows < 2:
        raise DataError(f"Expected two rows or more, got {rows}; try more rows.")


def has_flow(estimator: Any) -> bool:
    """Return True, or raise ``AttributeError`` where rows are no images of points of a base, naming the columns."""
    table = getattr(estimator, "columns_", None)
    if table is not None and table.missing == "ignore":
        raise AttributeError(
            "Expected a fit of rows without gaps, got missing='ignore': rows with gaps are no images of points of a "
            "base; try missing='error' with conditionals=True, score_samples or sample."
        )
    others = [] if table is None else [field.name for field in table.fields if not field.column.is_density]
    if others:
        raise AttributeError(
            f"Expected continuous columns alone, got others ({', '.join(map(repr, others[:10]))}): their rows are no "
            "images of points of a base; try score_samples or sample."
        )
    return True


def _table_of(X: Any, rows: Rows | None) -> Any:
    """Return a frame as it is, and what else is a table as an array of its own whole numbers, or of `rows`."""
    if isinstance(nw.from_native(X, pass_through=True), nw.DataFrame):
        return X
    X = np.asarray(X)
    if X.ndim != 2:
        raise DataError(f"Expected a table, got an array of shape {X.shape}; try X.reshape(-1, columns).")
    return X if rows is None or X.dtype.kind in "biu" else rows


def categorical_columns(X: Any) -> list[str]:
    """Return the names of a frame's columns that hold levels or dates: text, categories, yes and no."""
    try:
        frame = nw.from_native(X, pass_through=True)
    except nw.exceptions.DuplicateError:
        return []
    if not isinstance(frame, nw.DataFrame):
        return []
    kinds = (nw.String, nw.Categorical, nw.Enum, nw.Boolean, nw.Date, nw.Datetime)
    of_text = lambda name: all(
        isinstance(cell, str | bool) or is_gap(cell) for cell in frame.get_column(name).to_list()
    )
    return [n for n, dtype in frame.schema.items() if isinstance(dtype, kinds) or (dtype == nw.Object and of_text(n))]


def check_names(X: Any) -> None:
    """Raise where a frame has two columns of one name."""
    try:
        nw.from_native(X, pass_through=True)
    except nw.exceptions.DuplicateError:
        names = list(getattr(X, "column_names", None) or X.columns)
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(f"Expected columns of different names, got {repeated!r} twice; try renaming one.") from None


def _check_numbers(X, categorical: list[str] | None = None, gaps: bool = False) -> None:
    """Raise where a table holds other things than numbers, but for categorical columns and gaps that may be there.

    scikit-learn would find all this, too: but its messages do not say where, or show the whole table.
    """
    if isinstance(X, list | tuple):
        X = _array_of(X)
    if isinstance(X, np.ndarray):
        _check_array(X, gaps)
        return
    check_names(X)
    frame = nw.from_native(X, pass_through=True)
    schema = frame.schema if isinstance(frame, nw.DataFrame) else {}
    if isinstance(frame, nw.LazyFrame):
        raise DataError(f"Expected a table in memory, got a lazy {type(X).__name__}; try X.collect().")
    found, numbers = [], []
    for name, dtype in schema.items():
        if name in (categorical or []):
            missing = np.flatnonzero([is_gap(cell) for cell in frame.get_column(name).to_list()])
            is_fault = missing.size and not gaps
            found += [Fault("a missing value (NaN)", int(missing[0]), repr(name), len(missing))] if is_fault else []
        elif dtype.is_numeric() or dtype == nw.Boolean:
            numbers.append(name)
        else:
            cells = enumerate(frame.get_column(name).to_list())
            found += _faults_of_cells(cells, repr(name), parse=dtype == nw.Object, gaps=gaps)
    if found or categorical:
        # Gaps elsewhere are said in the same breath.
        for name in numbers:
            found += _faults_of_numbers(np.asarray(frame.get_column(name).to_numpy(), float), repr(name), gaps)
        _raise(found)


def _array_of(rows: Sequence) -> np.ndarray:
    """Return rows in lists as an array, of things as they are where some are text."""
    sizes = [len(row) if isinstance(row, list | tuple | np.ndarray) and np.ndim(row) else 0 for row in rows]
    other = next((i for i, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        raise DataError(
            f"Expected rows of one length, got {sizes[0]} cells in row 0 and {sizes[other]} in row {other}; try an "
            "array, or a data frame."
        )
    found = np.asarray(rows)
    return np.asarray(rows, object) if found.dtype.kind in "US" else found


def _check_array(X: np.ndarray, gaps: bool) -> None:
    if X.ndim == 1:
        raise DataError(
            f"Expected a 2D array, got one of shape {X.shape}. Reshape your data: try X.reshape(-1, 1) for one "
            "column, X.reshape(1, -1) for one row."
        )
    kind = X.dtype.kind
    if kind == "c":
        raise DataError(f"Complex data not supported: expected real numbers, got {X.dtype}; try X.real.")
    if X.ndim == 2 and kind in "OUT":
        columns = [enumerate(column.tolist()) for column in X.T]
        of_column = lambda j: _faults_of_cells(columns[j], str(j), parse=True, gaps=gaps)
        _raise([fault for j in range(len(columns)) for fault in of_column(j)])
    if kind in "USTMm":
        raise DataError(f"Expected numbers, got an array of {X.dtype}; try X.astype(float).")


def _faults_of_cells(cells: Iterable[tuple[int, Any]], column: str, parse: bool, gaps: bool) -> list[Fault]:
    """Return what is wrong with a column of things: what is no number, nor, to be parsed, a number's text, and gaps."""
    missing, others, kind = [], [], DataError
    for row, cell in cells:
        error = _error_of(cell, parse)
        if is_gap(cell):
            missing.append(row)
        elif error is not None:
            # A thing that no float can be made of is a TypeError to scikit-learn.
            is_thing = isinstance(error, TypeError)
            others.append((row, _short(cell) + (f" ({error})" if is_thing else "")))
            kind = TypeError if is_thing else kind
    found = [Fault("a missing value (NaN)", missing[0], column, len(missing))] if missing and not gaps else []
    return found + ([Fault(others[0][1], others[0][0], column, len(others), kind)] if others else [])


def _short(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _error_of(cell: Any, parse: bool) -> Exception | None:
    if not parse:
        return ValueError()
    if np.ndim(cell) != 0:
        return TypeError(f"float() argument must be a string or a real number, not {type(cell).__name__!r}")
    try:
        float(cell)
    except (ValueError, TypeError) as error:
        return error
    return None


def _faults_of_numbers(column: np.ndarray, name: str, gaps: bool) -> list[Fault]:
    """Return where a column has gaps that may not be there, and where it is infinite."""
    missing, infinite = np.isnan(column), np.isinf(column)
    found = []
    for what, bad in (("NaN", missing & (not gaps)), ("infinity", infinite)):
        rows = np.flatnonzero(bad)
        if rows.size:
            found.append(Fault(what, int(rows[0]), name, len(rows)))
    return found


def _raise(faults: list[Fault]) -> None:
    """Raise an error that names all faults, where there are any."""
    if not faults:
        return
    more = f"; and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else ""
    kind = next((fault.kind for fault in faults if fault.kind is not DataError), DataError)
    raise kind(
        f"Expected finite numbers, got {'; '.join(map(str, faults[:MOST_NAMED]))}{more}; try leaving out or encoding "
        "what is no number, and dropping rows with gaps, or, of a density of tables, missing='ignore'."
    )


def warn_of_target(y: Any) -> None:
    """Warn of numbers that are given as a target, which a density ignores: they may be meant as weights."""
    try:
        kind = np.asarray(y).dtype.kind
    except ValueError:  # lists of unlike lengths
        return
    if kind not in "fiub":
        return
    warnings.warn(
        "Expected no target for a density, got numbers as y, which are ignored; try "
        "fit(X, sample_weight=...) for weights of rows.",
        UserWarning,
        stacklevel=4,
    )


def check_points(Z, columns: int) -> Rows:
    """Return points of the base as floats."""
    Z = np.asarray(unmasked(Z), dtype=float)
    if Z.ndim != 2 or Z.shape[1] != columns:
        raise DataError(f"Expected points of shape (n, {columns}), got {Z.shape}; try Z.reshape(-1, {columns}).")
    _check_finite(Z, None)
    return Z


def check_weight(sample_weight, X: Rows) -> np.ndarray:
    """Return the weights of the rows, ones where there are none."""
    sample_weight = unmasked(sample_weight)
    given = np.asarray(1.0 if sample_weight is None else sample_weight)
    if given.ndim == 1 and given.dtype.kind in "fi":
        bad = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
        if bad.size:
            # scikit-learn's own words first: it is known by them.
            known = "Negative values in data passed to `sample_weight`: e" if np.isfinite(given[bad[0]]) else "E"
            raise DataError(
                f"{known}xpected weights of at least 0, got {given[bad[0]]:g} in row {bad[0]}; "
                "try a weight of 0 for rows to leave out."
            )
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    largest = float(weight.max())
    if largest <= 0:
        raise DataError("Expected a positive sum of weights, got 0; try leaving sample_weight out.")
    return weight if LEAST_WEIGHT < largest < MOST_WEIGHT else weight / largest


def check_varied(X: Rows, weight: np.ndarray, names, table: Columns) -> None:
    """Raise `DataError` where a table has no density: too few rows, far cells, constant or collinear columns.

    Of a table of several kinds of columns, those that are continuous throughout; of an array all of them must vary.
    """
    empty = [] if table.missing == "error" else np.flatnonzero(np.isnan(X[weight > 0]).all(axis=0))
    if len(empty):
        listed = ", ".join(repr(table.fields[j].name) for j in empty[:MOST_NAMED])
        raise DataError(f"Expected values in rows of positive weight in each column, got none in {listed}; try others.")
    if table.is_mixed:
        if table.backend is None:
            _check_constant(X[weight > 0], weight[weight > 0], names)
        chosen = [j for j, c in enumerate(table.columns) if c.is_density]
        if not chosen:
            return
        X, names = X[:, chosen], None if names is None else np.asarray(names)[chosen]
    kept = weight > 0
    X, weight = (X, weight) if kept.all() else (X[kept], weight[kept])
    rows, columns = X.shape
    if rows <= columns:
        counted = "samples" if kept.all() else "samples of positive weight"
        raise DataError(
            f"Expected more rows than columns, got {rows} {counted} of {columns} columns; try fewer columns, "
            "for example by principal components."
        )
    name = lambda j: f"{j}" if names is None else f"{j} ({names[j]!r})"
    _check_constant(X, weight, names)
    _check_scale(X, np.flatnonzero(kept), name)
    # Columns of a frame may be fixed by others: `warn_of_fixed` names them.
    complete = ~np.isnan(X).any(axis=1)
    is_told = table.backend is None and complete.sum() > columns
    full, of_full = (X, weight) if complete.all() else (X[complete], weight[complete])
    involved = collinear(full, of_full) if is_told else np.empty(0, int)
    if involved.size:
        listed = ", ".join(name(j) for j in involved[:8])
        raise DataError(
            f"Expected columns that are no combination of each other, got collinear columns {listed}; try leaving one "
            "of them out: together they have no density."
        )


def warn_of_fixed(rows: Rows, weight: np.ndarray, table: Columns) -> None:
    """Warn of continuous columns that others fix."""
    said = []
    kept = weight > 0
    for column, others in fixed_columns(rows if kept.all() else rows[kept], table.columns).items():
        name, *by = (repr(table.fields[j].name) for j in (column, *others))
        said.append(f"{name}, which {' and '.join(by)} fix{'es' if len(by) == 1 else ''}")
    if said:
        warnings.warn(
            f"Expected columns that vary on their own, got {'; '.join(said)}: the density there has no limit, so that "
            "a log-probability says little; try leaving it out.",
            UserWarning,
            stacklevel=4,
        )


def _check_constant(X: Rows, weight: np.ndarray, names) -> None:
    if np.isnan(X).any():
        known = [~np.isnan(column) for column in X.T]
        loc = np.array([np.average(c[of], weights=weight[of]) for c, of in zip(X.T, known, strict=True)])
    else:
        loc = np.average(X, axis=0, weights=weight)
    spread = np.nanmax(np.abs(X - loc), axis=0)
    flat = np.flatnonzero(spread <= 8 * np.finfo(X.dtype).eps * np.abs(loc))
    if flat.size:
        listed = ", ".join(f"{j}" if names is None else f"{j} ({names[j]!r})" for j in flat[:MOST_NAMED])
        raise DataError(
            f"Expected columns that vary, got a constant column {listed}; try leaving it out: it has no density."
        )


def _check_scale(X: Rows, numbers: np.ndarray, name) -> None:
    """Raise `DataError` where cells are so far out that the rest of their columns hardly varies beside them."""
    # What is far is doubtful, too: a table of one scale is looked through once.
    doubtful = _far_rows(X, DOUBTFUL)
    far = _far_rows(X, FAR) if doubtful else {}
    if far:
        raise DataError(
            f"Expected rows of one scale, got {_listed_far(X, far, numbers, name)}; try leaving out what stands for no "
            "number, or a scale on which the column is even, such as its logarithm."
        )
    if doubtful:
        warnings.warn(
            f"Expected rows of one scale, got {_listed_far(X, doubtful, numbers, name)}; try leaving out what stands "
            "for no number: a flow learns the rest less well beside it.",
            UserWarning,
            stacklevel=5,
        )


def _far_rows(X: Rows, least: float) -> dict[int, list[int]]:
    """Return for each row with far cells the columns that they are in."""
    far: dict[int, list[int]] = {}
    for j, column in enumerate(X.T):
        for row in far_cells(column, least):
            far.setdefault(int(row), []).append(j)
    return far


def _listed_far(X: Rows, far: dict[int, list[int]], numbers: np.ndarray, name) -> str:
    listed = []
    for row, columns in sorted(far.items())[:MOST_NAMED]:
        cells = ", ".join(f"{X[row, j]:g}" for j in columns[:MOST_NAMED])
        where = ", ".join(name(j) for j in columns[:MOST_NAMED])
        beside = f"column {where} hardly varies" if len(columns) == 1 else f"columns {where} hardly vary"
        listed.append(f"row {numbers[row]} so far out that {beside} beside it ({cells})")
    return "; ".join(listed) + (f"; and {len(far) - MOST_NAMED} more rows" if len(far) > MOST_NAMED else "")


def far_cells(column: np.ndarray, least: float = FAR) -> np.ndarray:
    """Return the rows, less than half of all, beside which the others are one point; mostly there are none."""
    if (known := ~np.isnan(column)).sum() < len(column):
        return np.flatnonzero(known)[far_cells(column[known], least)] if known.any() else np.empty(0, int)
    # In units of the largest number, so that no difference overflows.
    column = np.asarray(column, np.float64) / max(np.abs(column).max(), np.finfo(np.float64).tiny)
    few = column[:: 1 + len(column) // FEW_ROWS]
    middle = np.median(few)
    distance = np.abs(few - middle)
    typical = np.median(distance[distance > 0]) if distance.any() else 0.0
    distance = np.abs(column - middle)
    if distance.max() <= least * typical:
        return np.empty(0, int)
    order = np.argsort(-distance, kind="stable")
    order = order[: np.count_nonzero(distance)]
    sizes = distance[order]
    # The far ones are the fewer ones; where most rows are in the middle, all the others may be far.
    most = min((len(column) - 1) // 2, len(sizes) - 1)
    gaps = sizes[:most] / sizes[1 : most + 1]
    return order[: int(np.argmax(gaps)) + 1] if most and gaps.max() > least else np.empty(0, int)


def _check_finite(X: Rows, names, gaps: bool = False) -> None:
    # One pass without a mask of the whole table: a sum is finite unless an entry is not (or overflows).
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.nansum(X, dtype=np.float64) if gaps else X.sum(dtype=np.float64)):
            return
    name = lambda j: f"{j}" if names is None else f"{names[j]!r}"
    _raise([fault for j, column in enumerate(X.T) for fault in _faults_of_numbers(column, name(j), gaps)])

"""The friendly layer of outliers: how odd a row is, and with what p-value, by flows that have not seen it."""

import dataclasses
import math
import numbers
import time
import warnings
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from ._copies import in_random_order
from ._defaults import check_choices, check_kinds, check_numbers, given_or, seed_of
from ._errors import DataError
from ._model_file import SavedMixin, spec_facts
from ._noise_levels import Build, NoiseLevels, parts_of, spec_of, steps_of, train
from ._progress import progress_bar
from ._tables import MOST_NAMED, check_rows, check_table, check_weight
from ._types import Rows
from .distributions import Transformed
from .mixed import Column, Columns
from .training import WARMUP_STEPS, Budget

# A row is an outlier by default where its p-value is at most this.
_AUTO = 0.01
# Of fewer rows p-values mean little.
_FEWEST_ROWS = 10
# The share of a time limit in which flows learn; in the rest rows that they have not seen are scored.
_LEARNING_TIME = 0.8


class FlowOutlierDetector(OutlierMixin, SavedMixin, BaseEstimator):
    """Outliers of a table by flow matching: rows that a flow of the table knows badly, at some level of noise.

    A flow is trained to predict the velocity of straight paths from noise to the rows. Its squared error there, on
    paths to one row, says how far the ball of noise around this row is from the flow's density behind the same noise:
    were the flow perfect, it would be how fast their Kullback-Leibler divergence grows as the noise shrinks. The error
    is averaged over draws at each of four levels, from five standard deviations of noise to a quarter of one, its
    logarithm counted in units of quartiles among rows that the flow has not seen, and the level at which a row is
    oddest makes its score. It belongs to the family of denoising errors and of diffusion time estimation (Livernoche
    and others, On diffusion modeling for anomaly detection, 2024). No ODE is solved.

    Below 2,000 distinct rows there are several flows, each trained on all rows but its part (cross-fitting), of more a
    tenth of the rows, at most 1,000, is held out. Equal rows are in the same part, unless they are made of categories
    and counts alone. By these scores of rows that were not trained on come p-values.

    Every table is taken: columns may be constant (a row is then odd by how far it is off, in the column's own unit),
    combinations of others, or more than there are rows.

    Parameters
    ----------
    contamination
        ``"auto"`` calls a row an outlier where its p-value is at most 0.01, and a number above 0 and up to 0.5 where
        it is at most this, or the least that there can be.
    columns
        What the columns are: ``"auto"``, or a dictionary of kinds by name (of an array by number), as of
        `liouville.FlowDensity`. Numbers and dates are numbers; text, categories, yes and no, and what is declared as
        ``"category"`` count as levels, of which one that was not in the fit is unlike all others.
    missing
        What gaps are: ``"error"`` refuses them; ``"ignore"`` judges rows by the cells that they have, beside rows that
        were not trained on without the same cells, which takes as long as 200 rows more for each set of missing cells.
        The fit must have had gaps, too.
    max_iter
        Steps of training of each flow; None is 1,500 below 2,000 rows, else 2,500, or of 24 columns and more 3,000.
    max_seconds
        About how long a fit may take, compilation included; the same seed is then no longer the same fit.
    random_state
        Seed.
    verbose
        1 shows the progress of each flow.

    Attributes
    ----------
    offset_ : float
        A row is an outlier where `score_samples` is below it; -inf where no row can be.
    calibration_ : ndarray
        Scores of the rows that were not trained on, each by a flow that has not seen it.
    flows_ : tuple of Transformed
        The flows, in JAX, of the columns that vary, standardized; none where none does.
    noise_levels_ : NoiseLevels
        All that scores are made by.
    facts_ : dict
        What was chosen, by which figures, and which columns are ``constant``.
    columns_ : Columns
        What the columns are, and why.
    n_iter_ : int
        Number of training steps of each flow, where no time was set.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, where the table had them.

    Examples
    --------
    >>> import numpy as np
    >>> from liouville import FlowOutlierDetector
    >>> X = np.random.default_rng(0).normal(size=(300, 2)) @ np.array([[1.0, 0.9], [0.0, 0.1]])
    >>> detector = FlowOutlierDetector(max_iter=200, random_state=0).fit(X)
    >>> print(detector.predict([[1.0, 0.9], [1.0, -0.9]]), detector.p_values([[1.0, -0.9]]) < 0.01)
    [ 1 -1] [ True]
    """

    offset_: float
    calibration_: np.ndarray
    flows_: tuple[Transformed, ...]
    noise_levels_: NoiseLevels
    facts_: dict[str, Any]
    columns_: Columns
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        *,
        contamination: str | float = "auto",
        columns: str | Mapping[Any, Any] = "auto",
        missing: str = "error",
        max_iter: int | None = None,
        max_seconds: float | None = None,
        random_state=None,
        verbose: int = 0,
    ):
        self.contamination = contamination
        self.columns = columns
        self.missing = missing
        self.max_iter = max_iter
        self.max_seconds = max_seconds
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        return tags

    def fit(self, X, y=None, *, sample_weight=None) -> Self:
        """Learn what rows are like.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)``: an array, or a data frame with named columns.
        y
            Ignored.
        sample_weight
            Weights of shape ``(n,)``, for what is learned; rows of weight 0 are left out. Among the rows that were not
            trained on each counts once.

        Returns
        -------
        Self
            The estimator itself. What is raised leaves it as it was.

        Raises
        ------
        DataError
            Where a cell is infinite, or missing and may not be, or there are fewer than two rows.
        ValueError
            Where parameters have no meaning.
        SolveError
            Where training cannot recover.
        """
        started = time.perf_counter()
        self._check_parameters()
        rows, table, masses, noted = self._check_fit(X)
        weight = check_weight(sample_weight, rows)
        kept = weight > 0
        rows, weight, masses, seed = rows[kept], weight[kept], masses[kept], seed_of(self.random_state)
        _check_known(rows, table)
        # Rows that are masses are no copies of each other: how many are alike is what there is to learn.
        parts = parts_of(*in_random_order(np.column_stack([rows, np.where(masses, np.arange(len(rows)), -1)]), seed))
        steps = given_or(self.max_iter, steps_of(len(rows), _expanded(rows[:1], table).shape[1]))
        done: list[int] = []

        def learn(points: Rows, of_rows: np.ndarray, k: int) -> Transformed:
            build = Build(spec_of(points.shape[1], bool(np.isnan(rows).any())))
            seconds = None if self.max_seconds is None else self.max_seconds * (k + _LEARNING_TIME) / len(parts)
            budget = Budget(steps, None if seconds is None else started + seconds)
            with progress_bar(self.verbose, f"flow {k + 1} of {len(parts)}") as bar:
                # There is no likelihood to show.
                watch = lambda trainer, numbers: bar(trainer, {**numbers, "nll": math.nan})
                flow, num = train(points, of_rows, build, budget, seed + k, watch)
            done.append(num)
            return flow

        levels = NoiseLevels.fit(_expanded(rows, table), weight, parts, learn)
        # Of a table without columns to learn, or in so short a time, there may be none.
        facts = self._facts(rows, table, levels, min(done, default=0), seed)
        _warn_of_rows(self.contamination, len(levels.calibration), facts["constant"])
        _warn_of_time(self.max_seconds, facts["steps"], steps)
        vars(self).pop("feature_names_in_", None)
        vars(self).update(noted)
        self._take(levels, {**facts, "seconds": round(time.perf_counter() - started, 3)}, table)
        return self

    def score_samples(self, X) -> np.ndarray:
        """Return how normal rows are: the higher, the more so, and about 0 and below.

        It is minus the number of quartile spreads by which the logarithm of a row's error is beyond the median, at the
        level of noise where it is largest: an estimate, by draws that all rows share.

        Parameters
        ----------
        X
            Rows, as `fit` takes them.
        """
        points = self._points(X)
        return self.noise_levels_.score(points)

    def decision_function(self, X) -> np.ndarray:
        """Return ``score_samples(X) - offset_``: below 0 of outliers.

        Parameters
        ----------
        X
            Rows, as `fit` takes them.
        """
        scores = self.score_samples(X)
        return scores - self.offset_

    def predict(self, X) -> np.ndarray:
        """Return -1 of outliers and 1 of others.

        Parameters
        ----------
        X
            Rows, as `fit` takes them.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X) -> np.ndarray:
        """Return the probability that a row like those of the fit would be as odd.

        Of rows not trained on, so many of `n` are no less odd: ``(1 + so many) / (n + 1)`` (a conformal p-value: Bates
        and others, Testing for outliers with conformal p-values, 2023). Rows that come as those of the fit did have one
        of at most `a` with a probability of about `a`.

        Parameters
        ----------
        X
            Rows, as `fit` takes them.
        """
        scores = self.score_samples(X)
        return self.noise_levels_.p_values(scores)

    def _check_parameters(self) -> None:
        share = self.contamination
        is_number = isinstance(share, numbers.Real) and not isinstance(share, bool)
        if not (share == "auto" if isinstance(share, str) else is_number and 0 < float(share) <= 0.5):
            raise ValueError(
                f"Expected contamination 'auto', or above 0 and up to 0.5, got {share!r}; try contamination='auto'."
            )
        params = self.get_params()
        check_choices(params, {"missing": ("error", "ignore")})
        check_kinds(params)
        check_numbers(params, ("max_iter", "max_seconds"), (), ("max_iter",))

    def _check_fit(self, X) -> tuple[Rows, Columns, np.ndarray, dict[str, Any]]:
        """Return rows, what their columns are, which rows are masses, and what is noted of the table."""
        # Attributes change when the fit has ended: until then another one takes note of the columns.
        other: Any = type(self)()
        declared = {} if isinstance(self.columns, str) else dict(self.columns)
        # A number that many rows share is one like others here.
        found = {name: None if kind == "continuous" else kind for name, kind in declared.items()}
        with warnings.catch_warnings():
            # What is constant says something here.
            warnings.filterwarnings("ignore", "Expected columns that vary, but not in every row, got one value")
            rows, table = check_table(X, other, found or None, self.missing)
        masses = table.are_masses(rows) if table.is_mixed else np.zeros(len(rows), bool)
        are_levels = {str(name) for name, kind in declared.items() if kind == "category"}
        table.fields = tuple(field if str(field.name) in are_levels else _number(field) for field in table.fields)
        table.unseen = "they are unlike all others"
        other.columns_ = table
        rows = np.asarray(check_rows(X, other), np.float64)
        return rows, table, masses, {name: value for name, value in vars(other).items() if name.endswith("_in_")}

    def _points(self, X) -> Rows:
        """Return rows as numbers, levels side by side."""
        check_is_fitted(self)
        rows = check_rows(X, self)
        gaps = np.argwhere(np.isnan(rows))
        if len(gaps) and not self.noise_levels_.knows_gaps:
            row, column = gaps[0]
            raise DataError(
                f"Expected rows without gaps, as those of the fit, got one in row {row}, column "
                f"{self.columns_.fields[column].name!r}; try fitting rows with gaps."
            )
        return _expanded(rows, self.columns_)

    def _facts(self, rows: Rows, table: Columns, levels: NoiseLevels, steps: int, seed: int) -> dict[str, Any]:
        """Return what was chosen, in JSON's types."""
        num, names = len(levels.calibration), _names(table)
        flow = None
        if levels.flows:
            flow = spec_facts(spec_of(levels.flows[0].shape[0], levels.flows[0].cond_shape is not None), None, None)
        return {
            "rows": len(rows),
            "columns": rows.shape[1],
            "constant": [names[j] for j in np.flatnonzero(levels.is_constant)],
            "flow": flow,
            "flows": len(levels.flows),
            "steps": steps,
            "calibration_rows": num,
            "offset": _offset(levels.calibration, self.contamination),
            "levels_of": {"columns": len(names), "num": len(levels.flows), "rows": num},
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "seed": seed,
        }

    def _take(self, levels: NoiseLevels, facts: dict[str, Any], table: Columns) -> None:
        """Take up what was learned, or stood in a file."""
        self.noise_levels_, self.flows_, self.calibration_ = levels, levels.flows, levels.calibration
        self.facts_, self.columns_, self.n_features_in_ = facts, table, facts["columns"]
        self.offset_, self.n_iter_ = facts["offset"], facts["steps"]


def _number(field: Any) -> Any:
    """Return a column whose levels, or atoms, are numbers as one of numbers."""
    if any(isinstance(level, str | bool) for level in field.levels) or field.unit:
        return field
    return dataclasses.replace(field, column=Column("continuous"), why="numbers", levels=())


def _expanded(rows: Rows, table: Columns) -> Rows:
    """Return rows with a column for each level, 1 in a row's own: NaN where that is missing, and 0 for a new one."""
    parts = []
    for column, values in zip(table.columns, rows.T, strict=True):
        values = values[:, None]
        is_own = (values == np.arange(column.levels)).astype(np.float64)
        parts.append(np.where(np.isnan(values), np.nan, is_own) if column.kind == "code" else values)
    return np.concatenate(parts, axis=1, dtype=np.float64)


def _names(table: Columns) -> list[str]:
    """Return the names of the columns that `_expanded` returns."""
    levels = [field.levels if field.column.kind == "code" else (None,) for field in table.fields]
    named = lambda field, level: str(field.name) if level is None else f"{field.name}={level}"
    return [named(field, level) for field, some in zip(table.fields, levels, strict=True) for level in some]


def _check_known(rows: Rows, table: Columns) -> None:
    empty = np.flatnonzero(np.isnan(rows).all(axis=0))
    if len(empty):
        listed = ", ".join(repr(table.fields[j].name) for j in empty[:MOST_NAMED])
        raise DataError(f"Expected values in rows of positive weight in each column, got none in {listed}; try others.")


def _offset(calibration: np.ndarray, contamination: Any) -> float:
    """Return below which score the p-value is at most the contamination: a quantile of the calibration.

    By default it is -inf where that is none; where a number is asked for, it is the least that there can be.
    """
    share = _AUTO if contamination == "auto" else float(contamination)
    # So many of the calibration may be no better: a millionth of one is rounding.
    place = math.floor(share * (len(calibration) + 1) + 1e-6) - 1
    if contamination != "auto":
        place = max(place, 0)
    return float(np.sort(calibration)[place]) if place >= 0 else -math.inf


def _warn_of_time(max_seconds: float | None, done: int, wanted: int) -> None:
    """Warn where a deadline left so few steps that flows are hardly trained."""
    if max_seconds is not None and done < min(WARMUP_STEPS, wanted):
        warnings.warn(
            f"max_seconds={max_seconds:g} left time for {done} steps of training of a flow, of {wanted}: most of it "
            "went into compilation, which does not grow with the fit; try more seconds.",
            UserWarning,
            stacklevel=3,
        )


def _warn_of_rows(contamination: Any, num: int, constant: list[str]) -> None:
    said = []
    if constant:
        more = f" and {len(constant) - MOST_NAMED} more" if len(constant) > MOST_NAMED else ""
        said.append(
            f"Expected columns that vary, got one value in {', '.join(map(repr, constant[:MOST_NAMED]))}{more}: rows "
            "with another are odd by how far they are off, in the column's own unit; try leaving out what may be any "
            "number."
        )
    if num < _FEWEST_ROWS:
        said.append(
            f"Expected {_FEWEST_ROWS} rows or more, got {num}: p-values are multiples of 1/{num + 1} and mean little; "
            "try more rows."
        )
    if contamination == "auto" and 1 / (num + 1) > _AUTO:
        said.append(
            f"Expected {round(1 / _AUTO) - 1} rows that were not trained on, or more, got {num}: no p-value is "
            f"{_AUTO} or less, so that no row is an outlier; try contamination=0.05, or p_values."
        )
    for text in said:
        warnings.warn(text, UserWarning, stacklevel=3)

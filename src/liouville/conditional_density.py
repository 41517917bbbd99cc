"""The friendly layer of targets given rows: p(y | x), its quantiles, and posteriors."""

import copy
import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Self, cast

import numpy as np
from sklearn.utils.validation import check_is_fitted

from . import evaluation, flows
from ._conditions import Conditions, Told
from ._copies import merge_copies
from ._defaults import check_count, check_parameters, resolve_conditional, rng_of, seed_of
from ._fitted import AbstractFitted
from ._fitting import Given, Stage
from ._laws import NumberLaw
from ._splits import ConditionalSplit, split_conditional
from ._tables import check_present, check_rows, check_table, check_varied, check_weight
from ._targets import check_target_rows, check_targets, named, warn_of_few_rows
from ._types import Rows
from .mixed import Column, Columns
from .selection import Candidate, Plan

# The mean of several targets is one of so many draws.
_MEAN_DRAWS = 256


class ConditionalFlowDensity(AbstractFitted):
    """Density of targets given rows, p(y | x), learned as a continuous normalizing flow.

    A row is any row of a table: numbers, counts, categories, and gaps where `missing` says so. Targets are one column
    or several, of any kind. Of one number distribution function, quantiles, intervals and CRPS come from the flow
    itself, which is increasing in one dimension; of several, draws and log-densities do, as of a posterior.

    Parameters
    ----------
    recipe, objective, vector_field, width, depth, divergence, solver, rtol, atol
        As of `liouville.FlowDensity`.
    preprocess
        What is done to the targets, as of `liouville.FlowDensity`.
    batch_size, learning_rate, weight_decay, max_iter, max_seconds, validation_fraction, random_state, verbose
        As of `liouville.FlowDensity`.
    checkpoint
        As of `liouville.FlowDensity`.
    columns, target_columns
        What the columns of rows and of targets are: ``"auto"``, or a dictionary of kinds by name (of an array by
        number), as of `liouville.FlowDensity`. Targets that rows do not share end where this says so, as a prior does,
        and nowhere else: ``{"share": ("bounded", 0, 1)}``, ``{"price": "positive"}``.
    missing
        What gaps in rows are (targets have none): ``"error"`` refuses them; ``"model"`` takes them for values, in
        columns that had some in the fit; ``"ignore"`` for what is not known: the density is that of the targets given
        the rest, and any cell may be missing, since cells of a copy of each row are dropped at random for training.
    front
        ``"trees"`` has boosted trees say location and scale of one target that is a number, or has two levels: the flow
        is told them, and learns one that is continuous and without bounds in their units. ``"none"`` learns targets as
        they are, and ``"auto"`` as is clearly more likely on held-out rows.

    Attributes
    ----------
    flow_ : Density
        The density of the targets, in JAX, under conditions: its core is a `liouville.mixed.Mixed`.
    conditions_ : Conditions
        What rows are to it, and trees in front of it.
    columns_, target_columns_ : Columns
        What the columns of rows and of targets are, and why.
    history_, facts_, n_iter_, n_features_in_, feature_names_in_
        As of `liouville.FlowDensity`.

    Examples
    --------
    >>> import numpy as np
    >>> from liouville import ConditionalFlowDensity
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-1, 1, size=(600, 1))
    >>> y = X[:, 0] + 0.1 * rng.normal(size=600)
    >>> fast = {"max_iter": 300, "width": 16, "depth": 1, "preprocess": "standardize", "front": "none"}
    >>> density = ConditionalFlowDensity(**fast, random_state=0).fit(X, y)
    >>> low, high = density.predict_interval([[0.5]], coverage=0.9)[0]
    >>> print(0.2 < low < 0.5 < high < 0.8)
    True
    """

    columns_: Columns
    target_columns_: Columns
    conditions_: Conditions
    n_features_in_: int
    feature_names_in_: np.ndarray
    # What is conditioned has a base without parameters.
    base = "standard"

    def __init__(
        self,
        *,
        recipe: str = "flow_matching",
        objective: str | None = None,
        vector_field: str | None = None,
        width: int | None = None,
        depth: int | None = None,
        divergence: str | None = None,
        solver: str | None = None,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        preprocess: str = "auto",
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        max_iter: int | None = None,
        max_seconds: float | None = None,
        validation_fraction: float = 0.1,
        random_state=None,
        verbose: int = 0,
        checkpoint: str | None = None,
        columns: str | Mapping[Any, Any] = "auto",
        target_columns: str | Mapping[Any, Any] = "auto",
        missing: str = "error",
        front: str = "auto",
    ):
        self.recipe = recipe
        self.objective = objective
        self.vector_field = vector_field
        self.width = width
        self.depth = depth
        self.divergence = divergence
        self.solver = solver
        self.rtol = rtol
        self.atol = atol
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_iter = max_iter
        self.max_seconds = max_seconds
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose
        self.checkpoint = checkpoint
        self.columns = columns
        self.target_columns = target_columns
        self.missing = missing
        self.front = front

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X, y, *, sample_weight=None, callback=None) -> Self:
        """Learn the density of targets given rows.

        An interrupt (Ctrl-C) is passed on, with the estimator fitted by the best weights so far, where there was a
        step. What is raised otherwise leaves the estimator as it was.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)``: an array, or a data frame with named columns.
        y
            Targets: of shape ``(n,)`` or ``(n, k)``, a series or a data frame. None may be missing.
        sample_weight
            Weights of shape ``(n,)``: a row of weight 2 counts like two.
        callback
            As of `liouville.FlowDensity.fit`.

        Returns
        -------
        Self
            The estimator itself.

        Raises
        ------
        DataError
            Where a cell is missing or infinite that may not be, or targets have no density: one is constant, or a
            combination of others.
        ValueError
            Where parameters have no meaning, or `y` is None.
        SolveError
            Where training cannot recover.
        """
        started = time.perf_counter()
        self._check_parameters()
        return self._fit(self._check_fit(X, y, sample_weight), started, callback)

    def log_prob(self, X, y, *, return_info: bool = False):
        """Return the log-density of targets given their rows, in nats, in the targets' own units.

        Of targets with masses, as categories and counts, it is the log-probability. It is exact up to the solver's
        tolerance (see `certify`).

        Parameters
        ----------
        X, y
            Rows and targets, as `fit` takes them.
        return_info
            True also returns status and costs of each row's solves.

        Returns
        -------
        ndarray of shape (n,)
            Nats; NaN, with a warning that names the first such row, where the solve failed.
        EvaluationInfo
            Only with `return_info`.
        """
        told = self._told_of(X)
        learned, change = told.inwards(self._check_targets(X, y))
        log_prob, info = evaluation.score(self.flow_, learned, told.condition)
        evaluation.warn_of_failures(info)
        return (log_prob + change, info) if return_info else log_prob + change

    def score(self, X, y, sample_weight=None) -> float:
        """Return the mean log-likelihood, that of `log_prob`, in nats: no coefficient of determination.

        Parameters
        ----------
        X, y
            Rows and targets, as `fit` takes them.
        sample_weight
            Weights of shape ``(n,)``, of a weighted mean.
        """
        log_prob = np.asarray(self.log_prob(X, y))
        return float(np.average(log_prob, weights=check_weight(sample_weight, log_prob)))

    def predict(self, X) -> np.ndarray:
        """Return the mean of the targets given rows.

        Parameters
        ----------
        X
            Rows, as `fit` takes them.

        Returns
        -------
        ndarray of shape (n,), or (n, k)
            Of one target the integral over the flow's quantiles, by a thousand of them; of several the mean of 256
            draws, always the same.

        Raises
        ------
        TypeError
            Where targets are text, which has no mean.
        """
        told = self._told_of(X)
        if len(self.target_columns_.fields) == 1:
            return self._law(told, "predict").mean()
        # Text has no mean: that is said before anything is drawn.
        levels = [self._levels_of(field) for field in self.target_columns_.fields]
        return named(self._drawn(told, _MEAN_DRAWS, 0), levels, float).mean(axis=0)

    def predict_quantiles(self, X, alpha=(0.05, 0.25, 0.5, 0.75, 0.95)) -> np.ndarray:
        """Return quantiles of one target given rows, of shape ``(n, len(alpha))``.

        They are where the flow takes the base's quantiles: exact up to the solver's tolerance.

        Parameters
        ----------
        X
            Rows, as `fit` takes them.
        alpha
            Probabilities above 0 and below 1.

        Raises
        ------
        TypeError
            Where there are several targets, or one of text.
        """
        alpha = np.atleast_1d(np.asarray(alpha, float))
        if alpha.ndim != 1 or not alpha.size or not ((alpha > 0) & (alpha < 1)).all():
            raise ValueError(f"Expected alpha above 0 and below 1, got {alpha.tolist()}; try [0.05, 0.5, 0.95].")
        order = np.argsort(alpha)
        found = self._law(self._told_of(X), "predict_quantiles").quantiles(alpha[order])
        # Two that are all but equal may cross by less than the tolerance.
        found[:, order] = np.sort(found, axis=1)
        return found

    def predict_interval(self, X, coverage: float = 0.9) -> np.ndarray:
        """Return intervals that hold one target with a probability, as much of it below as above: of shape ``(n, 2)``.

        Parameters
        ----------
        X
            Rows, as `fit` takes them.
        coverage
            The probability, above 0 and below 1.

        Raises
        ------
        TypeError
            Where there are several targets, or one of text.
        """
        if not 0 < coverage < 1:
            raise ValueError(f"Expected a coverage above 0 and below 1, got {coverage!r}; try 0.9.")
        return self.predict_quantiles(X, [(1 - coverage) / 2, (1 + coverage) / 2])

    def cdf(self, X, y) -> np.ndarray:
        """Return the probability of no more than `y`, given rows: of shape ``(n,)``.

        Of targets that were drawn as the model says it is uniform (the probability integral transform), where they are
        continuous.

        Parameters
        ----------
        X, y
            Rows and targets, as `fit` takes them.

        Raises
        ------
        TypeError
            Where there are several targets, or one of text.
        """
        law = self._law(self._told_of(X), "cdf")
        return law.cdf(self._numbers_of(X, y))

    def crps(self, X, y) -> np.ndarray:
        """Return the continuous ranked probability score of each row, in units of the target: the less, the better.

        It is ``E|Y - y| - E|Y - Y'| / 2`` (Gneiting and Raftery, 2007, equation 21), by a thousand quantiles.

        Parameters
        ----------
        X, y
            Rows and targets, as `fit` takes them.

        Raises
        ------
        TypeError
            Where there are several targets, or one of text.
        """
        law = self._law(self._told_of(X), "crps")
        return law.crps(self._numbers_of(X, y))

    def sample(self, X, n_samples: int = 1, random_state=None) -> np.ndarray:
        """Draw targets given rows.

        Parameters
        ----------
        X
            Rows, as `fit` takes them.
        n_samples
            How many for each row; fewer are the first of many.
        random_state
            Seed.

        Returns
        -------
        ndarray of shape (n_samples, n, k)
            Numbers, and of targets of text objects; of dates numbers of their unit, as days, since 1970, as `log_prob`
            and others take them, too. NaN where a solve failed, with a warning.
        """
        told = self._told_of(X)
        drawn = self._drawn(told, check_count("n_samples", n_samples), seed_of(random_state))
        levels = [field.levels or None for field in self.target_columns_.fields]
        is_text = any(isinstance(level, str) for column in levels for level in column or ())
        return named(drawn, levels, object if is_text else float)

    def certify(self, X, y, num_rows: int = 200, random_state=0) -> evaluation.Certificate:
        """Solve a subsample again at a tenth of the tolerance, and say how far its log-densities move.

        Parameters
        ----------
        X, y
            Rows and targets, as `fit` takes them.
        num_rows
            Size of the subsample.
        random_state
            Seed that chooses it.
        """
        told, targets = self._told_of(X), self._check_targets(X, y)
        chosen = rng_of(random_state).permutation(len(targets))[: check_count("num_rows", num_rows)]
        told, tight = told.some(chosen), flows.with_tolerance(self.flow_, 0.1)
        return evaluation.certify(self.flow_, tight, told.inwards(targets[chosen])[0], told.condition)

    def _check_parameters(self) -> None:
        check_parameters(self)

    def _check_fit(self, X, y, sample_weight) -> Given:
        # Attributes change when the fit has ended: until then another one takes note of the columns.
        other = type(self)()
        declared = lambda columns: None if isinstance(columns, str) else columns
        rows, table = check_table(X, other, declared(self.columns), self.missing)
        table.unseen = "they are taken as not known"
        targets, of_targets = check_targets(X, y, self, declared(self.target_columns))
        weight = check_weight(sample_weight, rows)
        warn_of_few_rows(int((weight > 0).sum()))
        check_varied(targets, weight, [field.name for field in of_targets.fields], of_targets)
        noted = {name: value for name, value in vars(other).items() if name.endswith("_in_")}
        both = np.concatenate([rows, targets], axis=1)
        merged = merge_copies(both, weight, of_targets.are_masses(targets) if of_targets.is_mixed else None)
        return Given(*merged, (both, weight), {**noted, "columns_": table, "target_columns_": of_targets})

    def _told_of(self, X) -> Told:
        """Return what rows say of their targets."""
        check_is_fitted(self)
        rows = check_rows(X, self)
        check_present(rows, self.columns_, range(rows.shape[1]))
        return self.conditions_(rows)

    def _check_targets(self, X, y) -> Rows:
        check_is_fitted(self)
        return check_target_rows(X, y, self, self.target_columns_)

    def _numbers_of(self, X, y) -> np.ndarray:
        """Return one target as numbers: of levels what they are, those that the fit has not seen, too."""
        check_is_fitted(self)
        columns = copy.copy(self.target_columns_)
        if self._levels_of(columns.fields[0]) is not None:
            columns.fields = (dataclasses.replace(columns.fields[0], column=Column("continuous"), levels=()),)
        return check_target_rows(X, y, self, columns)[:, 0]

    def _levels_of(self, field) -> np.ndarray | None:
        """Return the numbers that the levels of a target are, or None of numbers; raise for text."""
        levels: list = list(field.levels)
        if not levels:
            return None
        if any(isinstance(level, str) for level in levels):
            raise TypeError(
                f"Expected targets that are numbers, got text in {field.name!r}; try log_prob(X, y) of each of "
                f"{levels[:10]}, or sample(X)."
            )
        return np.asarray(levels, float)

    def _law(self, told: Told, name: str) -> NumberLaw:
        """Return the law of the one target; raise where there are several."""
        fields = self.target_columns_.fields
        if len(fields) > 1:
            listed = ", ".join(repr(field.name) for field in fields[:10])
            raise TypeError(
                f"Expected one target for {name}, got {len(fields)} ({listed}); try sample(X, n_samples=1000), and "
                "what is asked of each of them in the draws."
            )
        return NumberLaw(self.flow_, told, self._levels_of(self.target_columns_.fields[0]))

    def _drawn(self, told: Told, num: int, seed: int) -> np.ndarray:
        """Draw targets as numbers, of shape ``(num, n, k)``."""
        rows = len(told.condition)
        condition = np.tile(told.condition, (num, 1))
        drawn, info = evaluation.sample(self.flow_, num * rows, condition, seed=seed)
        evaluation.warn_of_failures(info)
        return told.outwards(drawn.reshape(num, rows, -1))

    # What reads files is imported where one is read: it takes a quarter of a second.

    def _read(self, file) -> Any:
        from .data import read_rows_of

        return read_rows_of(self, file)

    def _check_output(self, file) -> None:
        from .data import check_output

        check_output(file, self.target_columns_.arrow(np.zeros((1, len(self.target_columns_.fields)))).schema)

    def _write(self, file, drawn: np.ndarray, number: np.ndarray | None = None) -> None:
        """Write targets as numbers to a file, behind the number of the draw of each where it is told."""
        from .data import write_table

        table = self.target_columns_.arrow(drawn)
        write_table(file, table if number is None else table.add_column(0, "draw", [number]))

    def _plan(self, shape: tuple[int, ...], columns: Columns | None = None) -> Plan:
        return resolve_conditional(self, shape[0], cast(Columns, columns))

    def _stages(self, given: Given) -> list[Stage]:
        return [Stage("flow_", self._plan(given.rows.shape, given.columns["target_columns_"]))]

    def _keep(self, name: str, candidate: Candidate, plan: Plan, given: Given, seed: int, seconds: float) -> None:
        super()._keep(name, candidate, plan, given, seed, seconds)
        self.conditions_ = cast(Conditions, candidate.prepared.conditions)
        *fronts, preprocess = candidate.preprocess.split()
        front = self.conditions_.front
        self.facts_ |= {
            "preprocess": preprocess,
            "front": "trees" if fronts else "none",
            "has_fronts": plan.has_fronts,
            "trees": None if front is None else front.sizes,
        }

    def _split(self, given: Given, plan: Plan, seed: int) -> ConditionalSplit:
        of_rows, of_targets = given.columns["columns_"], given.columns["target_columns_"]
        return split_conditional(
            given.rows,
            given.weight,
            self.validation_fraction,
            plan.validation_size,
            seed,
            of_rows.columns,
            of_targets.columns,
            drops=of_rows.missing == "ignore",
        )

    def _facts_of_data(self, given: Given) -> dict[str, Any]:
        return {"columns": given.columns["n_features_in_"]}

"""The friendly layer: density estimation as a scikit-learn estimator."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._conditionals import columns_of, drawn_given, log_prob_of
from ._copies import merge_copies
from ._defaults import check_count, check_parameters, in_two, resolve, resolve_mixed, resolve_subsets, seed_of
from ._estimator import AbstractFlowEstimator
from ._fitting import Given, Stage
from ._model_file import build_facts
from ._splits import Split, split_rows
from ._tables import (
    check_points,
    check_present,
    check_rows,
    check_table,
    check_varied,
    check_weight,
    warn_of_fixed,
    warn_of_target,
)
from .density import Density
from .metrics import Likelihood, evaluate_baselines, evaluate_independent, likelihood, table_of
from .mixed import Columns
from .selection import Candidate, Plan

# Of the time for two trainings, what the first has.
_FIRST = 0.6
# Of a printed density so many columns are told.
_MOST_SHOWN = 40


class FlowDensity(AbstractFlowEstimator):
    """Density of a table, learned as a continuous normalizing flow.

    Nothing needs to be tuned: what is None or ``"auto"`` is set from the number of rows and columns, or
    decided by a short race on the exact log-likelihood of held-out rows.

    Parameters
    ----------
    recipe
        How a paper puts the parts together, by name: a key of ``liouville.recipes.RECIPES``. What is None below is the
        recipe's.
    objective
        ``"flow_matching"`` (regression on paths; no ODE is solved in training) or ``"likelihood"``, by as many constant
        steps as the loss needs (`liouville.objectives.CheckedSteps`).
    vector_field
        ``"mlp"``, ``"concat_squash"``, or another key of ``liouville.flows.VECTOR_FIELDS`` but for the convolutions.
    base
        ``"standard"`` normal, or ``"trainable"``: normal columns whose means and scales are trained with the field, by
        likelihood.
    width, depth
        Size of the vector field's network.
    divergence
        ``"exact"`` or ``"hutchinson"``, in training by likelihood; evaluation is exact.
    solver
        ``"dopri5"``, ``"tsit5"``, ``"dopri8"``, ``"bosh3"``, ``"heun"`` (adaptive), ``"rk4"`` or ``"euler"``
        (20 constant steps); None is ``"dopri5"``, on 24 columns and more ``"bosh3"``.
    rtol, atol
        Tolerances of the adaptive solvers.
    preprocess
        ``"standardize"``, ``"whiten"``, ``"gaussian_margins"``, ``"gaussian_radius"``, or ``"auto"``: the one
        that wins a race. All are closed forms with the flow: densities stay in the data's own units.
    batch_size, learning_rate, weight_decay
        Rows per training step, peak of its schedule, and decoupled weight decay (AdamW).
    max_iter
        Number of training steps, of each training where a fit has two.
    max_seconds
        Time for fitting, compilation included; instead of `max_iter`, or with it, the first of the two.
        How many steps fit into it depends on the machine, so only `max_iter` repeats bit for bit.
    validation_fraction
        Share of the rows by which choices are made.
    random_state
        Seed.
    verbose
        1 draws a progress bar on standard error.
    checkpoint
        File that training writes as it goes; a fit that finds it goes on from there, and deletes it at
        its end.
    columns
        What the columns are: ``"auto"`` finds out, or a dictionary by name (of an array by number) says it of some:
        ``"continuous"``, ``"positive"``, ``("bounded", a, b)``, ``"category"``, ``"integer"``, ``("grid", step)``. Of
        columns that are not all continuous the log-probability of a row is one of masses and densities
        (`liouville.mixed`).
    missing
        What missing cells are, NaN, None and NA: ``"error"`` refuses them, naming columns and counts. ``"ignore"``
        learns from what is there, in two trainings, between which gaps are drawn by what the first has learned: the
        log-probability of a row is the marginal one of what was observed. That is right where whether a cell is missing
        depends at most on what was observed (missing at random), and rows with other gaps are densities of other
        dimensions, whose log-probabilities do not compare. ``"model"`` takes a gap for a value like others: the
        log-probability of a row is one of its gaps and of what is there, and draws have gaps as the table has.
    conditionals
        True also learns any columns given any others, for `log_prob` of some columns, ``sample(given=...)`` and
        `impute`, in a training of its own behind that of the density. With ``missing="ignore"`` the density is of any
        columns, whatever this says.

    Attributes
    ----------
    flow_ : Density
        The density, in JAX: its core is a flow, its frame is what is done to rows before it.
    history_ : dict of lists
        Steps, seconds, training loss, evaluations of the field per row, skipped steps, validation NLL; of the density's
        last training, as `n_iter_`.
    facts_ : dict
        What was chosen, and by which figures: where ``validation_is_exact`` is False, as on many columns, their
        divergence was estimated, by one Hutchinson probe a row.
    columns_ : Columns
        What the columns are, and why, and by which measure a log-probability is one: ``print(density)`` says it.
    subsets_ : Density
        Any columns given any others, where they were learned by themselves (`liouville.mixed.Subsets`).
    n_iter_ : int
        Number of training steps done.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, where the table had them.

    Examples
    --------
    >>> import numpy as np
    >>> from liouville import FlowDensity
    >>> X = np.random.default_rng(0).normal(size=(500, 1))
    >>> density = FlowDensity(max_iter=50, width=8, depth=1, preprocess="standardize", random_state=0).fit(X)
    >>> print(abs(density.score(X) + 1.42) < 0.1)
    True
    """

    n_features_in_: int
    columns_: Columns
    subsets_: Density
    feature_names_in_: np.ndarray

    def __init__(
        self,
        *,
        recipe: str = "flow_matching",
        objective: str | None = None,
        vector_field: str | None = None,
        base: str = "standard",
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
        missing: str = "error",
        conditionals: bool = False,
    ):
        self.recipe = recipe
        self.objective = objective
        self.vector_field = vector_field
        self.base = base
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
        self.missing = missing
        self.conditionals = conditionals

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        return tags

    def __str__(self) -> str:
        """Return what the estimator is, and of a fitted one what its columns are, by a measure each."""
        table = getattr(self, "columns_", None)
        if table is None:
            return repr(self)
        lines = str(table).splitlines()
        more = [f"and {len(lines) - _MOST_SHOWN} more, in columns_"] if len(lines) > _MOST_SHOWN else []
        return "\n".join([repr(self), f"fitted to {self.facts_['rows']} rows of", *lines[:_MOST_SHOWN], *more])

    def log_prob(
        self, X, *, target=None, given=(), consistent: bool = False, num_draws: int = 32, random_state: Any = 0
    ):
        """Return the log-probability of some columns of each row given others, what is in neither integrated out.

        It is a mass or a density in nats, in the data's own units, as `score_samples` returns it of whole rows, and
        sums and integrates to 1 over the target for whatever is given. A category given all else makes a classifier:
        its levels' probabilities sum to 1.

        Parameters
        ----------
        X
            Rows, as `fit` takes them; a frame may lack columns that are not asked for. With ``missing="ignore"`` a
            target that is missing is integrated out, and what is given and missing is not given; with ``"model"`` a gap
            is a value.
        target
            Names (of an array, numbers) of the columns whose probability is asked for; None is all that are not given.
        given
            Names of the columns that it is conditioned on.
        consistent
            False returns what one solve says: exact for what the network has learned, but answers to different
            questions need not agree with each other, or with `score_samples`. True corrects them to what follows from
            `score_samples`, by importance sampling: columns in neither are drawn, and the joint density says how likely
            the row is with them. With nothing given it is the logarithm of an unbiased estimate, else the difference of
            two; it comes with a standard error.
        num_draws
            Draws for each row of `consistent`.
        random_state
            Seed of the draws.

        Returns
        -------
        ndarray of shape (n,)
            Nats; NaN, with a warning, where a solve failed.
        ndarray of shape (n,)
            Only with `consistent`: standard errors, 0 where nothing had to be drawn. Where they are more than 0.5 or so
            the draws miss what counts, and the value is too low.

        Raises
        ------
        DataError
            Where what is given cannot be, as a level that the fit has not seen.
        ValueError
            Where the fit has not learned conditionals, or columns are asked for that it does not have.
        """
        check_is_fitted(self)
        asked = columns_of(self, target, given)
        rows = check_rows(X, self, sorted({*asked.target, *asked.given}))
        check_present(rows, self.columns_, [*asked.target, *asked.given])
        check_count("num_draws", num_draws, least=2)
        return log_prob_of(self, rows, asked, num_draws if consistent else None, seed_of(random_state))

    def sample(self, n: int = 1, random_state=None, *, error: float | None = None, given=None) -> Any:
        """Draw rows, or what is missing of rows.

        Parameters
        ----------
        n
            How many.
        random_state
            Seed; the same seed draws the same ones, and fewer are the first of many.
        error
            Mean error of a drawn coordinate, in standard deviations, that is good enough, for example 1e-3: many rows
            are then drawn several times as fast, as `score_samples` says.
        given
            Rows, as `fit` takes them: what is missing in them (NaN, None, NA) is drawn given the rest, once for each
            row, and the rest stays as it is. Where gaps are values of the fit (``missing="model"``), what is drawn may
            be a gap.

        Returns
        -------
        table
            Of the kind of the table of the fit: ``(n, d)``, or as many rows as were given. NaN where a solve failed,
            with a warning.

        Raises
        ------
        DataError
            Where what is given cannot be, as a level that the fit has not seen.
        ValueError
            Where rows are given and the fit has not learned conditionals.
        """
        if given is None:
            return super().sample(n, random_state, error=error)
        if n != 1 or error is not None:
            raise ValueError(
                f"Expected no n and no error with given rows, each of which is drawn once, got n={n} and "
                f"error={error!r}; try impute(given, num_draws=n)."
            )
        return self._like(given, self._draw_given(given, random_state)[0])

    def impute(self, X, num_draws: int = 1, random_state=None) -> Any:
        """Return rows whose missing cells are drawn given what was observed: draws of the model, and no means.

        Parameters
        ----------
        X
            Rows, as `fit` takes them; columns that a frame lacks are drawn, too.
        num_draws
            How many tables; fewer are the first of many. What is said of one draw is wrong by its luck: do what is to
            be done with each, and look at how results differ (multiple imputation).
        random_state
            Seed.

        Returns
        -------
        table, or tables
            A table without gaps, of the kind of the table of the fit; of more draws an array of shape
            ``(num_draws, n, d)``, of frames a list of them.

        Raises
        ------
        DataError
            Where what was observed cannot be, as a level that the fit has not seen.
        ValueError
            Where the fit has not learned conditionals.
        """
        check_count("num_draws", num_draws)
        drawn = self._draw_given(X, random_state, num_draws, has_gaps=False)
        if num_draws == 1:
            return self._like(X, drawn[0])
        tables = [self._like(X, rows) for rows in drawn]
        return np.stack(tables) if self.columns_.backend is None else tables

    def _like(self, X, rows: np.ndarray) -> Any:
        """Return rows of numbers as a table that stands for another one, row by row: of pandas with its index."""
        table = self._as_given(rows)
        is_indexed = self.columns_.backend is not None and self.columns_.backend.is_pandas_like()
        return table.set_axis(X.index) if is_indexed and hasattr(X, "iloc") else table

    def _draw_given(self, X, random_state: Any, num_draws: int = 1, has_gaps: bool = True) -> np.ndarray:
        """Draw what rows lack, whatever the fit says of gaps, as numbers of shape ``(num_draws, n, d)``."""
        check_is_fitted(self)
        return drawn_given(self, check_rows(X, self, ()), num_draws, seed_of(random_state), has_gaps)

    def evaluate(self, X, *, train=None, random_state: int = 0) -> list[Likelihood]:
        """Return the likelihood of rows, beside that of a Gaussian, a Gaussian mixture and a kernel density.

        Where columns are not all continuous, beside that of columns that know nothing of each other.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)`` that the fit has not seen.
        train
            Rows that the baselines are fitted on, for example those of the fit; None leaves the baselines out.
        random_state
            Seed of the baselines.

        Returns
        -------
        list of Likelihood
            Mean NLL in nats with its standard error, the flow's first.
        """
        rows = self._check(X)
        flow = likelihood("flow", self.score_samples(X))
        if train is None:
            return [flow]
        if self.columns_.is_mixed or self.columns_.missing != "error":
            return [flow, evaluate_independent(self.columns_.columns, self._check(train), rows)]
        return [flow, *evaluate_baselines(self._check(train), rows, random_state)]

    def _check_parameters(self) -> None:
        check_parameters(self)

    def _check_fit(self, X, y, sample_weight) -> Given:
        warn_of_target(y)
        # Attributes change when the fit has ended: until then another one takes note of the columns.
        other = type(self)()
        rows, table = check_table(X, other, None if self.columns == "auto" else self.columns, self.missing)
        weight = check_weight(sample_weight, rows)
        check_varied(rows, weight, getattr(other, "feature_names_in_", None), table)
        warn_of_fixed(rows, weight, table)
        noted = {name: value for name, value in vars(other).items() if name.endswith("_in_")}
        has_masses = table.is_mixed or bool(np.isnan(rows).any())
        merged = merge_copies(rows, weight, table.are_masses(rows) if has_masses else None)
        return Given(*merged, (rows, weight), {**noted, "columns_": table})

    def _check(self, X) -> np.ndarray:
        check_is_fitted(self)
        rows = check_rows(X, self)
        check_present(rows, self.columns_, range(rows.shape[1]))
        return rows

    def _as_given(self, rows: np.ndarray) -> Any:
        return self.columns_.frame(rows)

    def _check_points(self, Z) -> np.ndarray:
        return check_points(Z, self.n_features_in_)

    def _plan(self, shape: tuple[int, ...], columns: Columns | None = None) -> Plan:
        if columns is None or not columns.is_mixed:
            return resolve(self, *shape)
        return resolve_mixed(self, shape[0], columns)

    def _stages(self, given: Given) -> list[Stage]:
        rows, columns = given.rows, cast(Columns, given.columns["columns_"])
        if columns.missing == "ignore":
            plan = resolve_subsets(self, len(rows), columns, has_joint=False)
            if not np.isnan(rows).any():
                return [Stage("flow_", plan)]
            first, second = in_two(plan, self, rows)
            return [Stage("flow_", first, "gaps left out", _FIRST), Stage("flow_", second, "gaps filled")]
        plan = self._plan(rows.shape, columns)
        if not self.conditionals:
            return [Stage("flow_", plan)]
        more = resolve_subsets(self, len(rows), columns, has_joint=True)
        return [Stage("flow_", plan, "density", _FIRST), Stage("subsets_", more, "conditionals")]

    def _keep(self, name: str, candidate: Candidate, plan: Plan, given: Given, seed: int, seconds: float) -> None:
        if name == "flow_":
            super()._keep(name, candidate, plan, given, seed, seconds)
            return
        self.subsets_ = candidate.best()
        self.facts_["subsets"] = {
            "preprocess": candidate.preprocess,
            **build_facts(candidate.prepared.build),
            "steps": int(candidate.trainer.state.step),
            "best_step": candidate.trainer.best_step,
            "validation_nll": candidate.trainer.best_nll,
        }
        self.facts_["seconds"] = round(seconds, 3)

    def _split(self, given: Given, plan: Plan, seed: int) -> Split:
        columns = given.columns["columns_"].columns
        return split_rows(given.rows, given.weight, self.validation_fraction, plan.validation_size, seed, columns)

    def _facts_of_data(self, given: Given) -> dict[str, Any]:
        return {"columns": given.rows.shape[1]}

    _num_drawn = 1000

    # What reads files is imported where one is read: it takes a quarter of a second.

    def _read(self, file, *, columns=None, drop_missing: bool = False, names=None, some: bool = False) -> Any:
        """Return rows of a file: of all columns, of those of some names, or of `some`, those that it has."""
        from .data import read_rows_of

        return read_rows_of(self, file, columns=columns, drop_missing=drop_missing, names=names, some=some)

    def _check_output(self, file) -> None:
        from .data import check_output

        check_output(file, self.columns_.arrow(np.zeros((1, self.n_features_in_))).schema)

    def _write(self, file, drawn: np.ndarray, number: np.ndarray | None = None) -> None:
        """Write rows of numbers to a file, behind the number of the draw of each where it is told."""
        from .data import column_names, write_table

        table = self.columns_.arrow(drawn).rename_columns(column_names(self))
        write_table(file, table if number is None else table.add_column(0, "draw", [number]))

    def _named(self, names) -> list:
        """Return names of columns, as a file has them, as the estimator does."""
        from .data import column_names

        known = column_names(self)
        is_named = hasattr(self, "feature_names_in_")
        return [known.index(name) if not is_named and name in known else name for name in names]

    def _lines(self, found: list[Likelihood]) -> str:
        return table_of(found, self.n_features_in_)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_in_

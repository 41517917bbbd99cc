"""The friendly layer: density estimation as a scikit-learn estimator."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._copies import merge_copies
from ._defaults import check_parameters, resolve, resolve_mixed
from ._estimator import AbstractFlowEstimator, Given
from ._splits import Split, split_rows
from ._tables import check_points, check_rows, check_table, check_varied, check_weight, warn_of_fixed
from .metrics import Likelihood, evaluate_baselines, evaluate_independent, likelihood, table_of
from .mixed import Columns
from .selection import Plan

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
        ``"flow_matching"`` (regression on paths; no ODE is solved in training) or ``"likelihood"``.
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
        Number of training steps.
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

    Attributes
    ----------
    flow_ : Density
        The density, in JAX: its core is a flow, its frame is what is done to rows before it.
    history_ : dict of lists
        Steps, seconds, training loss, evaluations of the field per row, skipped steps, validation NLL.
    facts_ : dict
        What was chosen, and by which figures: where ``validation_is_exact`` is False, as on many columns, their
        divergence was estimated, by one Hutchinson probe a row.
    columns_ : Columns
        What the columns are, and why, and by which measure a log-probability is one: ``print(density)`` says it.
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

    def __str__(self) -> str:
        """Return what the estimator is, and of a fitted one what its columns are, by a measure each."""
        table = getattr(self, "columns_", None)
        if table is None:
            return repr(self)
        lines = str(table).splitlines()
        more = [f"and {len(lines) - _MOST_SHOWN} more, in columns_"] if len(lines) > _MOST_SHOWN else []
        return "\n".join([repr(self), f"fitted to {self.facts_['rows']} rows of", *lines[:_MOST_SHOWN], *more])

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
        if self.columns_.is_mixed:
            return [flow, evaluate_independent(self.columns_.columns, self._check(train), rows)]
        return [flow, *evaluate_baselines(self._check(train), rows, random_state)]

    def _check_parameters(self) -> None:
        check_parameters(self)

    def _check_fit(self, X, sample_weight) -> Given:
        # Attributes change when the fit has ended: until then another one takes note of the columns.
        other = type(self)()
        rows, table = check_table(X, other, None if self.columns == "auto" else self.columns)
        weight = check_weight(sample_weight, rows)
        check_varied(rows, weight, getattr(other, "feature_names_in_", None), table)
        warn_of_fixed(rows, weight, table)
        noted = {name: value for name, value in vars(other).items() if name.endswith("_in_")}
        merged = merge_copies(rows, weight, table.are_masses(rows) if table.is_mixed else None)
        return Given(*merged, (rows, weight), {**noted, "columns_": table})

    def _check(self, X) -> np.ndarray:
        check_is_fitted(self)
        return check_rows(X, self)

    def _as_given(self, rows: np.ndarray) -> Any:
        return self.columns_.frame(rows)

    def _check_points(self, Z) -> np.ndarray:
        return check_points(Z, self.n_features_in_)

    def _plan(self, shape: tuple[int, ...], columns: Columns | None = None) -> Plan:
        if columns is None or not columns.is_mixed:
            return resolve(self, *shape)
        return resolve_mixed(self, shape[0], columns)

    def _split(self, given: Given, plan: Plan, seed: int) -> Split:
        columns = given.columns["columns_"].columns
        return split_rows(given.rows, given.weight, self.validation_fraction, plan.validation_size, seed, columns)

    def _facts_of_data(self, given: Given) -> dict[str, Any]:
        return {"columns": given.rows.shape[1]}

    _num_drawn = 1000

    # What reads files is imported where one is read: it takes a quarter of a second.

    def _read(self, file, *, columns=None, drop_missing: bool = False) -> Any:
        from .data import column_names, read_rows

        chosen: dict[str, Any] = {"columns": columns, "drop_missing": drop_missing, "texts": self.columns_.texts}
        table = read_rows(file, column_names(self), **chosen)
        return table.frame() if hasattr(self, "feature_names_in_") else table.values

    def _check_output(self, file) -> None:
        from .data import check_output

        check_output(file, self.columns_.arrow(np.zeros((1, self.n_features_in_))).schema)

    def _write(self, file, drawn: np.ndarray) -> None:
        from .data import column_names, write_table

        write_table(file, self.columns_.arrow(drawn).rename_columns(column_names(self)))

    def _lines(self, found: list[Likelihood]) -> str:
        return table_of(found, self.n_features_in_)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_in_

"""The friendly layer: density estimation as a scikit-learn estimator."""

import dataclasses
import numbers
import time
from functools import partial
from typing import Literal, overload

import jax
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from . import evaluation, flows
from ._copies import merge_copies
from ._defaults import (
    Settings,
    check_count,
    check_parameters,
    check_time,
    resolve,
    rng_of,
    seed_of,
    validation_goals,
)
from ._fitting import TrainingFile, run_fit, warn_of_few_steps
from ._model_file import SavedMixin, portable_params, recipe_facts
from ._progress import progress_bar, told
from ._splits import FEWEST_ROWS, split_rows
from ._tables import check_frame, check_points, check_varied, check_weight, warn_of_target
from ._types import in_default_precision
from .bespoke import fit_steps
from .bijections import CNF, map_integrators
from .density import Density
from .distributions import AbstractDistribution
from .divergences import Hutchinson
from .frames import candidates
from .selection import Candidate, Race, Split, prepare
from .training import Budget, Trainer, TrainingData


class FlowDensity(SavedMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """Density of a table, learned as a continuous normalizing flow.

    Nothing needs to be tuned: what is None or ``"auto"`` is set from the number of rows and columns, or
    decided by a short race on the exact log-likelihood of held-out rows.

    Parameters
    ----------
    recipe
        How a paper puts the parts together, by name: a key of ``liouville.flows.RECIPES``. What is None below is the
        recipe's.
    objective
        ``"flow_matching"`` (regression on paths; no ODE is solved in training) or ``"likelihood"``.
    vector_field
        ``"mlp"``, ``"concat_squash"``, or another key of ``liouville.flows.VECTOR_FIELDS``.
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
        that wins a race. All are closed forms inside the flow: densities stay in the data's own units.
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

    Attributes
    ----------
    flow_ : Density
        The density, in JAX: its core is a flow, its frame is what is done to rows before it.
    history_ : dict of lists
        Steps, seconds, training loss, evaluations of the field per row, skipped steps, validation NLL.
    facts_ : dict
        What was chosen, and by which figures: where ``validation_is_exact`` is False, as on many columns, their
        divergence was estimated, by one Hutchinson probe a row.
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

    def fit(self, X, y=None, *, sample_weight=None, callback=None) -> "FlowDensity":
        """Learn the density of the rows of a table.

        An interrupt (Ctrl-C) is passed on, with the estimator fitted by the best weights so far, where there was a
        step. What is raised otherwise leaves the estimator as it was.

        Parameters
        ----------
        X
            Table of shape ``(n, d)``: an array, or a data frame with named columns. Masked cells are missing values.
        y
            Ignored, with a warning where it holds numbers.
        sample_weight
            Weights of the rows, of shape ``(n,)``: a row of weight 2 counts like two. Equal rows are one row with the
            sum of their weights: none is held out while another is trained on.
        callback
            Called with step, loss and a function that returns the flow (see `liouville.callbacks`), about twice
            a second, or None. Where it returns True, training ends there as it does at its last step: validated, and
            fitted by the best weights.

        Returns
        -------
        FlowDensity
            The estimator itself.

        Raises
        ------
        DataError
            Where a value is missing or infinite, a cell is so far out that its column hardly varies beside it, a column
            is constant or a combination of others, or there are not more rows than columns; the message names rows and
            columns.
        SolveError
            Where training cannot recover.
        """
        started = time.perf_counter()
        check_parameters(self)
        warn_of_target(y)
        # Attributes change when the fit has ended: until then another one takes note of the columns.
        columns = type(self)()
        X = check_frame(X, columns, reset=True)
        weight = check_weight(sample_weight, X)
        check_varied(X, weight, getattr(columns, "feature_names_in_", None))
        seed = seed_of(self.random_state)
        rows, shares = merge_copies(X, weight)
        settings = resolve(self, *rows.shape)
        split = split_rows(rows, shares, self.validation_fraction, settings.validation_rows, seed)
        identity = {"parameters": portable_params(self), "rows": len(X), "seed": seed}
        file = TrainingFile(self.checkpoint, identity, X, weight)

        def take(candidate: Candidate) -> None:
            self._keep(candidate, settings, columns, len(X), seed, time.perf_counter() - started)

        # By heart is all that a flow could learn of so few rows.
        few = len(split.rows) < FEWEST_ROWS
        with progress_bar(self.verbose) as watch:
            race = self._race(split, settings, few, seed, started, partial(told, watch, callback))
            goals = (lambda trainer: ()) if few else validation_goals
            run_fit(race, goals, file, take, settings.longest)
        warn_of_few_steps(race, self.max_seconds, started)
        return self

    def _race(self, split: Split, settings: Settings, few: bool, seed: int, started: float, told) -> Race:
        deadline = None if self.max_seconds is None else started + self.max_seconds
        budget = Budget(settings.max_iter, deadline)

        def make_trainer(data: TrainingData, validate) -> Trainer:
            return Trainer(
                settings.recipe, settings.objective, data, validate, options=settings.options, budget=budget, seed=seed
            )

        judge = settings.validation_divergence
        kinds = candidates(settings.recipe.size) if self.preprocess == "auto" else [self.preprocess]
        return Race(kinds[:1] if few else kinds, lambda kind: told(prepare(kind, split, judge, make_trainer)))

    def _keep(
        self, candidate: Candidate, settings: Settings, columns: "FlowDensity", num_rows: int, seed: int, seconds: float
    ) -> None:
        trainer = candidate.trainer
        self.__dict__.pop("feature_names_in_", None)
        vars(self).update({name: value for name, value in vars(columns).items() if name.endswith("_in_")})
        self.flow_ = candidate.density(trainer.best_params)
        self._steps_by_error = {}
        self.history_, self.n_iter_ = dict(trainer.history), int(trainer.state.step)
        self.facts_ = {
            "rows": num_rows,
            "columns": settings.recipe.size,
            "preprocess": candidate.kind,
            "recipe": self.recipe,
            # All that the flow is built by: a file does not ask what the recipe's defaults are when it is read.
            **recipe_facts(settings.recipe),
            "batch_size": settings.options.batch_size,
            "learning_rate": settings.options.learning_rate,
            "weight_decay": settings.options.weight_decay,
            "steps": int(trainer.state.step),
            "best_step": trainer.best_step,
            "validation_nll": trainer.best_nll,
            "validation_is_exact": settings.validation_divergence.is_exact,
            "skipped_steps": int(trainer.state.skipped),
            "seconds": round(seconds, 3),
            "seed": seed,
        }

    @overload
    def score_samples(
        self, X, *, time=..., error=..., return_info: Literal[False] = ..., num_probes=..., random_state=...
    ) -> np.ndarray: ...
    @overload
    def score_samples(
        self, X, *, time=..., error=..., return_info: Literal[True], num_probes=..., random_state=...
    ) -> tuple[np.ndarray, evaluation.EvaluationInfo]: ...
    def score_samples(
        self,
        X,
        *,
        time: float = 1.0,
        error: float | None = None,
        return_info: bool = False,
        num_probes: int | None = None,
        random_state=0,
    ):
        """Return the log-density of each row, in nats, in the data's own units.

        Exact up to the solver's tolerance (see `certify`), and the same whatever rows come with it.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)``.
        time
            Time of the flow at which the density is asked for, from 0, where it is the base's in the data's units, to
            1, where it is the data's. Of continuous flows alone.
        error
            Mean error of a log-density, in nats, that is good enough, for example 1e-3: a few steps are then fitted to
            the flow, once, which takes some seconds, and long tables are scored several times as fast. Rows that
            are less likely than nearly all of the flow's own are solved as without it. None solves at `rtol`, `atol`.
        return_info
            True also returns status, costs and standard error of each row's solve.
        num_probes
            A number estimates the divergence by as many Hutchinson probes instead of computing it.
        random_state
            Seed of the probes.

        Returns
        -------
        ndarray of shape (n,)
            Log-densities; NaN, with a warning that names the first such row, where the solve failed.
        EvaluationInfo
            Only with `return_info`.
        """
        X = self._check_rows(X)
        if check_time(time) != 1 and error is not None:
            raise ValueError(
                f"Expected no error with time={time!r}, got {error!r}: steps are fitted to the whole way; try one of "
                "the two."
            )
        if num_probes is not None and error is not None:
            raise ValueError(
                f"Expected no error with num_probes, got {error!r}: what probes estimate has an error of its own; try "
                "one of the two."
            )
        flow = self._flow(error)
        if time != 1:
            flow = flows.until(flow, time)
        if num_probes is not None:
            flow = flows.with_divergence(flow, Hutchinson(num_probes=check_count("num_probes", num_probes)))
        log_prob, info = evaluation.score(flow, X, seed=seed_of(random_state))
        evaluation.warn_of_failures(info)
        return (log_prob, info) if return_info else log_prob

    def score(self, X, y=None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the mean log-density of the rows, in nats.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)``.
        y
            Ignored.
        """
        return float(np.mean(self.score_samples(X)))

    def sample(self, n: int = 1, random_state=None, *, error: float | None = None) -> np.ndarray:
        """Draw rows.

        Parameters
        ----------
        n
            Number of rows.
        random_state
            Seed; the same seed draws the same rows, and fewer rows are the first of many.
        error
            Mean error of a row's coordinates, in standard deviations, that is good enough, for example 1e-3: many rows
            are then drawn several times as fast, as `score_samples` says.

        Returns
        -------
        ndarray of shape (n, d)
            The rows, in the data's units; NaN where a solve failed, with a warning.
        """
        flow = self._flow(error)
        rows, info = evaluation.sample(flow, check_count("n", n), seed=seed_of(random_state))
        evaluation.warn_of_failures(info)
        return rows

    def sample_with_log_prob(self, n: int = 1, random_state=None) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows as `sample` does, and return them with their log-densities in nats.

        Parameters
        ----------
        n
            Number of rows.
        random_state
            Seed.
        """
        rows = self.sample(n, random_state)
        return rows, evaluation.score(self._flow(), rows)[0]

    def transform(self, X) -> np.ndarray:
        """Map rows to the base's coordinates, in which the data are standard normal.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)``.
        """
        X = self._check_rows(X)
        return evaluation.to_base(self._flow(), X)

    def inverse_transform(self, Z) -> np.ndarray:
        """Map points of the base to rows: the inverse of `transform`.

        Parameters
        ----------
        Z
            Points of shape ``(n, d)``.
        """
        flow = self._flow()
        return evaluation.from_base(flow, check_points(Z, self.n_features_in_))

    def trajectory(self, X, num_times: int = 100) -> np.ndarray:
        """Return the paths along which the flow carries base points to rows.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)`` in which the paths end.
        num_times
            Number of equal times from 0 (base) to 1 (data).

        Returns
        -------
        ndarray of shape (num_times, n, d)
            Points in the data's units; the last are the rows themselves.
        """
        X = self._check_rows(X)
        check_count("num_times", num_times, least=2)
        return evaluation.paths(self._flow(), X, num_times)

    def score_gradient(self, X) -> np.ndarray:
        """Return the gradient of the log-density with respect to the row, in nats per unit of each column.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)``.
        """
        X = self._check_rows(X)
        return evaluation.gradient(self._flow(), X)

    def certify(self, X, num_rows: int = 200, random_state=0, *, error: float | None = None) -> evaluation.Certificate:
        """Solve a subsample again at a tenth of the tolerance, and say how far its log-densities move.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)``.
        num_rows
            Size of the subsample.
        random_state
            Seed that chooses it.
        error
            What `score_samples` is called with.
        """
        X, flow = self._check_rows(X), self._flow(error)
        chosen = rng_of(random_state).permutation(len(X))[: check_count("num_rows", num_rows)]
        return evaluation.certify(flow, flows.with_tolerance(self.flow_, 0.1), X[chosen])

    def log_prob_fn(self, *, error: float | None = None):
        """Return the log-density as a pure JAX function of an array of shape ``(..., d)``.

        It can be jitted and mapped, and runs in JAX's precision throughout: columns that are far from zero for their
        spread keep more digits in `score_samples`.

        Parameters
        ----------
        error
            None solves at `rtol`, `atol`, and can be differentiated once, backwards (`jax.grad`). A number, for example
            1e-3, takes the few steps that are fitted to the flow (see `score_samples`), whose mean error that is, and
            can be differentiated any number of times in either mode (`jax.hessian`, `jax.jvp`); on points that are less
            likely than nearly all of the flow's own its error is not known.

        Returns
        -------
        Callable
            Function of an array of shape ``(..., d)`` that returns nats, of shape ``(...)``.
        """
        flow = self._flow(error)
        steps = flow.steps
        if steps is not None:
            flow = map_integrators(lambda _: steps.score, self.flow_)
        return jax.tree_util.Partial(AbstractDistribution.log_prob, in_default_precision(flow))

    def _check_rows(self, X, reset: bool = False) -> np.ndarray:
        if not reset:
            check_is_fitted(self)
        return check_frame(X, self, reset=reset)

    def _flow(self, error: float | None = None) -> Density:
        """Return the density; with the steps that keep a mean error, fitted at the first call, where it is solved."""
        check_is_fitted(self)
        if error is None:
            return self.flow_
        if not isinstance(error, numbers.Real) or not error > 0:
            raise ValueError(f"Expected a positive error, got {error!r}; try error=1e-3.")
        if error not in self._steps_by_error and isinstance(self.flow_.core.bijection, CNF):
            self._steps_by_error[error] = fit_steps(self.flow_.core, error)
        return dataclasses.replace(self.flow_, steps=self._steps_by_error.get(error))

    @property
    def _n_features_out(self) -> int:
        return self.n_features_in_

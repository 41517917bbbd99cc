"""What a fitted density of rows, or of pictures, is asked for."""

import abc
import dataclasses
import numbers
import time
from typing import Any, ClassVar, Literal, Self, overload

import jax
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from . import evaluation, flows
from ._defaults import check_count, check_time, rng_of, seed_of
from ._fitted import AbstractFitted
from ._fitting import Given
from ._tables import has_flow
from ._types import in_default_precision
from .bespoke import FittedSteps, fit_steps
from .bijections import CNF, map_integrators
from .density import Density
from .distributions import AbstractDistribution
from .divergences import Exact, Hutchinson

# Steps are fitted to paths of as many rows, drawn anew.
_NUM_CONDITIONS = 640


class AbstractFlowEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, AbstractFitted, abc.ABC):
    """A density that is learned as a flow."""

    @abc.abstractmethod
    def _check_fit(self, X, y, sample_weight) -> Given:
        """Return the data of a fit, or raise where there is no density to learn of them."""

    @abc.abstractmethod
    def _check(self, X) -> np.ndarray:
        """Return data for the fitted density."""

    @abc.abstractmethod
    def _check_points(self, Z) -> np.ndarray:
        """Return points of the base."""

    def _condition(self, y, num: int) -> np.ndarray | None:
        """Return what each of so many rows is conditioned on: of a table nothing, whatever scikit-learn passes as y."""
        return None

    _num_drawn: ClassVar[int]

    @abc.abstractmethod
    def _read(self, file) -> Any:
        """Return what a file holds, as the fitted density takes it; keywords say what else may be chosen."""

    @abc.abstractmethod
    def _check_output(self, file) -> None:
        """Raise where draws could not be written to a file, or for None to standard output."""

    @abc.abstractmethod
    def _write(self, file, drawn: np.ndarray) -> None:
        """Write rows of numbers, or pictures, that were drawn to a file, or for None to standard output."""

    @abc.abstractmethod
    def _lines(self, found: Any) -> str:
        """Return as lines of text what `evaluate` found."""

    def fit(self, X, y=None, *, sample_weight=None, callback=None) -> Self:
        """Learn the density of data.

        An interrupt (Ctrl-C) is passed on, with the estimator fitted by the best weights so far, where there was a
        step. What is raised otherwise leaves the estimator as it was.

        Parameters
        ----------
        X
            A table of shape ``(n, d)``: an array, or a data frame with named columns; masked cells are missing values.
            Of pictures whole numbers from 0 on, as bytes, of shape ``(n, height, width)`` or
            ``(n, height, width, channels)`` (`liouville.data.read_pictures`).
        y
            What each picture is given, if anything: its class, an array of whole numbers or of text; numbers, an array
            of floats of shape ``(n,)`` or ``(n, k)``; or a data frame of columns of any kinds. What is learned is then
            the density of pictures given `y`. Of a table it is ignored, with a warning where it holds numbers.
        sample_weight
            Weights of shape ``(n,)``: a row of weight 2 counts like two. Equal rows are one row with the sum of their
            weights: none is held out while another is trained on.
        callback
            Called with step, loss and a function that returns the density (see `liouville.callbacks`), about twice
            a second, or None. Where it returns True, training ends there as it does at its last step: validated, and
            fitted by the best weights. Where a fit has two trainings, that is of the one at hand, and conditionals are
            learned without it.

        Returns
        -------
        Self
            The estimator itself.

        Raises
        ------
        DataError
            Where there is no density to learn: a value is missing or infinite, a cell is so far out that its column
            hardly varies beside it, a column is constant or a combination of others, there are not more rows than
            columns, or a picture has other levels; the message names rows, columns and pictures.
        SolveError
            Where training cannot recover.
        """
        started = time.perf_counter()
        self._check_parameters()
        return self._fit(self._check_fit(X, y, sample_weight), started, callback)

    @overload
    def score_samples(
        self,
        X,
        y=...,
        *,
        time=...,
        error=...,
        num_draws=...,
        num_probes=...,
        return_info: Literal[False] = ...,
        random_state=...,
    ) -> np.ndarray: ...
    @overload
    def score_samples(
        self,
        X,
        y=...,
        *,
        time=...,
        error=...,
        num_draws=...,
        num_probes=...,
        return_info: Literal[True],
        random_state=...,
    ) -> tuple[np.ndarray, evaluation.EvaluationInfo]: ...
    def score_samples(
        self,
        X,
        y=None,
        *,
        time: float = 1.0,
        error: float | None = None,
        num_draws: int = 1,
        num_probes: int | str | None = "auto",
        return_info: bool = False,
        random_state=0,
    ):
        """Return the log-density of each row, in nats, in the data's own units; of pictures a bound of the probability.

        The same whatever rows come with it. With an exact divergence it is exact up to the solver's tolerance (see
        `certify`), of a table; noise makes it a lower bound in expectation, of pictures.

        Parameters
        ----------
        X
            Data, as `fit` takes them.
        y
            Of pictures what they are given, where the fit has had it (see `fit`); of a table it is ignored.
        time
            Time of the flow at which the density is asked for, from 0, where it is the base's in the data's units, to
            1, where it is the data's. Of continuous flows alone.
        error
            Mean error of a log-density, in nats, that is good enough, for example 1e-3: a few steps are then fitted to
            the flow, once, which takes some seconds, and long tables are scored several times as fast. Rows that
            are less likely than nearly all of the flow's own are solved as without it. None solves at `rtol`, `atol`.
        num_draws
            Draws of the noise of pictures; with several, the importance-weighted bound (Burda and others, 2016,
            equation 8). A table has none.
        num_probes
            A number estimates the divergence by as many Hutchinson probes; None computes it, which takes as many
            products as a row has numbers; ``"auto"`` is exact on tables, and one probe on pictures.
        return_info
            True also returns status, costs and standard error of each row's solves.
        random_state
            Seed of noise and probes.

        Returns
        -------
        ndarray of shape (n,)
            Log-densities; NaN, with a warning that names the first such row, where the solve failed.
        EvaluationInfo
            Only with `return_info`.
        """
        rows = self._check(X)
        condition = self._condition(y, len(rows))
        check_count("num_draws", num_draws)
        if check_time(time) != 1 and error is not None:
            raise ValueError(
                f"Expected no error with time={time!r}, got {error!r}: steps are fitted to the whole way; try one of "
                "the two."
            )
        if num_probes not in (None, "auto") and error is not None:
            raise ValueError(
                f"Expected no error with num_probes, got {error!r}: what probes estimate has an error of its own; try "
                "one of the two."
            )
        flow = self._flow(error)
        if time != 1:
            flow = flows.until(flow, time)
        log_prob, info = self._score(flow, rows, condition, num_draws, num_probes, random_state)
        evaluation.warn_of_failures(info)
        return (log_prob, info) if return_info else log_prob

    def score(self, X, y=None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the mean of `score_samples`, in nats.

        Parameters
        ----------
        X
            Data, as `fit` takes them.
        y
            Of pictures what they are given, where the fit has had it (see `fit`); of a table it is ignored.
        """
        return float(np.mean(self.score_samples(X, y)))

    def sample(self, n: int = 1, random_state=None, *, error: float | None = None) -> np.ndarray:
        """Draw rows, or pictures.

        Parameters
        ----------
        n
            How many.
        random_state
            Seed; the same seed draws the same ones, and fewer are the first of many.
        error
            Mean error of a drawn coordinate, in standard deviations, that is good enough, for example 1e-3: many rows
            are then drawn several times as fast, as `score_samples` says.

        Returns
        -------
        ndarray of shape (n, d), or (n, height, width, channels)
            In the data's units, NaN where a solve failed; pictures are bytes, black there. A warning says so.
        """
        return self._as_given(self._draw(n, random_state, error))

    def _draw(
        self, n: int, random_state: Any = None, error: float | None = None, condition: np.ndarray | None = None
    ) -> np.ndarray:
        """Draw rows of numbers, or pictures."""
        rows, info = evaluation.sample(self._flow(error), check_count("n", n), condition, seed=seed_of(random_state))
        evaluation.warn_of_failures(info)
        return rows

    def _as_given(self, rows: np.ndarray) -> Any:
        """Return rows of numbers in the form of the data of the fit."""
        return rows

    def sample_with_log_prob(self, n: int = 1, random_state=None, *, y=None) -> tuple[np.ndarray, np.ndarray]:
        """Draw as `sample` does, and return what is drawn with its log-density in nats, as `score_samples` has it.

        Parameters
        ----------
        n
            How many.
        random_state
            Seed.
        y
            Of pictures what they are given, where the fit has had it (see `fit`); of a table it is ignored.
        """
        flow, condition = self._flow(), self._condition(y, check_count("n", n))
        rows = self._draw(n, random_state, condition=condition)
        return self._as_given(rows), self._score(flow, rows, condition)[0]

    def transform(self, X, y=None) -> np.ndarray:
        """Map data to the base's coordinates, in which they are standard normal; pictures with noise of seed 0.

        Parameters
        ----------
        X
            Data, as `fit` takes them.
        y
            Of pictures what they are given, where the fit has had it (see `fit`); of a table it is ignored.
        """
        rows = self._check(X)
        return evaluation.to_base(self._flow(), rows, self._condition(y, len(rows)))

    def inverse_transform(self, Z, y=None) -> np.ndarray:
        """Map points of the base to data: the inverse of `transform`.

        Parameters
        ----------
        Z
            Points, of the shape of the data.
        y
            Of pictures what they are given, where the fit has had it (see `fit`); of a table it is ignored.
        """
        flow, points = self._flow(), self._check_points(Z)
        return evaluation.from_base(flow, points, self._condition(y, len(points)))

    def trajectory(self, X, num_times: int = 100, *, y=None) -> np.ndarray:
        """Return the paths along which the flow carries base points to data.

        Parameters
        ----------
        X
            Data in which the paths end.
        num_times
            Number of equal times from 0 (base) to 1 (data).
        y
            Of pictures what they are given, where the fit has had it (see `fit`); of a table it is ignored.

        Returns
        -------
        ndarray of shape (num_times, n, d), or (num_times, n, height, width, channels)
            Points in the data's units; the last are the data themselves.
        """
        rows = self._check(X)
        check_count("num_times", num_times, least=2)
        return evaluation.paths(self._flow(), rows, num_times, self._condition(y, len(rows)))

    def score_gradient(self, X) -> np.ndarray:
        """Return the gradient of the log-density with respect to the row, in nats per unit of each column.

        Parameters
        ----------
        X
            Rows of shape ``(n, d)``.

        Raises
        ------
        TypeError
            Of pictures: whole numbers have no gradient.
        """
        rows = self._check(X)
        return evaluation.gradient(self._flow(), rows)

    def certify(
        self, X, num_rows: int = 200, random_state=0, *, error: float | None = None, y=None
    ) -> evaluation.Certificate:
        """Solve a subsample again at a tenth of the tolerance, and say how far its log-densities move.

        Parameters
        ----------
        X
            Data, as `fit` takes them.
        num_rows
            Size of the subsample.
        random_state
            Seed that chooses it.
        error
            What `score_samples` is called with.
        y
            Of pictures what they are given, where the fit has had it (see `fit`); of a table it is ignored.
        """
        rows, num_rows, flow = self._check(X), check_count("num_rows", num_rows), self._flow(error)
        condition, chosen = self._condition(y, len(rows)), rng_of(random_state).permutation(len(rows))[:num_rows]
        # Both by the same divergence: what moves should be the solve alone.
        probes = "auto" if flow.steps is None else None
        solved, tight = (self._with_probes(f, probes) for f in (flow, flows.with_tolerance(self.flow_, 0.1)))
        return evaluation.certify(solved, tight, rows[chosen], None if condition is None else condition[chosen])

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
            Function of an array of shape ``(..., d)``, of pictures of ``(..., height, width, channels)`` and ``key=``,
            that returns nats, of shape ``(...)``.

        Raises
        ------
        ValueError
            Of pictures given something: what that is is no array of JAX's.
        """
        flow = self._flow(error)
        if flow.needs_condition:
            raise ValueError("Expected a density of data that are given nothing, got one given y; try score_samples.")
        steps = flow.steps
        if steps is not None:
            flow = dataclasses.replace(flow, core=map_integrators(lambda _: steps.score, flow.core), steps=None)
        return jax.tree_util.Partial(AbstractDistribution.log_prob, in_default_precision(flow))

    def _score(
        self,
        flow: Density,
        rows: np.ndarray,
        condition: np.ndarray | None = None,
        num_draws: int = 1,
        num_probes: Any = "auto",
        random_state: Any = 0,
    ) -> tuple[np.ndarray, evaluation.EvaluationInfo]:
        """Score rows that were checked by what is fitted, or what is made of it."""
        flow = self._with_probes(flow, num_probes)
        return evaluation.score(flow, rows, condition, seed=seed_of(random_state), num_draws=num_draws)

    def _with_probes(self, flow: Density, num_probes: Any) -> Density:
        """Return the density with the divergence that is asked for; exact is what a flow is built with."""
        if isinstance(num_probes, str) and num_probes == "auto":
            # Pictures have so many numbers that an exact one is dear.
            num_probes = None if flow.steps is not None or flow.frame.noise is None else 1
        if num_probes is None:
            return flow if flow.frame.noise is None else flows.with_divergence(flow, Exact())
        return flows.with_divergence(flow, Hutchinson(num_probes=check_count("num_probes", num_probes)))

    def _flow(self, error: float | None = None) -> Density:
        """Return the density; with the steps that keep a mean error, fitted at the first call, where it is solved."""
        check_is_fitted(self)
        if error is None:
            return self.flow_
        if not isinstance(error, numbers.Real) or not error > 0:
            raise ValueError(f"Expected a positive error, got {error!r}; try error=1e-3.")
        if error not in self._steps_by_error:
            self._steps_by_error[error] = self._fit_steps(error)
        return dataclasses.replace(self.flow_, steps=self._steps_by_error[error])

    def _fit_steps(self, error: float) -> FittedSteps | None:
        """Return steps that keep a mean error, or None where nothing is solved."""
        flow, condition = self.flow_.core.solved_part(_NUM_CONDITIONS, 0)
        if flow is None or not flow.bijection.is_solved:
            return None
        if not isinstance(flow.bijection, CNF):
            raise ValueError(
                f"Expected a flow of one CNF for error={error!r}, got {type(flow.bijection).__name__} of several; try "
                "error=None."
            )
        if flow.needs_condition and condition is None:
            raise ValueError(
                f"Expected no error with pictures given something, got {error!r}: steps are not fitted to that; try "
                "error=None."
            )
        return fit_steps(flow, error, condition=condition)


# Set here, behind scikit-learn's own wrapper of what transform returns, which would hide whether it is there.
for _name in ("transform", "inverse_transform", "trajectory", "score_gradient", "log_prob_fn"):
    setattr(AbstractFlowEstimator, _name, available_if(has_flow)(getattr(AbstractFlowEstimator, _name)))

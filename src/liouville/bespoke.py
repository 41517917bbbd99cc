"""Solvers that are fitted to one flow: a fixed number of steps, of known error, for long tables.

Each step adds a linear combination of all rates so far. Its weights are those that carry points of the flow along their
paths, as an accurate solve knows them: least squares, step by step, each from where the steps before it have come to.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ._errors import SolveError
from ._types import AnyArray
from .bijections import CNF, map_integrators
from .density import FittedSteps as FittedSteps
from .distributions import Transformed, cnf_of
from .integrate import FlowState, Integrator, integrate_flow

# Numbers of evaluations that are tried, paths that steps are fitted to, and paths on which their error is measured.
_NODES = (8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64)
_NUM_FITTED, _NUM_TESTED = 384, 256
# Less likely points than this share of the flow's own are solved by adaptive steps: there are no paths to fit to.
_UNTRUSTED = 0.01
_RIDGE = 1e-8


class Bespoke(diffrax.AbstractSolver):
    """A non-stationary solver: ``x_{i+1} = x_i + sum_{j <= i} a_ij v(t_j, x_j)``, one evaluation a step.

    Shaul and others, Bespoke non-stationary solvers for fast sampling of diffusion and flow models, 2024, equation 9:
    there the weights are trained by gradient descent on the end point, here `fit_steps` finds them in closed form.

    Parameters
    ----------
    weights
        The weights ``a_ij``, lower triangular; the times are those of ``diffrax.StepTo``.
    log_det_weights
        Weights of the divergences at all steps; their sum is added at the last one.

    Examples
    --------
    >>> import jax.numpy as jnp, numpy as np
    >>> from liouville.vector_fields import MLP
    >>> euler = Bespoke(np.eye(4) / 4, np.ones(4) / 4)
    >>> steps = Integrator(euler, diffrax.StepTo(jnp.linspace(0.0, 1.0, 5)))
    >>> flow = CNF(MLP((2,), key=jax.random.key(0)), integrator=steps)
    >>> print(flow.transform(jnp.ones(2)))
    [1. 1.]
    """

    weights: Float[AnyArray, "steps steps"]
    log_det_weights: Float[AnyArray, " steps"]
    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def order(self, terms: PyTree) -> None:
        """Return None: the weights know no order."""
        return

    def init(self, terms, t0, t1, y0: FlowState, args) -> tuple[Int[Array, ""], FlowState]:
        """Return the state of the solver: the number of steps done, and room for the rates."""
        room = lambda part: jnp.zeros((len(self.log_det_weights), *part.shape), part.dtype)
        return jnp.zeros((), jnp.int32), jax.tree.map(room, y0)

    def step(self, terms, t0, t1, y0: FlowState, args, solver_state, made_jump):
        """Do one step."""
        index, rates = solver_state
        rates = jax.tree.map(lambda kept, rate: kept.at[index].set(rate), rates, terms.vf(t0, y0, args))
        weights = jnp.asarray(self.weights, y0.x.dtype)[index]
        log_det = y0.log_det
        if log_det is not None:
            is_last = index == len(self.log_det_weights) - 1
            change = jnp.asarray(self.log_det_weights, log_det.dtype) @ rates.log_det
            log_det = jnp.where(is_last, change, log_det)
        y1 = FlowState(y0.x + jnp.tensordot(weights, rates.x, 1), log_det, y0.penalties)
        return y1, None, {"y0": y0, "y1": y1}, (index + 1, rates), diffrax.RESULTS.successful

    def func(self, terms, t0, y0: FlowState, args) -> FlowState:
        """Return the rates."""
        return terms.vf(t0, y0, args)


def fit_steps(flow: Transformed, error: float, seed: int = 0, condition=None) -> FittedSteps:
    """Return the fewest steps whose mean error on the flow's own points is at most `error`.

    It is a function of the flow alone: no data are asked for but what it is conditioned on.

    Parameters
    ----------
    flow
        A base and a `CNF` with an exact divergence and adaptive steps: its own tolerance must be well below `error`.
    error
        Largest mean error: of the log-density in nats, and of a drawn coordinate in the units of the base.
    seed
        Seed of the points, and of their conditions.
    condition
        What the flow is conditioned on, of shape ``(n, *cond_shape)``, as often as it occurs: each of the points is
        drawn under one of them. None where the flow takes none.

    Raises
    ------
    ValueError
        Where the conditions do not fit the flow, or as many steps as `_NODES` has at most do not reach that error; it
        says which one they reach.
    SolveError
        Where some of the paths to fit to cannot be solved.

    Examples
    --------
    >>> from liouville.flows import FlowSpec
    >>> flow = FlowSpec(2, width=8, depth=1)(jax.random.key(0))
    >>> steps = fit_steps(flow, error=1e-3)
    >>> print(steps.score_error < 1e-3, len(steps.score.solver.log_det_weights))
    True 8
    """
    cnf = cnf_of(flow)
    paths = _record(flow, condition, seed)
    log_prob = paths.base_log_prob - paths.log_det
    # Under some conditions all log-densities are higher than under others: there the base says what is likely.
    of_base = paths.base_log_prob if condition is None else _likelihood(flow, paths.x[:, 0], paths.condition)
    likelihood = log_prob if condition is None else of_base
    least_score, least_sample = (float(np.quantile(p, _UNTRUSTED)) for p in (likelihood, of_base))
    points = paths.points(np.array([cnf.t1]))[:, 0]

    def log_prob_errors(end: np.ndarray, log_det: np.ndarray) -> np.ndarray:
        return np.abs(_log_prob(flow, end, paths.condition) + log_det - log_prob)[_tested(likelihood >= least_score)]

    def point_errors(end: np.ndarray, log_det: np.ndarray) -> np.ndarray:
        return np.abs(end - points)[_tested(of_base >= least_sample)]

    score, score_error = _fewest(cnf, paths, backwards=True, errors=log_prob_errors, most=error)
    sample, sample_error = _fewest(cnf, paths, backwards=False, errors=point_errors, most=error)
    return FittedSteps(score, sample, score_error, sample_error, least_score, least_sample)


def _tested(likely: np.ndarray) -> np.ndarray:
    """Return which paths an error is measured on."""
    return likely & (np.arange(len(likely)) >= _NUM_FITTED)


class _Paths(NamedTuple):
    """Paths from base to data, one a row: times, points and velocities after each step, the last one repeated."""

    t: Float[np.ndarray, "rows steps"]
    x: Float[np.ndarray, "rows steps size"]
    v: Float[np.ndarray, "rows steps size"]
    log_det: Float[np.ndarray, " rows"]
    base_log_prob: Float[np.ndarray, " rows"]
    condition: Float[np.ndarray, "rows *cond_shape"] | None

    def points(self, times: np.ndarray) -> np.ndarray:
        """Return the points at some times, by cubic Hermite interpolation between the steps."""
        rows = np.arange(len(self.t))[:, None]
        left = np.clip((self.t[:, None] <= times[:, None]).sum(-1) - 1, 0, self.t.shape[1] - 2)
        # The last step is repeated: go back to before it.
        left = np.minimum(left, (self.t < self.t[:, -1:]).sum(-1)[:, None] - 1)
        start, length = self.t[rows, left], self.t[rows, left + 1] - self.t[rows, left]
        s, h = ((times - start) / length)[..., None], length[..., None]
        return (
            (1 + 2 * s) * (1 - s) ** 2 * self.x[rows, left]
            + s * (1 - s) ** 2 * h * self.v[rows, left]
            + s**2 * (3 - 2 * s) * self.x[rows, left + 1]
            + s**2 * (s - 1) * h * self.v[rows, left + 1]
        )

    def times(self, num: int) -> np.ndarray:
        """Return the ends of `num` steps that are as dense as those of the paths are, on the average."""
        fine = np.linspace(self.t[0, 0], self.t[0, -1], 4001)
        done = np.sum([np.interp(fine, *_distinct(row)) for row in self.t], axis=0)
        return np.interp(np.linspace(0, 1, num + 1), done / done[-1], fine)


def _distinct(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    last = int(np.argmax(times))
    return times[: last + 1], np.arange(last + 1)


def _record(flow: Transformed, condition, seed: int) -> _Paths:
    """Solve for paths of the flow's own points, at a tenth of its tolerance."""
    cnf, num = cnf_of(flow), _NUM_FITTED + _NUM_TESTED
    flow.check_condition(condition)
    if condition is not None:
        condition = np.asarray(condition, jnp.result_type(float)).reshape(-1, *cast(tuple, flow.cond_shape))
        if not len(condition):
            raise ValueError("Expected a condition or more, got none; try those of the rows that were trained on.")
        condition = condition[np.random.default_rng(seed).integers(len(condition), size=num)]
    tight = map_integrators(lambda integrator: integrator.with_tolerance(0.1), cnf)
    of_base = flow.base_condition(condition)
    z = flow.base.sample(jax.random.key(seed), (num,) if of_base is None else (), of_base)
    end, log_det, times, points = map(np.asarray, _solve_paths(tight, z, condition))
    failed = int(np.isnan(log_det).sum())
    if failed:
        raise SolveError(
            f"Expected all {len(z)} paths that steps are fitted to to arrive, but {failed} did not; try error=None."
        )
    num = int(np.isfinite(times).sum(1).max())
    start = np.full((len(z), 1), cnf.t0, times.dtype)
    t = np.concatenate([start, np.where(np.isfinite(times), times, cnf.t1)[:, :num]], axis=1)
    ends = np.isinf(times).reshape(*times.shape, *[1] * (z.ndim - 1))
    x = np.concatenate([np.asarray(z)[:, None], np.where(ends, end[:, None], points)[:, :num]], axis=1)
    v = np.stack([np.asarray(_rates(cnf, t[:, i], x[:, i], condition)[0]) for i in range(num + 1)], axis=1)
    flat = lambda part: part.reshape(*part.shape[:2], -1).astype(np.float64)
    base_log_prob = _log_prob(flow, flat(x)[:, 0], condition)
    return _Paths(t.astype(np.float64), flat(x), flat(v), log_det.astype(np.float64), base_log_prob, condition)


@eqx.filter_jit
def _solve_paths(cnf: CNF, z: Float[Array, "rows *shape"], condition):
    def solve(z, condition):
        solution = integrate_flow(
            cnf.vector_field, z, t0=cnf.t0, t1=cnf.t1, integrator=cnf.integrator, condition=condition,
            divergence=cnf.divergence, noise=cnf.divergence.init(z, None), save_steps=True,
        )  # fmt: skip
        return solution.x, solution.log_det, solution.times, solution.path

    return jax.vmap(solve)(z, condition)


@eqx.filter_jit
def _rates(cnf: CNF, t: Float[AnyArray, " rows"], x: Float[AnyArray, "rows *shape"], condition):
    """Return velocities and divergences."""

    def rate(t, x, condition):
        estimate = partial(cnf.divergence.linearize, noise=cnf.divergence.init(x, None))
        local = cnf.vector_field.value_and_divergence(t, x, condition, estimate)
        return local.value, local.estimates[0]

    return jax.vmap(rate)(t, x, condition)


def _log_prob(flow: Transformed, points: np.ndarray, condition) -> np.ndarray:
    """Return the base's log-densities."""
    log_prob = flow.base.log_prob(jnp.asarray(points.reshape(-1, *flow.shape)), flow.base_condition(condition))
    return np.asarray(log_prob, np.float64)


def _likelihood(flow: Transformed, points: np.ndarray, condition) -> np.ndarray:
    """Return how likely points of the base are, beside those under all conditions."""
    z = jnp.asarray(points.reshape(-1, *flow.shape), jnp.result_type(float))
    likelihood = jax.vmap(lambda z, c: flow.base._likelihood(z, flow.base_condition(c)))(z, jnp.asarray(condition))
    return np.asarray(likelihood, np.float64)


def _fewest(cnf: CNF, paths: _Paths, backwards: bool, errors: Callable, most: float) -> tuple[Integrator, float]:
    """Return the fewest steps whose error is at most `most`, and that error."""
    sign, found = (-1 if backwards else 1), np.inf
    for num in _NODES:
        times = paths.times(num)[::sign]
        weights, end, divergences = _fit(cnf, paths.points(times), times, paths.condition)
        log_det_weights = _least_squares(divergences[:_NUM_FITTED], sign * paths.log_det[:_NUM_FITTED])
        found = float(np.mean(errors(end, divergences @ log_det_weights)))
        if found <= most:
            times = np.asarray(times, np.result_type(np.float32, cnf.t0))
            steps, solver = diffrax.StepTo(times), Bespoke(weights, log_det_weights)
            # Few steps: gradients go through them in either mode, any number of times.
            return Integrator(solver, steps, diffrax.DirectAdjoint(), max_steps=num), found
    raise ValueError(
        f"Expected an error that {_NODES[-1]} steps can keep, got {most:g}; try error={2 * found:.1g}, or None for "
        "adaptive steps."
    )


def _fit(
    cnf: CNF, path: np.ndarray, times: np.ndarray, condition: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit the weights of steps to points at their ends; return them, where they lead to, and the divergences met."""
    num, x = len(times) - 1, path[:, 0]
    weights, rates, divergences = np.zeros((num, num)), np.empty((*x.shape, num)), np.empty((len(x), num))
    dtype = jnp.result_type(float)
    for i in range(num):
        points = x.reshape(-1, *cnf.shape).astype(dtype)
        velocity, divergences[:, i] = _rates(cnf, np.full(len(x), times[i], dtype), points, condition)
        rates[..., i] = np.asarray(velocity).reshape(x.shape)
        known = rates[:_NUM_FITTED, :, : i + 1].reshape(-1, i + 1)
        weights[i, : i + 1] = _least_squares(known, (path[:, i + 1] - x)[:_NUM_FITTED].ravel())
        x = x + rates[..., : i + 1] @ weights[i, : i + 1]
    return weights, x, divergences


def _least_squares(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the weights of the columns of `known` whose sum is nearest to `wanted`, kept small by a touch of ridge."""
    gram = known.T @ known
    # A field at rest has no rates to combine: the least of all weights are none.
    return np.linalg.lstsq(gram + _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), known.T @ wanted)[0]

"""Evaluating densities on data of any length, with what each row is conditioned on, in chunks (`liouville._chunks`).

What is called `flow` below is a `Density`, whose frame runs on the host, or a flow of points that need none.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ._chunks import chunk_rows, float_dtype, in_chunks, on_device
from ._types import AnyArray, Rows, in_default_precision
from .bijections import CNF, AbstractBijection, Bounded, Invert, Standardize, map_integrators
from .density import Density
from .distributions import Transformed, bijection_of, cnf_of
from .divergences import EXACT_AT_A_TIME
from .frames import AbstractFrame, Frame
from .integrate import STATUS, Integrator, SolveInfo
from .mixed import MaskedNormal
from .regularizers import AbstractRegularizer
from .vector_fields import mask_of

Index = Int[AnyArray, " chunk"]
Flow: TypeAlias = Transformed | Density


class EvaluationInfo(NamedTuple):
    """What the solver says of each row; arrays of one entry per row.

    Attributes
    ----------
    status
        0 where the solve arrived, else an index into `liouville.integrate.STATUS`.
    num_accepted, num_rejected, num_evaluations
        Steps taken, steps rejected, and evaluations of the field.
    std_error
        Standard error of the log-density, in nats: 0 for an exact divergence.
    """

    status: np.ndarray
    num_accepted: np.ndarray
    num_rejected: np.ndarray
    num_evaluations: np.ndarray
    std_error: np.ndarray

    @property
    def messages(self) -> list[str]:
        """Return the status of each row in words."""
        return [STATUS[status] for status in self.status]


class _Found(NamedTuple):
    """What is found of each row, how likely a point it is in the core's coordinates, and how it was solved."""

    values: np.ndarray
    likelihood: np.ndarray
    status: np.ndarray
    num_accepted: np.ndarray
    num_rejected: np.ndarray
    num_evaluations: np.ndarray
    std_error: np.ndarray

    @property
    def info(self) -> EvaluationInfo:
        """Return what the solver says."""
        return EvaluationInfo(*self[2:])


class Certificate(NamedTuple):
    """How far the log-densities of rows move when their ODEs are solved at a tighter tolerance.

    Attributes
    ----------
    num_rows
        Rows that were solved again.
    mean_shift, max_shift
        Mean and largest absolute shift of the log-density, in nats.
    num_failed
        Rows whose solve failed, at either tolerance.
    """

    num_rows: int
    mean_shift: float
    max_shift: float
    num_failed: int


def products_at_a_time(flow: Flow) -> int:
    """Return the products with the Jacobian that a row's divergence takes at once."""
    is_cnf = lambda node: isinstance(node, CNF)
    cnfs = [node for node in jax.tree.leaves(flow, is_leaf=is_cnf) if is_cnf(node)]
    exact = min(int(np.prod(flow.shape)), EXACT_AT_A_TIME)
    return max((exact if cnf.divergence.is_exact else cnf.divergence.num_probes for cnf in cnfs), default=1)


@eqx.filter_jit
def _score_chunk(core: Transformed, rows: Float[AnyArray, "chunk *shape"], condition, index: Index, seed):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(index)

    def one(x, condition, key):
        log_prob, report = core._log_prob_and_report(x, condition, key)
        likelihood = core._likelihood_of(x, condition, log_prob, report)
        return log_prob, likelihood, jnp.sqrt(report.variance), report.info

    return jax.vmap(one)(rows, condition, keys)


@eqx.filter_jit
def _sample_chunk(core: Transformed, condition, index: Index, seed):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(index)

    return jax.vmap(core._sample_and_report)(keys, condition)


@eqx.filter_jit
def _map_chunk(fn: Callable, part, rows: Float[AnyArray, "chunk *shape"], condition, *args):
    return jax.vmap(lambda x, c: fn(part, x, c, *args))(rows, condition)


def in_core(
    fn: Callable,
    part,
    rows: Rows,
    condition: np.ndarray | None,
    *args,
    frame: AbstractFrame | None = None,
    finish: Callable = lambda found, points: found,
    products: int = 1,
) -> np.ndarray:
    """Return ``fn(part, x, condition, *args)`` of each row, which the frame takes to the core's coordinates.

    ``finish(found, points)`` is called on the host with a chunk of what was found, in float64.
    """

    def one_chunk(chunk: Rows, index: np.ndarray):
        points = chunk if frame is None else _encoded(frame, chunk, index)[0]
        found = _map_chunk(fn, part, on_device(points), _of_chunk(condition, index), *args)
        return (finish(np.asarray(found, np.float64), points),)

    return in_chunks(one_chunk, rows, chunk_rows(rows.shape[1:], products))[0]


def _of_chunk(condition: np.ndarray | None, index: np.ndarray) -> np.ndarray | None:
    """Return the conditions of a chunk's rows; what pads the chunk has the last row's."""
    return None if condition is None else on_device(condition[np.minimum(index, len(condition) - 1)])


def _checked(flow: Flow, condition, num: int) -> np.ndarray | None:
    """Return one condition for each of so many rows, or None, refusing what does not fit the flow."""
    flow.check_condition(condition)
    if condition is None:
        return None
    condition, shape = np.asarray(condition, np.float64), flow.cond_shape or ()
    if condition.ndim > len(shape) + 1 or (condition.ndim > len(shape) and len(condition) != num):
        raise ValueError(
            f"Expected conditions for {num} rows, got shape {condition.shape}; try one condition, or one for each row."
        )
    return np.broadcast_to(condition, (num, *shape))


def score(
    flow: Flow, rows: Rows, condition=None, *, seed: int = 0, num_draws: int = 1
) -> tuple[np.ndarray, EvaluationInfo]:
    """Return the log-density of each row, in nats, and what the solver says of it.

    Parameters
    ----------
    flow
        A flow, or a density: one that has fitted steps is solved by them where rows are likely enough.
    rows
        The data; rows are independent of each other. Bytes stay bytes: noise is added to a chunk of them at a time.
    condition
        What each row is conditioned on, of shape ``(n, *cond_shape)``, or one condition for all, or None.
    seed
        Seed of noise and of a stochastic divergence.
    num_draws
        Draws of the noise of whole numbers; with several, the importance-weighted bound.

    Returns
    -------
    log_prob : ndarray of shape (n,), float64
        NaN where the solve failed. Of whole numbers it is a bound of the log-probability.
    info : EvaluationInfo
        Status and cost of each row: over the draws, the worst and the sums.

    Notes
    -----
    All draws of a point share their probes. What probes miss is then nearly the same in each: otherwise the mean of
    the exponentials would take luck for likelihood.
    """
    density, condition = Density.of(flow), _checked(flow, condition, len(rows))
    num_draws = 1 if density.frame.noise is None else num_draws
    found = [_score(density, rows, condition, (seed, draw)) for draw in range(num_draws)]
    # Not solved is not a number, and no warning here: the status tells.
    with np.errstate(invalid="ignore"):
        log_prob = np.logaddexp.reduce([one.values for one in found], axis=0) - np.log(num_draws)
    return log_prob, _over_draws([one.info for one in found])


def _score(density: Density, rows: Rows, condition: np.ndarray | None, seeds: tuple[int, int]) -> _Found:
    """Score rows by the density's fitted steps, where it has any; as it says where these are not trusted."""

    def solve(density: Density, some: np.ndarray | None = None) -> _Found:
        if some is None:
            return _score_alike(density, rows, condition, seeds)
        return _score_alike(density, rows[some], None if condition is None else condition[some], seeds, some)

    steps = density.steps
    return solve(density) if steps is None else _by_steps(density, steps.score, steps.least_score, solve)


def _score_alike(
    density: Density,
    rows: Rows,
    condition: np.ndarray | None,
    seeds: tuple[int, int],
    numbers: np.ndarray | None = None,
) -> _Found:
    """Return log-densities, those in the core's coordinates, and the solves' facts.

    Noise and probes are drawn by the rows' numbers: their places, where they are not told.
    """
    (core, frame), seed = _forward(density), np.uint32(seeds[0])

    def one_chunk(chunk: Rows, index: np.ndarray):
        number = index if numbers is None else numbers[np.minimum(index, len(numbers) - 1)].astype(np.uint32)
        points, log_det = _encoded(frame, chunk, number, seeds)
        found = _score_chunk(core, on_device(points), _of_chunk(condition, index), number, seed)
        log_prob, likelihood, std_error, info = found
        return np.asarray(log_prob, np.float64) + log_det, np.asarray(likelihood, np.float64), *_fields(info), std_error

    return _Found(*in_chunks(one_chunk, rows, chunk_rows(density.shape, products_at_a_time(core))))


def _encoded(frame: AbstractFrame, chunk: Rows, index: np.ndarray, seeds: tuple[int, int] = (0, 0)) -> tuple:
    """Return the points of a chunk of rows, and what is to be added to their log-density; noise is drawn by seeds."""
    if frame.noise is None:
        return frame.encode(chunk)
    # Without the closed forms, whose tables no device needs.
    alone = Frame(frame.shape, (), cast(Frame, frame).levels, frame.noise)
    drawn = _noise_chunk(alone, on_device(chunk), index, *map(np.uint32, seeds))
    return frame.encode(chunk, jax.tree.map(lambda part: np.asarray(part, np.float64), drawn))


@eqx.filter_jit
def _noise_chunk(frame: Frame, rows: Float[AnyArray, "chunk *shape"], index: Index, seed, draw):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), i), draw))(index)
    return jax.vmap(frame.draw)(jnp.asarray(rows), keys)


def _over_draws(infos: list[EvaluationInfo]) -> EvaluationInfo:
    """Return what the solves of all draws say together."""
    if len(infos) == 1:
        return infos[0]
    draws = EvaluationInfo(*(np.stack(part) for part in zip(*infos, strict=True)))
    costs = (cost.sum(0) for cost in (draws.num_accepted, draws.num_rejected, draws.num_evaluations))
    return EvaluationInfo(draws.status.max(0), *costs, std_error=draws.std_error.mean(0))


def _by_steps(density: Density, steps: Integrator, least: float, solve: Callable[..., _Found]) -> _Found:
    """Return what ``solve(density)`` finds by fitted steps, and of unlikely rows, again, as the density says.

    ``solve(density, rows)`` is asked for the numbers of these rows; evaluations are added up.
    """
    found = solve(dataclasses.replace(density, core=density.core.solved_by(steps)))
    doubtful = np.flatnonzero(~(found.likelihood >= least))
    if doubtful.size:
        spent = found.num_evaluations[doubtful]
        for part, new in zip(found, solve(density, doubtful), strict=True):
            part[doubtful] = new
        found.num_evaluations[doubtful] += spent
    return found


def path_costs(
    flow: Flow, rows: Rows, regularizers: tuple[AbstractRegularizer, ...], condition=None
) -> dict[str, np.ndarray]:
    """Return the regularizers' integrals along each row's path, by name, whatever their weights.

    They are exact up to the solver's tolerance where the flow's divergence is exact: what training estimated by
    probes is evaluated without them.

    Parameters
    ----------
    flow
        A flow, or a density, whose bijection is a `CNF`.
    rows
        The table.
    regularizers
        What is integrated, for example ``(KineticEnergy(), JacobianFrobenius())``.
    condition
        As in `score`.

    Returns
    -------
    dict of ndarray of shape (n,)
        NaN where the solve failed.
    """
    core, frame = Density.of(flow).core, Density.of(flow).frame
    cnf = cnf_of(core)
    cnf = CNF(cnf.vector_field, cnf.divergence, cnf.integrator, regularizers, cnf.t0, cnf.t1)
    core, condition = in_default_precision(Transformed(core.base, cnf)), _checked(flow, condition, len(rows))
    found = in_core(_penalties, core, rows, condition, frame=frame, products=products_at_a_time(core))
    weights = {regularizer.name: regularizer.weight for regularizer in regularizers}
    return {name: found[:, i] / weights[name] for i, name in enumerate(sorted(weights))}


def _penalties(core: Transformed, x, condition):
    penalties = core._log_prob_and_report(x, condition, None)[1].penalties
    return jnp.asarray([penalties[name] for name in sorted(penalties)])


def certify(flow: Flow, tight: Flow, rows: Rows, condition=None, *, seed: int = 0) -> Certificate:
    """Compare a flow's log-densities with those of the same flow, solved at a tighter tolerance."""
    shift = np.abs(score(tight, rows, condition, seed=seed)[0] - score(flow, rows, condition, seed=seed)[0])
    solved = shift[np.isfinite(shift)]
    mean, largest = (float(solved.mean()), float(solved.max())) if solved.size else (np.nan, np.nan)
    return Certificate(len(shift), mean, largest, len(shift) - solved.size)


def sample(flow: Flow, num: int, condition=None, *, seed: int) -> tuple[np.ndarray, EvaluationInfo]:
    """Draw `num` points, each under its condition; the first of them do not depend on how many are drawn.

    Whole numbers are bytes, 0 where the solve failed, which is NaN elsewhere.
    """
    density, condition, index = Density.of(flow), _checked(flow, condition, num), np.arange(num, dtype=np.uint32)
    solve = lambda density, some=slice(None): _sample(density, condition, index[some], seed)
    steps = density.steps
    found = solve(density) if steps is None else _by_steps(density, steps.sample, steps.least_sample, solve)
    return found.values, found.info


def _sample(density: Density, condition: np.ndarray | None, index: np.ndarray, seed: int) -> _Found:
    """Return the points that belong to these numbers of a draw, the base's log-densities, and the solves' facts."""
    core, frame = _forward(density)

    def one_chunk(chunk: np.ndarray, _: np.ndarray):
        points, info, base_log_prob = _sample_chunk(core, _of_chunk(condition, chunk), chunk, np.uint32(seed))
        rows = frame.decode(np.asarray(points, np.float64))
        return rows, np.asarray(base_log_prob), *_fields(info), np.zeros(len(chunk))

    return _Found(*in_chunks(one_chunk, index, chunk_rows(density.shape)))


def _transform(bijection: AbstractBijection, x, condition):
    return bijection.transform(x, condition)


def to_base(flow: Flow, rows: Rows, condition=None) -> np.ndarray:
    """Map rows to the coordinates of the base, where the data look standard normal."""
    (core, frame), condition = _forward(flow), _checked(flow, condition, len(rows))
    return in_core(_transform, Invert(bijection_of(core)), rows, condition, frame=frame)


def from_base(flow: Flow, rows: Rows, condition=None) -> np.ndarray:
    """Map rows of the base's coordinates to the data's: the inverse of `to_base`."""
    (core, frame), condition = _forward(flow), _checked(flow, condition, len(rows))
    decode = lambda found, points: frame.decode(found)
    return in_core(_transform, bijection_of(core), rows, condition, finish=decode)


def paths(flow: Flow, rows: Rows, num_times: int, condition=None) -> np.ndarray:
    """Return the paths from base to data that end at `rows`, of shape ``(num_times, rows, columns)``."""
    (core, frame), condition = _forward(flow), _checked(flow, condition, len(rows))
    cnf = cnf_of(core)
    times = np.linspace(cnf.t1, cnf.t0, num_times).astype(float_dtype())
    decode = lambda found, points: frame.decode(found)
    return np.moveaxis(in_core(_path, cnf, rows, condition, times, frame=frame, finish=decode), 1, 0)[::-1]


def _path(cnf: CNF, x, condition, times):
    return cnf.move(x, cnf.t1, cnf.t0, condition, save_times=times).path


def velocity(flow: Flow, rows: Rows, time: float, condition=None) -> np.ndarray:
    """Return the velocity at each row at a time from 0 (base) to 1 (data), in units of the data per unit of time."""
    core, frame = _forward(flow)
    if frame.noise is not None:
        raise TypeError(
            "Expected a density of numbers, got one of whole numbers, which have no velocity; try its core."
        )
    cnf, condition = cnf_of(core), _checked(flow, condition, len(rows))

    def in_units(v: np.ndarray, x: np.ndarray) -> np.ndarray:
        # The closed forms' change along the velocity, by the difference of two steps so small that they are straight.
        step = 1e-4 / np.maximum(1.0, np.linalg.norm(v, axis=1, keepdims=True))
        return (frame.decode(x + step * v) - frame.decode(x - step * v)) / (2 * step)

    return in_core(_velocity, cnf, rows, condition, np.asarray(time, float_dtype()), frame=frame, finish=in_units)


def _velocity(cnf: CNF, x, condition, time):
    return cnf.vector_field(cnf.t0 + time * (cnf.t1 - cnf.t0), x, condition)


def path_errors(
    flow: Flow, rows: Rows, x0: np.ndarray, times: np.ndarray, parts: int = 1, condition=None
) -> np.ndarray:
    """Return how badly a flow predicts the velocity of the straight paths to each row, of shape ``(n, parts)``.

    It is ``|x - x0 - v(t, (1 - t) x0 + t x)|^2``, in the core's coordinates, per unit of the flow's time: what flow
    matching makes small, without a solve. Means are exact for these draws, which all rows share.

    Parameters
    ----------
    flow
        The flow.
    rows
        The table.
    x0, times
        Where the paths start, of shape ``(draws, *shape)``, and the time of each, from 0 (base) to 1 (data).
    parts
        Into how many equal parts the draws are taken, in their order: the mean over each is returned.
    condition
        What the rows are conditioned on, or None. Of a flow on a `liouville.mixed.MaskedNormal`, whose conditions begin
        with a mask, the entries that are there count, and rows have zeros elsewhere.
    """
    core, frame = _forward(flow)
    condition = _checked(flow, condition, len(rows))
    means = lambda found, points: found.reshape(len(found), parts, -1).mean(axis=2)
    starts = on_device(np.asarray(x0)), on_device(np.asarray(times))
    options: dict[str, Any] = {"frame": frame, "finish": means, "products": len(x0)}
    is_masked = isinstance(core.base, MaskedNormal)
    return in_core(_path_errors, cnf_of(core), rows, condition, *starts, is_masked, **options)


def _path_errors(cnf: CNF, x, condition, x0, times, is_masked: bool):
    length, x0 = cnf.t1 - cnf.t0, x0 * mask_of(condition, x.shape) if is_masked else x0

    def one(x0, t):
        v = length * cnf.vector_field(cnf.t0 + length * t, (1 - t) * x0 + t * x, condition)
        return jnp.sum((x - x0 - v) ** 2)

    return jax.vmap(one)(x0, times)


def gradient(flow: Flow, rows: Rows, condition=None) -> np.ndarray:
    """Return the gradient of the log-density with respect to each row, in nats per unit of each column."""
    density = Density.of(flow)
    if density.frame.noise is not None:
        raise TypeError("Expected a density with a gradient, got one of whole numbers; try that of log_prob_fn().")
    bijection_of(density.core)
    # The outermost links run on the host, for their digits; they go column by column, as the chain rule then does.
    links = density.frame.links or (Standardize(np.zeros(density.shape), np.ones(density.shape)),)
    outer = tuple(itertools.takewhile(lambda link: isinstance(link, Standardize | Bounded), links))
    if not outer:
        raise TypeError(
            f"Expected Standardize or Bounded as the first link, got {type(links[0]).__name__}; try grad of log_prob."
        )
    inside = in_default_precision(Density(density.core, Frame(density.shape, links[len(outer) :])))
    condition = _checked(flow, condition, len(rows))
    found = in_core(_slopes, inside, rows, condition, frame=Frame(density.shape, outer))
    x: Any = np.asarray(rows, np.float64)
    stretch, change = np.ones(rows.shape), np.zeros(rows.shape)
    for link in outer:
        more, slope = link.stretch(x)
        change, stretch, x = change + slope / stretch, stretch * more, link.inverse_and_log_det(x)[0]
    return found / stretch + change


def _slopes(density: Density, x, condition):
    return jax.grad(lambda x: density._log_prob(x, condition, None))(x)


def _forward(flow: Flow) -> tuple[Any, Any]:
    """Return the core, of which no gradient is asked, and the frame: the former takes a third less time to trace."""
    density = Density.of(flow)
    alone = lambda integrator: dataclasses.replace(integrator, adjoint=diffrax.ForwardMode())
    return in_default_precision(map_integrators(alone, density.core)), density.frame


def _fields(info: SolveInfo) -> tuple:
    return info.status, info.num_accepted, info.num_rejected, info.num_evaluations


def warn_of_failures(info: EvaluationInfo, stacklevel: int = 3) -> None:
    """Warn the caller's caller, or one further out, of rows whose solve failed, naming the first."""
    failed = np.flatnonzero(info.status)
    if failed.size:
        first = int(failed[0])
        warnings.warn(
            f"{failed.size} of {len(info.status)} rows were not solved and are NaN; the first is row {first}: "
            f"{info.messages[first]}.",
            RuntimeWarning,
            stacklevel=stacklevel,
        )

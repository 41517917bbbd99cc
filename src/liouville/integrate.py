"""Integrating a vector field: the one call of ``diffeqsolve`` in the library.

Everything numerical is Diffrax's. This module says what is integrated (the point, its log-determinant
and the penalties, by name), how the error is measured, and whether the solve can be trusted.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import ClassVar, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._types import AnyArray, Condition, FixedMixin, Point, Scalar, Time, partition
from .divergences import AbstractDivergence
from .regularizers import AbstractRegularizer, PathPoint
from .vector_fields import AbstractVectorField

STATUS = (
    "solved",
    "the solver took max_steps steps and did not arrive",
    "the solution is not finite",
    "the solver stopped for another reason",
)


class RK4(diffrax.AbstractERK):
    """The classical fourth-order Runge-Kutta method, for constant steps: it has no error estimate."""

    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.ButcherTableau(  # pyright: ignore[reportIncompatibleVariableOverride]
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        b_sol=np.array([1, 2, 2, 1]) / 6,
        b_error=np.zeros(4),
        c=np.array([0.5, 0.5, 1.0]),
    )
    interpolation_cls: ClassVar[Callable] = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms: PyTree) -> int:
        """Return the order of the method, 4."""
        return 4


SOLVERS: dict[str, Callable[[], diffrax.AbstractSolver]] = {
    "bosh3": diffrax.Bosh3,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "euler": diffrax.Euler,
    "heun": diffrax.Heun,
    "rk4": RK4,
    "tsit5": diffrax.Tsit5,
}
CONSTANT_STEP_SOLVERS = ("euler", "rk4")


class FlowState(eqx.Module):
    """What is integrated: the point, its log-determinant (one per probe) and the penalties.

    `log_det` is None where no density is asked for: the solve then skips the divergence.
    """

    x: Point
    log_det: Float[Array, " probes"] | None
    penalties: dict[str, Scalar]


class SolveInfo(eqx.Module):
    """What the solver says of a solve: a status (index into `STATUS`) and its costs."""

    status: Int[Array, "..."]
    num_accepted: Int[Array, "..."]
    num_rejected: Int[Array, "..."]
    num_evaluations: Int[Array, "..."]

    @property
    def failed(self) -> Bool[Array, "..."]:
        """Return True where the solve did not arrive."""
        return self.status != 0

    def __add__(self, other: "SolveInfo") -> "SolveInfo":
        """Return the status of the first solve that failed, and the summed costs."""
        return SolveInfo(
            status=jnp.where(self.failed, self.status, other.status),
            num_accepted=self.num_accepted + other.num_accepted,
            num_rejected=self.num_rejected + other.num_rejected,
            num_evaluations=self.num_evaluations + other.num_evaluations,
        )


class FlowSolution(eqx.Module):
    """The end of a solve.

    Attributes
    ----------
    x
        The point at the end time; NaN where the solve failed.
    log_det
        Log-determinant of the map from start to end, in nats; NaN where the solve failed.
    log_det_std_error
        Standard error of `log_det` over the probes: 0 for exact divergences, NaN for a single probe.
    penalties
        The regularizers' integrals, by name.
    path
        The points at ``save_times``, one row per time, or after each step (infinite behind the last), or None.
    times
        The times of `path`.
    info
        Status and cost of the solve.
    """

    x: Point
    log_det: Scalar | None
    log_det_std_error: Scalar | None
    penalties: dict[str, Scalar]
    path: Float[Array, "times *shape"] | None
    times: Float[Array, " times"] | None
    info: SolveInfo


def flow_norm(y: PyTree) -> Scalar:
    """Return the largest of the root mean squares of the parts of a state.

    A plain root mean square over all entries would hide the error of the log-determinant, one entry,
    behind those of the point, `d` entries. It counts per dimension, as bits per dimension do: it is a
    sum of `d` terms, and asking for each digit of it again costs most of the solve in many dimensions.
    """
    if not isinstance(y, FlowState):
        return optimistix.rms_norm(y)
    norms = [optimistix.rms_norm(part) for part in [y.x, *y.penalties.values()]]
    if y.log_det is not None:
        norms.append(optimistix.rms_norm(y.log_det) / y.x.size)
    return jnp.max(jnp.stack(norms))


class Integrator(FixedMixin, eqx.Module):
    """How a flow is integrated: Diffrax's own objects, put together.

    Parameters
    ----------
    solver
        A Diffrax solver.
    stepsize_controller
        ``diffrax.PIDController(...)`` for adaptive steps, ``diffrax.ConstantStepSize()`` for constant.
    adjoint
        How gradients pass through the solve: any Diffrax adjoint.
    max_steps
        Cap on the number of steps; a solve that hits it is reported, never silently wrong.
    dt0
        Size of the first step, or of every constant step; None lets the controller choose. An array may have another
        value without another compilation.
    shared
        True solves rows that are mapped over as one system (see `sharing`).

    Examples
    --------
    >>> print(Integrator.constant(4).dt0)
    0.25
    """

    solver: diffrax.AbstractSolver
    stepsize_controller: diffrax.AbstractStepSizeController
    adjoint: diffrax.AbstractAdjoint
    max_steps: int = eqx.field(static=True)
    dt0: float | AnyArray | None
    shared: bool = eqx.field(static=True)

    def __init__(
        self,
        solver: diffrax.AbstractSolver | None = None,
        stepsize_controller: diffrax.AbstractStepSizeController | None = None,
        adjoint: diffrax.AbstractAdjoint | None = None,
        max_steps: int = 1000,
        dt0: float | AnyArray | None = None,
        shared: bool = False,
    ):
        self.solver = diffrax.Dopri5() if solver is None else solver
        default = diffrax.PIDController(rtol=1e-5, atol=1e-5, norm=flow_norm)
        self.stepsize_controller = default if stepsize_controller is None else stepsize_controller
        self.adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
        self.max_steps, self.dt0, self.shared = max_steps, dt0, shared
        constant = isinstance(self.stepsize_controller, diffrax.ConstantStepSize)
        if constant and dt0 is None:
            raise ValueError(
                "Expected a step size dt0 for constant steps, got None; try Integrator.constant(num_steps=20)."
            )
        if not constant and isinstance(self.solver, (RK4, diffrax.Euler)):
            raise ValueError(
                f"Expected constant steps for {type(self.solver).__name__}, which has no error estimate, got adaptive "
                "ones; try Integrator.constant(num_steps=20, solver=...)."
            )

    @staticmethod
    def adaptive(
        rtol: float | np.ndarray = 1e-5,
        atol: float | np.ndarray = 1e-5,
        solver: diffrax.AbstractSolver | None = None,
        **kwargs,
    ) -> "Integrator":
        """Return an integrator with adaptive steps, each sample its own."""
        return Integrator(solver, diffrax.PIDController(rtol=rtol, atol=atol, norm=flow_norm), **kwargs)

    @staticmethod
    def constant(num_steps: int = 20, solver: diffrax.AbstractSolver | None = None, **kwargs) -> "Integrator":
        """Return an integrator with `num_steps` equal steps per unit of time (default solver: `RK4`)."""
        solver = RK4() if solver is None else solver
        return Integrator(solver, diffrax.ConstantStepSize(), dt0=1 / num_steps, **kwargs)

    def sharing(self) -> "Integrator":
        """Return the integrator for training: rows that are mapped over are one system, solved in the same steps.

        It is several times as fast, since the weights' gradient is added up over the rows at once: mapped, each row's
        solve carries its own, as large as the weights. Adaptive steps then depend on a row's batch mates, within the
        tolerance, and a row that fails fails all. A solve that is shared but not mapped cannot be differentiated
        backwards.
        """
        return dataclasses.replace(self, shared=True)

    def with_tolerance(self, factor: float) -> "Integrator":
        """Return the integrator with its tolerances multiplied by `factor`; constant steps with its fourth root."""
        if self.dt0 is None:
            where = lambda i: (i.stepsize_controller.rtol, i.stepsize_controller.atol)
            return eqx.tree_at(where, self, tuple(np.asarray(value * factor) for value in where(self)))
        # The error of a method of order four falls with the fourth power of its step.
        return dataclasses.replace(self, dt0=self.dt0 * factor**0.25)

    def num_evaluations(self, num_steps: Int[Array, ""]) -> Int[Array, ""]:
        """Return the number of evaluations of the field that `num_steps` steps take.

        A first-same-as-last method saves one per step after the first. (Where the first step itself is
        rejected, each further try at it costs one more, which the solver does not tell.)
        """
        tableau = getattr(type(self.solver), "tableau", None)
        stages, reused = (1, 0) if tableau is None else (tableau.num_stages, int(tableau.fsal))
        return num_steps * (stages - reused) + reused


def integrate_flow(
    vector_field: AbstractVectorField,
    x: Point,
    *,
    t0: Time,
    t1: Time,
    integrator: Integrator,
    condition: Condition = None,
    divergence: AbstractDivergence | None = None,
    noise: PyTree = None,
    regularizers: tuple[AbstractRegularizer, ...] = (),
    save_times: Float[Array, " times"] | None = None,
    save_steps: bool = False,
) -> FlowSolution:
    """Integrate ``dx/dt = v(t, x)`` and ``d log_det/dt = div v`` from `t0` to `t1`, either way round.

    Parameters
    ----------
    vector_field
        The field.
    x
        The point at `t0`.
    t0, t1
        Start and end; `t1` before `t0` integrates backwards.
    integrator
        Solver, step control, adjoint.
    condition
        What the field is conditioned on.
    divergence, noise
        The divergence and the noise that its `init` drew; None skips the log-determinant.
    regularizers
        Rates integrated beside the flow, over the length of time, either way; they need a divergence.
    save_times
        Times at which the path is kept.
    save_steps
        True keeps the path after each step instead.

    Returns
    -------
    FlowSolution
        The end of the solve. Nothing is raised where a solve fails: the numbers are NaN and
        ``info.status`` says why.
    """
    if regularizers and divergence is None:
        raise ValueError("Expected a divergence for the regularizers, got None; try divergence=Exact().")

    # Adjoints that solve backwards see no closure: all that gradients flow to is handed over, as a flat
    # list, since Diffrax cannot carry an empty tuple.
    parts = (vector_field, condition, divergence, noise, regularizers)
    params, constants = partition(parts)
    leaves, structure = jax.tree.flatten(params)

    def rhs(t: Time, y: FlowState, args: list[Array]) -> FlowState:
        parts = eqx.combine(jax.tree.unflatten(structure, args), constants)
        vector_field, condition, divergence, noise, regularizers = parts
        if divergence is None:
            return FlowState(vector_field(t, y.x, condition), None, {})
        local = vector_field.value_and_divergence(t, y.x, condition, partial(divergence.linearize, noise=noise))
        point = PathPoint(t, y.x, condition, vector_field, local, divergence.is_exact)
        # Under vmap, where a rate is the same for all rows, Diffrax's adjoints add its gradient up once a row too often
        # (0.7.2; a linear field's divergence is such a rate). So each depends on the row, by nothing.
        nothing = 0 * jnp.sum(y.x)
        penalties = {r.name: r(point) + nothing for r in regularizers}
        return FlowState(local.value, local.estimates + nothing, penalties)

    start = FlowState(
        x=x,
        log_det=None if divergence is None else jnp.zeros(divergence.num_probes, x.dtype),
        penalties={r.name: jnp.zeros((), x.dtype) for r in regularizers},
    )
    dt0 = integrator.dt0
    if dt0 is not None:
        dt0 = jnp.sign(t1 - t0) * (dt0 if isinstance(dt0, float) else jnp.asarray(dt0, x.dtype))
    if integrator.shared:
        solve = _together(rhs, integrator)
        raw = solve(leaves, start, jnp.asarray(t0, x.dtype), jnp.asarray(t1, x.dtype), dt0, save_times)
    else:
        raw = _solve(rhs, integrator, leaves, start, t0, t1, dt0, save_times, save_steps)
    # Penalties are integrals over the length of time, either way. (Inside the solve the sign would be a traced number
    # that it closes over, which is lost where neighbours of a chain are solved in one loop.)
    return _read(raw, integrator, divergence, jnp.sign(jnp.asarray(t1 - t0, x.dtype)))


class _Raw(eqx.Module):
    """What the solver returns, as arrays: the end, the path and its times, and how it went."""

    end: FlowState
    path: Float[Array, "times *shape"] | None
    times: Float[Array, " times"] | None
    arrived: Bool[Array, ""]
    capped: Bool[Array, ""]
    num_accepted: Int[Array, ""]
    num_rejected: Int[Array, ""]
    num_steps: Int[Array, ""]


def _solve(
    rhs: Callable,
    integrator: Integrator,
    leaves: list[Array],
    start: FlowState,
    t0: Time,
    t1: Time,
    dt0: Time | None,
    save_times: Float[Array, " times"] | None,
    save_steps: bool = False,
) -> _Raw:
    # Adjoints that solve backwards take nothing but plain times.
    saveat = diffrax.SaveAt(t1=True) if save_times is None else diffrax.SaveAt(t1=True, ts=save_times)
    if save_steps:
        saveat = diffrax.SaveAt(subs=[diffrax.SubSaveAt(steps=True), diffrax.SubSaveAt(t1=True)])
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rhs),  # pyright: ignore[reportArgumentType]
        integrator.solver,
        t0=t0,
        t1=t1,
        dt0=dt0,
        y0=start,
        args=leaves,
        saveat=saveat,
        stepsize_controller=integrator.stepsize_controller,
        adjoint=integrator.adjoint,
        max_steps=integrator.max_steps,
        throw=False,
    )
    stats, times = solution.stats, save_times
    if save_steps:
        (steps, states), (times, _) = cast(list, solution.ys), cast(list, solution.ts)
        path = steps.x
    else:
        states = cast(FlowState, solution.ys)
        path = None if save_times is None else states.x[:-1]
    return _Raw(
        end=jax.tree.map(lambda part: part[-1], states),
        path=path,
        times=times,
        arrived=solution.result == diffrax.RESULTS.successful,
        capped=solution.result == diffrax.RESULTS.max_steps_reached,
        num_accepted=stats["num_accepted_steps"],
        num_rejected=stats["num_rejected_steps"],
        num_steps=stats["num_steps"],
    )


def _together(rhs: Callable, integrator: Integrator) -> Callable:
    """Return `_solve` so that, mapped over rows, it solves all of them as one system."""
    solve = jax.custom_batching.custom_vmap(partial(_solve, rhs, integrator))

    @solve.def_vmap
    def rule(num_rows: int, mapped: PyTree, leaves: list[Array], start: FlowState, t0, t1, dt0, save_times):
        axes = jax.tree.map(lambda is_mapped: 0 if is_mapped else None, mapped)
        if any(jax.tree.leaves(mapped[2:])):
            raw = jax.vmap(partial(_solve, rhs, integrator), in_axes=axes)(leaves, start, t0, t1, dt0, save_times)
            return raw, jax.tree.map(lambda _: True, raw)
        spread = lambda part, is_mapped: part if is_mapped else jnp.broadcast_to(part, (num_rows, *part.shape))
        rows = jax.tree.map(spread, start, mapped[1])
        field = jax.vmap(rhs, in_axes=(None, 0, axes[0]))
        raw = _solve(field, _of_rows(integrator), leaves, rows, t0, t1, dt0, save_times)
        # Saved times come first, then rows.
        if raw.path is not None:
            raw = eqx.tree_at(lambda r: r.path, raw, jnp.moveaxis(raw.path, 1, 0))
        of_rows = lambda r: jax.tree.leaves((r.end, r.path))
        one_for_all = jax.tree.map(lambda _: False, raw)
        return raw, eqx.tree_at(of_rows, one_for_all, [True] * len(of_rows(raw)))

    return solve


def _of_rows(integrator: Integrator) -> Integrator:
    """Return the integrator with the error of a system of rows: the root mean square of the rows' own."""
    controller = integrator.stepsize_controller
    if not isinstance(controller, diffrax.PIDController):
        return integrator
    of_row = controller.norm

    def norm(y: PyTree) -> Scalar:
        # Solved backwards, the state is larger, and has its own parts.
        of_state = jax.vmap(of_row) if isinstance(y, FlowState) else of_row
        return jnp.sqrt(jnp.mean(jnp.square(of_state(y))))

    return eqx.tree_at(lambda i: i.stepsize_controller, integrator, eqx.tree_at(lambda c: c.norm, controller, norm))


def _read(raw: _Raw, integrator: Integrator, divergence: AbstractDivergence | None, sign: Scalar) -> FlowSolution:
    """Take the end, the path and the status out of what the solver returned."""
    x, log_dets = raw.end.x, raw.end.log_det
    info = _solve_info(raw, integrator, x if log_dets is None else jnp.append(jnp.ravel(x), log_dets))
    spoil = lambda value: jnp.where(info.failed, jnp.nan, value)
    log_det, std_error = (None, None) if log_dets is None else _mean_and_std_error(log_dets, divergence)
    return FlowSolution(
        x=spoil(x),
        log_det=None if log_det is None else spoil(log_det),
        log_det_std_error=std_error,
        penalties={name: spoil(sign * value) for name, value in raw.end.penalties.items()},
        path=None if raw.path is None else spoil(raw.path),
        times=raw.times,
        info=info,
    )


def _solve_info(raw: _Raw, integrator: Integrator, end: Float[Array, " n"]) -> SolveInfo:
    finite = jnp.all(jnp.isfinite(end))
    status = jnp.where(raw.arrived & finite, 0, jnp.where(raw.capped, 1, jnp.where(~finite, 2, 3)))
    return SolveInfo(
        status=status,
        num_accepted=raw.num_accepted,
        num_rejected=raw.num_rejected,
        num_evaluations=integrator.num_evaluations(raw.num_steps),
    )


def _mean_and_std_error(
    log_dets: Float[Array, " probes"], divergence: AbstractDivergence | None
) -> tuple[Scalar, Scalar]:
    mean, probes = jnp.mean(log_dets), log_dets.shape[0]
    if divergence is None or divergence.is_exact:
        return mean, jnp.zeros_like(mean)
    if probes == 1:
        return mean, jnp.full_like(mean, jnp.nan)
    return mean, jnp.std(log_dets, ddof=1) / jnp.sqrt(probes)

"""Integration against closed forms, SciPy, and the solver's own claims."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, linalg

from checks import MATRIX, LinearField, TanhField, check_linear_flow
from liouville.bijections import CNF
from liouville.divergences import Exact, Hutchinson
from liouville.integrate import RK4, SOLVERS, FlowState, Integrator, flow_norm, integrate_flow
from liouville.regularizers import KineticEnergy
from liouville.vector_fields import AbstractVectorField

START = np.array([0.5, -1.0, 2.0])


@eqx.filter_jit
def solve(field, x, t0, t1, integrator, divergence=None, noise=None, regularizers=(), save_times=None):
    """Times and tolerances are arrays here, so that the tests share compilations."""
    return integrate_flow(
        field, x, t0=t0, t1=t1, integrator=integrator, divergence=divergence, noise=noise,
        regularizers=regularizers, save_times=save_times,
    )  # fmt: skip


def times(*values):
    return [jnp.asarray(value) for value in values]


def tight(tolerance=1e-10, solver=None):
    return Integrator.adaptive(jnp.asarray(tolerance), jnp.asarray(tolerance), solver or diffrax.Tsit5())


def scipy_end(matrix, start, t1=1.0):
    """Integrate `TanhField` by SciPy."""
    rhs = lambda t, x: np.tanh(matrix @ x) + np.sin(3 * t)
    return integrate.solve_ivp(rhs, (0, t1), start, method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]


def test_linear_field_is_the_matrix_exponential(x64):
    """Point, log-determinant and kinetic energy, either way round; one compilation for all times."""
    tools = tight(1e-11, diffrax.Dopri8()), Exact(), None, (KineticEnergy(),)
    field = LinearField(jnp.asarray(MATRIX))
    for t0, t1 in ((0.0, 1.0), (1.0, 0.0), (0.2, 0.9)):
        solution = solve(field, jnp.asarray(START), *times(t0, t1), *tools)
        np.testing.assert_allclose(solution.x, linalg.expm((t1 - t0) * MATRIX) @ START, atol=1e-8)
        np.testing.assert_allclose(solution.log_det, (t1 - t0) * np.trace(MATRIX), atol=1e-8)
        # The energy is a length of path: positive whichever the direction.
        speeds = [np.mean((MATRIX @ linalg.expm(s * MATRIX) @ START) ** 2) / 2 for s in np.linspace(0, t1 - t0, 501)]
        energy = integrate.simpson(speeds, x=np.linspace(0, abs(t1 - t0), 501))
        np.testing.assert_allclose(solution.penalties["kinetic_energy"], energy, rtol=1e-7)
        assert int(solution.info.status) == 0 and float(solution.log_det_std_error) == 0


def test_cnf_of_a_linear_field():
    check_linear_flow(CNF, atol=1e-5)


def test_two_legs_make_the_whole_way_and_the_way_back_undoes_it(x64):
    field, x, tools = TanhField(jnp.asarray(MATRIX)), jnp.asarray(START), (tight(), Exact())
    whole = solve(field, x, *times(0.0, 1.0), *tools)
    first = solve(field, x, *times(0.0, 0.4), *tools)
    second = solve(field, first.x, *times(0.4, 1.0), *tools)
    back = solve(field, whole.x, *times(1.0, 0.0), *tools)
    np.testing.assert_allclose(second.x, whole.x, atol=1e-8)
    np.testing.assert_allclose(first.log_det + second.log_det, whole.log_det, atol=1e-8)
    np.testing.assert_allclose(back.x, x, atol=1e-8)
    np.testing.assert_allclose(back.log_det, -whole.log_det, atol=1e-8)


def test_error_falls_with_the_tolerance(x64):
    field, x, expected = TanhField(jnp.asarray(MATRIX)), jnp.asarray(START), scipy_end(MATRIX, START)
    errors = [
        np.max(np.abs(solve(field, x, *times(0.0, 1.0), tight(tolerance), Exact()).x - expected))
        for tolerance in (1e-3, 1e-5, 1e-7, 1e-10)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 27 * errors[3]
    assert errors[3] < 1e-8


ORDERS = {
    "euler": (1, 32), "heun": (2, 32), "bosh3": (3, 16), "rk4": (4, 16),
    "tsit5": (5, 32), "dopri5": (5, 32), "dopri8": (8, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_constant_steps_have_the_order_of_their_method(x64, name):
    """Twice the steps, ``2^order`` less error. Time is counted in steps: one compilation for both sizes."""
    order, coarse = ORDERS[name]
    integrator = Integrator(SOLVERS[name](), diffrax.ConstantStepSize(), dt0=1.0)
    expected, errors = scipy_end(MATRIX, START), []
    for steps in (coarse, 2 * coarse):
        field = TanhField(jnp.asarray(MATRIX), jnp.asarray(1.0 / steps))
        solution = solve(field, jnp.asarray(START), *times(0.0, float(steps)), integrator)
        assert int(solution.info.num_accepted) == steps
        errors.append(np.max(np.abs(solution.x - expected)))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.5


def test_orders_cover_every_solver():
    assert set(ORDERS) == set(SOLVERS)


def test_adjoints_agree_with_each_other_and_with_finite_differences(x64):
    x, direction = jnp.asarray(START), jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))

    def loss(matrix, adjoint):
        integrator = Integrator.constant(16, adjoint=adjoint)
        solution = integrate_flow(TanhField(matrix), x, t0=0.0, t1=1.0, integrator=integrator, divergence=Exact())
        return solution.log_det + jnp.sum(solution.x**2)

    value_and_grad = eqx.filter_jit(jax.value_and_grad(loss))
    step, matrix = 1e-5, jnp.asarray(MATRIX)
    adjoints = diffrax.RecursiveCheckpointAdjoint(), diffrax.DirectAdjoint(), diffrax.BacksolveAdjoint()
    slopes = [float(jnp.sum(value_and_grad(matrix, adjoint)[1] * direction)) for adjoint in adjoints]
    ends = [float(value_and_grad(matrix + s * direction, adjoints[0])[0]) for s in (step, -step)]
    expected = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(slopes[:2], expected, rtol=1e-7)
    # Solved backwards, the gradient is that of the ODE, not of its discretization: equal up to the solver's error.
    np.testing.assert_allclose(slopes[2], expected, rtol=1e-4)


class CountingField(AbstractVectorField):
    """A stiff-ish field that tells the host each time it is called."""

    tally: list = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True, default=(2,))
    cond_shape: None = eqx.field(static=True, default=None)

    def __call__(self, t, x, condition=None):
        jax.debug.callback(lambda: self.tally.append(1))
        return jnp.stack([x[1], 20 * jnp.sin(9 * t) - 30 * x[0] - x[1]])


INTEGRATORS = {
    "tsit5": Integrator.adaptive(1e-3, 1e-3, diffrax.Tsit5()),
    "bosh3": Integrator.adaptive(1e-3, 1e-3, diffrax.Bosh3(), dt0=0.02),
    "heun": Integrator.adaptive(1e-2, 1e-2, diffrax.Heun()),
    "euler": Integrator.constant(7, diffrax.Euler()),
    "rk4": Integrator.constant(7),
    "dopri5": Integrator.constant(7, diffrax.Dopri5()),
}


@pytest.mark.parametrize("name", INTEGRATORS)
def test_evaluations_are_counted_right(name):
    tally = []
    run = jax.jit(lambda x: integrate_flow(CountingField(tally), x, t0=0.0, t1=1.0, integrator=INTEGRATORS[name]))
    info = run(jnp.array([1.0, 0.0])).info
    jax.effects_barrier()
    assert int(info.num_evaluations) == len(tally)
    assert len(tally) >= 7
    # Rejected steps cost evaluations, too: where steps are adaptive there must be some.
    assert (int(info.num_rejected) > 0) == (INTEGRATORS[name].dt0 in (None, 0.02))


def test_a_solve_that_hits_max_steps_is_nan_and_says_so():
    integrator = Integrator.adaptive(1e-8, 1e-8, max_steps=3)
    field = TanhField(jnp.asarray(20 * MATRIX, jnp.float32))
    path_times = jnp.array([0.5, 1.0])
    solution = solve(field, jnp.ones(3), 0.0, 1.0, integrator, Exact(), None, (KineticEnergy(),), path_times)
    assert int(solution.info.status) == 1 and bool(solution.info.failed)
    for value in (solution.x, solution.log_det, solution.penalties["kinetic_energy"], solution.path):
        assert np.all(np.isnan(value))


class Blowup(AbstractVectorField):
    """``x^2``: from x > 0 the solution leaves every bound at time 1 / x."""

    shape: tuple[int, ...] = (1,)
    cond_shape: None = None

    def __call__(self, t, x, condition=None):
        return x**2


def test_a_blow_up_is_never_a_finite_number():
    run = eqx.filter_jit(jax.vmap(lambda x: integrate_flow(Blowup(), x, t0=0.0, t1=1.0, integrator=Integrator())))
    solution = run(jnp.array([[0.5], [2.0], [jnp.nan]]))
    np.testing.assert_allclose(solution.x[0], 0.5 / (1 - 0.5), rtol=1e-3)
    assert np.all(np.isnan(solution.x[1:]))
    # Its mates' failure leaves the first row alone.
    assert list(solution.info.failed) == [False, True, True]


def test_steps_without_error_estimate_cannot_be_adaptive():
    for solver in (RK4(), diffrax.Euler()):
        with pytest.raises(ValueError, match="Expected constant steps for .* got adaptive ones; try"):
            Integrator.adaptive(solver=solver)
    with pytest.raises(ValueError, match="Expected a step size dt0 .* got None; try"):
        Integrator(diffrax.Tsit5(), diffrax.ConstantStepSize())


def test_path_is_kept_at_the_times_asked_for():
    save_times = jnp.array([0.0, 0.25, 1.0])
    field = LinearField(jnp.asarray(MATRIX, jnp.float32))
    solution = solve(field, jnp.asarray(START, jnp.float32), 0.0, 1.0, Integrator.constant(20), save_times=save_times)
    expected = [linalg.expm(t * MATRIX) @ START for t in save_times]
    np.testing.assert_allclose(solution.path, expected, atol=1e-3)
    np.testing.assert_allclose(solution.x, expected[-1], atol=1e-4)
    assert solution.log_det is None and solution.log_det_std_error is None


def hutchinson_log_dets(num_probes, num_keys=1000):
    """Return log-determinants and standard errors of a linear flow, one of each per key."""
    divergence, x = Hutchinson(num_probes=num_probes), jnp.asarray(START, jnp.float32)

    def one(key):
        solution = integrate_flow(
            LinearField(jnp.asarray(MATRIX, jnp.float32)), x, t0=0.0, t1=1.0,
            integrator=Integrator.constant(2, diffrax.Euler()), divergence=divergence, noise=divergence.init(x, key),
        )  # fmt: skip
        return solution.log_det, solution.log_det_std_error

    return [np.asarray(part) for part in jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), num_keys))]


def test_standard_error_over_probes_is_calibrated():
    log_det, std_error = hutchinson_log_dets(16)
    error = log_det - np.trace(MATRIX)
    assert abs(error.mean()) < 5 * error.std() / np.sqrt(len(error))
    # The mean squared claim is the mean squared error, within the errors of both.
    gap = error**2 - std_error**2
    assert abs(gap.mean()) < 5 * gap.std() / np.sqrt(len(gap))
    assert np.mean(std_error**2) > 0.01


def test_one_probe_tells_no_standard_error():
    log_det, std_error = hutchinson_log_dets(1, num_keys=10)
    assert np.all(np.isfinite(log_det)) and np.all(np.isnan(std_error))


def test_norm_does_not_hide_the_log_determinant():
    """The log-determinant is a part of its own, counted per dimension."""
    state = FlowState(jnp.zeros(100), jnp.array([300.0]), {"kinetic_energy": jnp.asarray(1.0)})
    np.testing.assert_allclose(flow_norm(state), 3.0)
    np.testing.assert_allclose(flow_norm(FlowState(jnp.full(100, 2.0), None, {})), 2.0)

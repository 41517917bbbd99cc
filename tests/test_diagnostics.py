"""Lyapunov exponents against matrix exponentials and autodiff Jacobians, and the penalties that use them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from checks import FORWARD, MATRIX, LinearField, ShiftField, random_cnf
from liouville._types import parameters, partition
from liouville.bijections import CNF, Chain, Standardize
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.objectives import Batch, MaximumLikelihood, WeightedSum
from liouville.papers import LyapunovPenalty, TerminalVelocity, lyapunov_exponents
from liouville.vector_fields import MLP, AbstractVectorField

FINE = Integrator.constant(40)


@eqx.filter_jit
def exponents(field, x, **kwargs):
    return lyapunov_exponents(field, x, **{"integrator": FINE, **kwargs})


@pytest.mark.parametrize("num_intervals", [1, 5])
def test_linear_field_has_the_exponents_of_its_matrix_exponential(num_intervals):
    found = exponents(LinearField(jnp.asarray(MATRIX)), jnp.ones(3), t0=0.5, t1=2.5, num_intervals=num_intervals)
    jacobian = linalg.expm(2 * MATRIX)
    np.testing.assert_allclose(found.finite_time, np.log(np.linalg.svd(jacobian)[1]) / 2, atol=1e-5)
    np.testing.assert_allclose(found.spectrum, np.log(np.abs(np.diag(np.linalg.qr(jacobian)[1]))) / 2, atol=1e-5)
    np.testing.assert_allclose(np.sum(found.spectrum), np.trace(MATRIX), atol=1e-5)
    np.testing.assert_allclose(found.x, jacobian @ np.ones(3), rtol=1e-5)
    np.testing.assert_allclose(found.tangents @ found.tangents.T, np.eye(3), atol=1e-5)
    # The tangent vectors at the end span what the Jacobian makes of the first axes.
    np.testing.assert_allclose(
        np.abs(found.tangents[0]), np.abs(jacobian[:, 0]) / np.linalg.norm(jacobian[:, 0]), atol=1e-5
    )
    assert found.largest == found.finite_time[0]
    # Rounding of the edges may add a step of no length to an interval.
    assert found.info.status == 0 and 4 * 80 <= found.info.num_evaluations <= 4 * (80 + num_intervals)


def test_spectrum_tends_to_the_real_parts_of_the_eigenvalues_over_a_long_time():
    """Over this time vectors grow by 26 decades against each other: without QR, float32 would lose the last."""
    matrix = np.array([[0.5, 2.0, 0.0], [0.0, -0.4, 1.0], [0.0, 0.0, -1.5]])
    found = exponents(LinearField(jnp.asarray(matrix)), jnp.zeros(3), t1=30.0, num_intervals=60)
    np.testing.assert_allclose(found.spectrum, [0.5, -0.4, -1.5], atol=0.06)
    np.testing.assert_allclose(found.largest, np.log(np.linalg.svd(linalg.expm(30 * matrix))[1][0]) / 30, atol=1e-4)


def test_exponents_of_a_nonlinear_field_are_those_of_its_autodiff_jacobian(x64):
    cnf, z = random_cnf(3, integrator=FORWARD, scale=1.0), jnp.array([0.3, -1.0, 0.7])
    found = exponents(cnf.vector_field, z, integrator=FORWARD, num_intervals=3)
    jacobian = jax.jit(jax.jacfwd(cnf.transform))(z)
    np.testing.assert_allclose(found.finite_time, np.log(np.linalg.svd(jacobian)[1]), atol=1e-5)
    np.testing.assert_allclose(np.sum(found.spectrum), np.linalg.slogdet(jacobian)[1], atol=1e-5)
    assert np.ptp(found.finite_time) > 0.3
    back = exponents(cnf.vector_field, found.x, t0=1.0, t1=0.0, integrator=FORWARD)
    np.testing.assert_allclose(back.finite_time, -found.finite_time[::-1], atol=1e-5)


def test_fewer_tangent_vectors_bound_the_largest_from_below():
    field = LinearField(jnp.asarray(MATRIX))
    tangent = jnp.array([[0.6, 0.0, 0.8]])
    found = exponents(field, jnp.zeros(3), tangents=tangent)
    np.testing.assert_allclose(found.largest, np.log(np.linalg.norm(linalg.expm(MATRIX) @ tangent[0])), atol=1e-5)
    np.testing.assert_allclose(found.largest, found.spectrum[0], atol=1e-6)
    assert found.largest < exponents(field, jnp.zeros(3)).largest


def test_a_failed_solve_is_nan_and_says_why():
    found = exponents(LinearField(jnp.eye(2)), jnp.ones(2), integrator=Integrator.adaptive(1e-6, 1e-6, max_steps=1))
    assert np.all(np.isnan(found.finite_time)) and np.all(np.isnan(found.spectrum))
    assert found.info.status == 1


@pytest.mark.parametrize("kwargs", [{"tangents": jnp.ones((4, 3))}, {"num_intervals": 0}])
def test_impossible_vectors_and_intervals_are_refused(kwargs):
    with pytest.raises(ValueError, match="Expected 1 to 3 tangent vectors and an interval, got"):
        lyapunov_exponents(LinearField(jnp.eye(3)), jnp.ones(3), integrator=FINE, **kwargs)


class ScaleField(AbstractVectorField):
    """The condition times the point: the condition is the exponent."""

    shape = (2,)
    cond_shape = (1,)

    def __call__(self, t, x, condition=None):
        return condition * x


def test_exponents_and_penalty_see_the_condition():
    found = exponents(ScaleField(), jnp.ones(2), condition=jnp.array([0.7]))
    np.testing.assert_allclose(found.finite_time, [0.7, 0.7], atol=1e-6)
    flow = Transformed(Normal.standard((2,)), CNF(ScaleField(), integrator=FINE))
    batch = Batch(jnp.zeros((3, 2)), jnp.array([[0.5], [-2.0], [1.0]]))
    loss, aux = eqx.filter_jit(LyapunovPenalty())(flow, batch, key=jax.random.key(0))
    np.testing.assert_allclose(loss, (0.25 + 1.0) / 3, atol=1e-5)
    np.testing.assert_allclose(aux["lyapunov"], (0.5 - 2 + 1) / 3, atol=1e-5)


def linear_flow(matrix=MATRIX) -> Transformed:
    size = len(matrix)
    return Transformed(Normal.standard((size,)), CNF(LinearField(jnp.asarray(matrix)), integrator=FINE))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 5.0])
def test_lyapunov_penalty_of_a_linear_flow(threshold):
    batch = Batch(jnp.zeros((4, 3)))
    loss, aux = eqx.filter_jit(LyapunovPenalty(threshold, 2))(linear_flow(), batch, key=jax.random.key(0))
    largest = np.log(np.linalg.norm(linalg.expm(MATRIX), 2))
    np.testing.assert_allclose(loss, max(largest - threshold, 0) ** 2, atol=1e-5)
    np.testing.assert_allclose(aux["lyapunov"], largest, atol=1e-5)
    assert aux["evaluations"] == 4 * 40 and aux["failed"] == 0


def test_lyapunov_penalty_looks_at_the_paths_of_the_base():
    """A field that stretches the right half alone: the mean square is the share of base points there."""

    class HalfField(LinearField):
        def __call__(self, t, x, condition=None):
            return jnp.where(x > 0, x, -x)

    flow = Transformed(Normal([3.0], [0.1]), CNF(HalfField(jnp.eye(1)), integrator=FINE))
    # The rows lie on the left, where paths are drawn together: they are not what is looked at.
    loss, _ = eqx.filter_jit(LyapunovPenalty())(flow, Batch(-jnp.ones((4, 1))), key=jax.random.key(0))
    np.testing.assert_allclose(loss, 1.0, atol=1e-4)


def test_terminal_velocity_of_a_linear_flow():
    rows = np.random.default_rng(0).normal(size=(5, 3))
    loss, aux = TerminalVelocity()(linear_flow(), Batch(jnp.asarray(rows)), key=jax.random.key(0))
    np.testing.assert_allclose(loss, np.mean(np.linalg.norm(rows @ MATRIX.T, axis=1)), rtol=1e-5)
    assert aux["evaluations"] == 1 and aux["terminal_velocity"] == loss


def test_terminal_velocity_is_that_at_the_end_of_time():
    class Clock(LinearField):
        def __call__(self, t, x, condition=None):
            return jnp.full_like(x, t)

    flow = Transformed(Normal.standard((4,)), CNF(Clock(jnp.eye(4)), t0=1.0, t1=3.0))
    np.testing.assert_allclose(TerminalVelocity()(flow, Batch(jnp.zeros((2, 4))), key=jax.random.key(0))[0], 6.0)
    shifted = Transformed(Normal.standard((2,)), CNF(ShiftField((2,))))
    batch = Batch(jnp.zeros((2, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0]]))
    np.testing.assert_allclose(TerminalVelocity()(shifted, batch, key=jax.random.key(0))[0], 3.0)


@pytest.mark.parametrize("penalty", [LyapunovPenalty(), TerminalVelocity()])
def test_gradient_of_penalties_agrees_with_finite_differences(x64, penalty):
    params, static = partition(
        Transformed(Normal.standard((2,)), random_cnf(2, integrator=Integrator.constant(4), scale=1.0))
    )
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
    batch = Batch(jnp.asarray(rng.normal(size=(4, 2))))

    @jax.jit
    def along(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return penalty(eqx.combine(moved, static), batch, key=jax.random.key(2))[0]

    slope = jax.jit(jax.grad(along))(0.0)
    np.testing.assert_allclose(slope, (along(1e-5) - along(-1e-5)) / 2e-5, rtol=1e-5)
    assert abs(slope) > 1e-3


@pytest.mark.slow
def test_penalties_are_added_to_the_likelihood_and_have_gradients_at_rest():
    """A field starts at rest: its Jacobian has equal singular values, its velocity no direction."""
    field = MLP((2,), width=4, depth=0, key=jax.random.key(0))
    flow = Transformed(Normal.standard((2,)), CNF(field, integrator=Integrator.constant(4)))
    terms = [(1.0, MaximumLikelihood()), (0.5, LyapunovPenalty(threshold=-1.0)), (2.0, TerminalVelocity())]
    batch = Batch(jnp.ones((4, 2)))
    value_and_grad = eqx.filter_value_and_grad(lambda f: WeightedSum(terms)(f, batch, key=jax.random.key(0))[0])
    loss, grads = eqx.filter_jit(value_and_grad)(flow)
    np.testing.assert_allclose(loss, np.log(2 * np.pi) + 1 + 0.5, rtol=1e-5)
    leaves = jax.tree.leaves(parameters(grads))
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves) and any(np.any(leaf != 0) for leaf in leaves)


@pytest.mark.parametrize("penalty", [LyapunovPenalty(), TerminalVelocity()])
def test_penalties_refuse_what_is_no_cnf(penalty):
    flow = Transformed(Normal.standard((1,)), Chain([Standardize([0.0], [1.0])]))
    with pytest.raises(
        TypeError, match=r"Expected a flow whose bijection is a CNF, got Chain of \['Standardize'\].*; try"
    ):
        penalty(flow, Batch(jnp.zeros((4, 1))), key=jax.random.key(0))


def test_segments_of_a_path_have_exponents_of_their_own():
    """A field that stretches in the first half of its time and shrinks in the second: over all nothing has grown."""

    class Breath(LinearField):
        def __call__(self, t, x, condition=None):
            return jnp.where(t < 0.5, 1.0, -1.0) * x

    integrator = Integrator.constant(20)
    flow = Transformed(Normal.standard((2,)), CNF(Breath(jnp.eye(2)), integrator=integrator))
    losses = {}
    for segments in (1, 2):
        loss, aux = eqx.filter_jit(LyapunovPenalty(num_intervals=segments))(
            flow, Batch(jnp.zeros((3, 2))), key=jax.random.key(0)
        )
        losses[segments] = loss
        assert aux["evaluations"] == 4 * 20
        np.testing.assert_allclose(aux["lyapunov"], 0, atol=0.1)
    # exp(0.5) in half a unit of time is an exponent of 1, its square counts in one segment of two.
    assert losses[1] < 0.01
    np.testing.assert_allclose(losses[2], 0.5, atol=0.1)

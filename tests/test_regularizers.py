"""Penalties on the path: closed forms on linear fields, and derivatives taken in another way."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from checks import MATRIX, LinearField, TanhField, make_field
from liouville import evaluation
from liouville.bijections import CNF, Chain, Standardize
from liouville.density import Density
from liouville.distributions import Normal, Transformed
from liouville.divergences import Exact, Hutchinson
from liouville.frames import Frame
from liouville.integrate import Integrator, integrate_flow
from liouville.objectives import Batch, MaximumLikelihood, TrainedWith, WeightedSum
from liouville.papers import (
    DirectionalDerivative,
    HamiltonJacobi,
    Potential,
    RandomEndTime,
    TaylorDerivative,
    TotalDerivative,
    TrajectoryPolynomial,
)
from liouville.regularizers import JacobianFrobenius, KineticEnergy, PathPoint

X = np.array([0.5, -1.0, 2.0])


def at(field, t=0.3, divergence=None, key=None) -> PathPoint:
    """Return the point X of a path, as a solve would hand it over."""
    divergence = Exact() if divergence is None else divergence
    x = jnp.asarray(X, jnp.result_type(float))
    noise = divergence.init(x, key)
    local = field.value_and_divergence(t, x, None, lambda fn, x: divergence.linearize(fn, x, noise))
    return PathPoint(t, x, None, field, local, divergence.is_exact)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_rates_of_a_linear_field_are_closed_forms(reduce, x64):
    share = 1 / 3 if reduce == "mean" else 1.0
    powers = [np.linalg.matrix_power(MATRIX, k) @ X for k in range(4)]
    expected = {
        KineticEnergy(reduce=reduce): powers[1] @ powers[1] / 2,
        JacobianFrobenius(reduce=reduce): np.sum(MATRIX**2),
        DirectionalDerivative(reduce=reduce): powers[2] @ powers[2],
        TotalDerivative(reduce=reduce): powers[2] @ powers[2],
        TaylorDerivative(2, reduce=reduce): powers[2] @ powers[2],
        TaylorDerivative(3, reduce=reduce): powers[3] @ powers[3],
    }
    found = eqx.filter_jit(lambda matrix: [regularizer(at(LinearField(matrix))) for regularizer in expected])
    for rate, value in zip(found(jnp.asarray(MATRIX)), expected.values(), strict=True):
        np.testing.assert_allclose(rate, share * value, rtol=1e-10)


def test_derivatives_see_how_the_field_changes_in_time(x64):
    """The oracle differentiates nothing by hand: it solves the ODE and takes finite differences of the path."""
    field, step = TanhField(jnp.asarray(MATRIX)), 1e-2
    times = 0.3 + step * jnp.arange(-2.0, 3.0)
    tight = Integrator.adaptive(1e-12, 1e-12)

    @jax.jit
    def neighbours(x):
        start = integrate_flow(field, x, t0=0.3, t1=times[0], integrator=tight).x
        return integrate_flow(field, start, t0=times[0], t1=times[-1] + step, integrator=tight, save_times=times).path

    path = np.asarray(neighbours(jnp.asarray(X)))
    second = (-path[0] + 16 * path[1] - 30 * path[2] + 16 * path[3] - path[4]) / (12 * step**2)
    third = (-path[0] + 2 * path[1] - 2 * path[3] + path[4]) / (2 * step**3)
    kinds = (TotalDerivative, lambda **kw: TaylorDerivative(2, **kw), lambda **kw: TaylorDerivative(3, **kw))
    kinds = (*kinds, DirectionalDerivative)
    total, two, three, partial = eqx.filter_jit(lambda field: [kind(reduce="sum")(at(field)) for kind in kinds])(field)
    np.testing.assert_allclose(total, second @ second, rtol=1e-5)
    np.testing.assert_allclose(two, second @ second, rtol=1e-5)
    np.testing.assert_allclose(three, third @ third, rtol=1e-2)
    assert abs(partial - second @ second) > 0.1


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", ["mlp", "preconditioned"])
def test_the_frobenius_norm_by_probes_is_unbiased(name, mode):
    field = make_field(name)
    exact = eqx.filter_jit(lambda field: JacobianFrobenius()(at(field)))(field)
    jacobian = jax.jit(jax.jacfwd(lambda x: field(0.3, x)))(jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(exact, np.mean(jacobian**2) * 3, rtol=1e-4)
    draw = lambda key: JacobianFrobenius()(at(field, divergence=Hutchinson("gaussian", 2, mode), key=key))
    values = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000)), np.float64)
    assert abs(values.mean() - exact) < 5 * values.std() / np.sqrt(4000)


def test_penalties_are_integrals_along_the_path(x64):
    """On a linear field the kinetic energy's integral is a quadrature of the matrix exponential."""
    field = LinearField(jnp.asarray(MATRIX))
    regularizers = (KineticEnergy(weight=1.0), JacobianFrobenius(weight=1.0))
    cnf = CNF(field, integrator=Integrator.adaptive(1e-10, 1e-10), regularizers=regularizers)
    report = eqx.filter_jit(cnf.to_data)(jnp.asarray(X))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    velocity = [MATRIX @ linalg.expm((node + 1) / 2 * MATRIX) @ X for node in nodes]
    energy = sum(w / 2 * np.mean(v**2) / 2 for w, v in zip(weights, velocity, strict=True))
    np.testing.assert_allclose(report.penalties["kinetic_energy"], energy, rtol=1e-7)
    np.testing.assert_allclose(report.penalties["jacobian_frobenius"], np.sum(MATRIX**2) / 3, rtol=1e-7)


def test_a_regularizer_needs_a_divergence():
    with pytest.raises(ValueError, match="Expected a divergence for the regularizers, got None; try"):
        integrate_flow(
            LinearField(jnp.asarray(MATRIX)), jnp.ones(3), t0=0.0, t1=1.0,
            integrator=Integrator.constant(2), regularizers=(KineticEnergy(),),
        )  # fmt: skip


@pytest.mark.parametrize(
    "make", [lambda: KineticEnergy(reduce="most"), lambda: TaylorDerivative(1), lambda: TrajectoryPolynomial(2, 3)]
)
def test_bad_options_are_refused(make):
    with pytest.raises(ValueError, match=r"Expected .* got .*; try"):
        make()


def linear_flow() -> Transformed:
    cnf = CNF(LinearField(jnp.asarray(MATRIX)), integrator=Integrator.constant(40))
    return Transformed(Normal.standard((3,)), cnf)


def test_straight_paths_cost_nothing_and_bent_ones_their_residual(x64):
    """The oracle is NumPy's least squares on the path that the matrix exponential gives."""
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
    objective, key = eqx.filter_jit(TrajectoryPolynomial(degree=1, num_times=5)), jax.random.key(3)
    loss, aux = objective(linear_flow(), Batch(rows), key=key)
    share = (np.arange(5) + np.asarray(jax.random.uniform(key, (5,)))) / 5
    residuals = []
    for row in np.asarray(rows):
        path = np.stack([linalg.expm(-s * MATRIX) @ row for s in share])
        fit = np.polynomial.polynomial.polyfit(share, path, 1)
        residuals.append(path - np.polynomial.polynomial.polyval(share, fit).T)
    np.testing.assert_allclose(loss, np.mean(np.square(residuals)), rtol=1e-5)
    assert aux["evaluations"] > 0
    straight = eqx.tree_at(lambda f: f.bijection.vector_field, linear_flow(), _Constant(jnp.array([1.0, 2.0, 3.0])))
    np.testing.assert_allclose(objective(straight, Batch(rows), key=key)[0], 0.0, atol=1e-12)


class _Constant(LinearField):
    """The same velocity everywhere."""

    def __call__(self, t, x, condition=None):
        return self.matrix


def test_a_random_end_time_is_drawn_from_its_interval(x64):
    """The likelihood of a linear flow up to a time is known: the loss must be that of a time in the interval."""
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))
    steer, found = RandomEndTime(MaximumLikelihood(), 0.4), []
    ends = np.linspace(0.6, 1.4, 4001)
    known = []
    for end in ends:
        z = np.asarray(rows) @ linalg.expm(-end * MATRIX).T
        known.append(np.mean(0.5 * np.sum(z**2, 1)) + 1.5 * np.log(2 * np.pi) + end * np.trace(MATRIX))
    draw = jax.jit(jax.vmap(lambda key: steer(linear_flow(), Batch(rows), key=key)[0]))
    for loss in draw(jax.random.split(jax.random.key(0), 20)):
        nearest = np.argmin(np.abs(np.asarray(known) - loss))
        assert abs(known[nearest] - loss) < 1e-3
        found.append(ends[nearest])
    assert min(found) < 0.8 and max(found) > 1.2


def test_a_weighted_sum_adds_up(x64):
    rows, key = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3))), jax.random.key(0)
    terms = [(1.0, MaximumLikelihood()), (0.3, TrajectoryPolynomial())]
    total, aux = eqx.filter_jit(WeightedSum(terms))(linear_flow(), Batch(rows), key=key)
    keys = jax.random.split(key, 2)
    compiled = [eqx.filter_jit(objective) for _, objective in terms]
    parts = [objective(linear_flow(), Batch(rows), key=k) for objective, k in zip(compiled, keys, strict=True)]
    np.testing.assert_allclose(total, parts[0][0] + 0.3 * parts[1][0], rtol=1e-10)
    np.testing.assert_allclose(aux["evaluations"], sum(part[1]["evaluations"] for part in parts))


def test_costs_of_rows_are_exact_integrals(x64):
    """The flow behind a change of units: costs are those of the core's path, whatever the weights."""
    field = LinearField(jnp.asarray(MATRIX))
    core = CNF(field, integrator=Integrator.adaptive(1e-9, 1e-9))
    frame = Frame((3,), (Standardize(np.full(3, 5.0), np.full(3, 2.0)),))
    flow = Density(Transformed(Normal.standard((3,)), core), frame)
    rows = 5.0 + 2.0 * np.random.default_rng(0).normal(size=(5, 3))
    costs = evaluation.path_costs(flow, rows, (KineticEnergy(weight=0.3), JacobianFrobenius(weight=7.0, reduce="sum")))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    for i, row in enumerate((rows - 5.0) / 2.0):
        speed = [np.mean((MATRIX @ linalg.expm(-(n + 1) / 2 * MATRIX) @ row) ** 2) for n in nodes]
        np.testing.assert_allclose(costs["kinetic_energy"][i], np.dot(weights, speed) / 4, rtol=1e-6)
    np.testing.assert_allclose(costs["jacobian_frobenius"], np.sum(MATRIX**2), rtol=1e-6)


def test_a_flow_is_trained_with_other_parts_than_it_has(x64):
    """Penalties, divergence and steps of training reach every CNF of a chain, and leave the flow as it was."""
    cnf = CNF(LinearField(jnp.asarray(MATRIX)), integrator=Integrator.constant(40))
    flow = Transformed(Normal.standard((3,)), Chain([cnf, cnf]))
    rows, key = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3))), jax.random.key(0)
    plain, _ = eqx.filter_jit(MaximumLikelihood())(flow, Batch(rows), key=key)
    objective = TrainedWith(
        MaximumLikelihood(), Hutchinson(), Integrator.constant(10), (JacobianFrobenius(weight=2.0),)
    )
    draw = jax.jit(jax.vmap(lambda key: objective(flow, Batch(rows), key=key)))
    losses, aux = draw(jax.random.split(key, 200))
    assert np.all(aux["evaluations"] == 2 * 40)
    estimated = losses[0] - aux["jacobian_frobenius"][0]
    assert abs(estimated - plain) > 1e-3
    expected = plain + 2 * 2.0 * np.sum(MATRIX**2) / 3
    assert abs(np.mean(losses) - expected) < 5 * np.std(losses) / np.sqrt(200)


@pytest.mark.slow
def test_shared_steps_are_one_for_all_rows_and_give_the_same_gradient(x64):
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)) * np.linspace(0.1, 4, 16)[:, None])
    results = {}
    for shared in (False, True):
        integrator = Integrator.adaptive(1e-8, 1e-8)
        integrator = integrator.sharing() if shared else integrator
        cnf = CNF(TanhField(jnp.asarray(MATRIX)), integrator=integrator)
        flow = Transformed(Normal.standard((3,)), cnf)

        def loss(matrix, flow=flow):
            moved = eqx.tree_at(lambda f: f.bijection.vector_field.matrix, flow, matrix)
            log_prob, report = jax.vmap(lambda x: moved._log_prob_and_report(x, None, None))(rows)
            return -jnp.mean(log_prob), report.info.num_accepted

        (value, steps), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(MATRIX))
        results[shared] = np.unique(steps).size, value, gradient
    assert results[True][0] == 1 < results[False][0]
    np.testing.assert_allclose(results[True][1], results[False][1], rtol=1e-6)
    np.testing.assert_allclose(results[True][2], results[False][2], rtol=1e-5)


def test_the_hamilton_jacobi_rate_is_the_equations_residual(x64):
    """The oracle differentiates the potential; and a quadratic potential of optimal transport has no residual."""
    field = Potential((3,), width=8, depth=2, key=jax.random.key(0))
    potential = lambda t, x: field.potential_and_gradients(t, x)[0]
    rate, gradient = jax.jit(jax.grad(potential, (0, 1)))(0.3, jnp.asarray(X))
    residual = eqx.filter_jit(lambda field: HamiltonJacobi()(at(field)))(field)
    np.testing.assert_allclose(residual, abs(rate - gradient @ gradient / 2), rtol=1e-8)
    with pytest.raises(TypeError, match="Expected a Potential .* got LinearField; try"):
        HamiltonJacobi()(at(LinearField(jnp.asarray(MATRIX))))

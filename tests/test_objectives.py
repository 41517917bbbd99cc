"""Objectives: known minima, known derivatives, and what they say of a batch."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from checks import LinearField, random_cnf
from liouville._types import partition
from liouville.bijections import CNF, Chain, Standardize
from liouville.couplings import ExactOT
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.objectives import (
    AbstractObjectiveOf,
    Batch,
    CheckedSteps,
    FlowMatching,
    MaximumLikelihood,
    MixedPrecision,
)
from liouville.regularizers import KineticEnergy
from liouville.vector_fields import MLP, Preconditioned


def normal_flow(size=2, t1=1.0) -> Transformed:
    """Return the flow whose field is the best one for standard normal data."""
    field = Preconditioned(MLP((size,), width=4, depth=0, key=jax.random.key(0)))
    return Transformed(Normal.standard((size,)), CNF(field, t1=t1))


@pytest.mark.parametrize("time_skew", [1.0, 3.0])
def test_loss_of_the_best_field_is_the_variance_that_no_field_explains(time_skew):
    """For normal data ``Var(x1 - x0 | x_t) = 1 / ((1 - t)^2 + t^2)``, averaged over the times drawn."""
    objective, flow = FlowMatching(time_skew=time_skew), normal_flow()
    keys = jax.random.split(jax.random.key(0), 200)
    rows = jax.random.normal(jax.random.key(1), (200, 256, 2))
    losses = jax.jit(jax.vmap(lambda x, key: objective(flow, Batch(x), key=key)[0]))(rows, keys)
    t = 1 - (1 - (np.arange(100_000) + 0.5) / 100_000) ** time_skew
    expected = np.mean(1 / ((1 - t) ** 2 + t**2))
    assert abs(np.mean(losses) - expected) < 5 * np.std(losses) / np.sqrt(200)


def test_times_are_stratified_and_skewed():
    times = np.asarray(FlowMatching().times(jax.random.key(0), 64))
    np.testing.assert_array_equal(np.floor(times * 64), np.arange(64))
    skewed = np.asarray(FlowMatching(time_skew=3.0).times(jax.random.key(0), 20_000))
    assert np.all((skewed > 0) & (skewed <= 1))
    # P(t < s) = 1 - (1 - s)^(1/3): half of the times lie above 0.875.
    assert abs(np.median(skewed) - 0.875) < 0.01


def test_matching_maps_times_to_those_of_the_flow():
    """A flow over [0, 2] has half the velocity: a field at rest has the same loss, a unit field counts double."""
    rows, key = jnp.zeros((64, 1)) + 5.0, jax.random.key(0)
    matrix = jnp.ones((1, 1))
    short, long = (
        Transformed(Normal.standard((1,)), CNF(LinearField(m), t1=t1)) for m, t1 in ((matrix, 1.0), (matrix / 2, 2.0))
    )
    losses = [FlowMatching()(flow, Batch(rows), key=key)[0] for flow in (short, long)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_optimal_transport_explains_more():
    """Straight pairs leave less variance to a field that is far from best: the one at rest."""
    flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), width=4, depth=0, key=jax.random.key(0))))
    rows = Batch(jax.random.normal(jax.random.key(1), (64, 2)))
    independent, paired = (
        eqx.filter_jit(o)(flow, rows, key=jax.random.key(2))[0]
        for o in (FlowMatching(), FlowMatching(coupling=ExactOT()))
    )
    assert paired < 0.5 * independent


def test_matching_refuses_what_is_no_cnf():
    flow = Transformed(Normal.standard((1,)), Chain([Standardize([0.0], [1.0])]))
    with pytest.raises(
        TypeError, match=r"Expected a flow whose bijection is a CNF, got Chain of \['Standardize'\].*; try"
    ):
        FlowMatching()(flow, Batch(jnp.zeros((4, 1))), key=jax.random.key(0))


def linear_flow(regularizers=()) -> Transformed:
    """Return the flow ``x = e^a z``, whose density and energy are known."""
    cnf = CNF(LinearField(jnp.array([[0.7]])), integrator=Integrator.constant(20), regularizers=regularizers)
    return Transformed(Normal.standard((1,)), cnf)


def test_maximum_likelihood_is_the_mean_nll_plus_weighted_penalties():
    x = np.array([[0.5], [-1.0], [2.0]], np.float32)
    flow = linear_flow((KineticEnergy(weight=0.3),))
    loss, aux = eqx.filter_jit(MaximumLikelihood())(flow, Batch(x), key=jax.random.key(0))
    nll = -np.mean(stats.norm.logpdf(x, scale=np.exp(0.7)))
    # v = a x along x(t) = x(1) e^(a (t - 1)): the energy is a / 4 x(1)^2 (1 - e^(-2 a)).
    energy = np.mean(0.7 / 4 * x**2 * (1 - np.exp(-1.4)))
    np.testing.assert_allclose(aux["kinetic_energy"], 0.3 * energy, rtol=1e-4)
    np.testing.assert_allclose(loss, nll + 0.3 * energy, rtol=1e-4)
    assert aux["evaluations"] == 4 * 20 and aux["failed"] == 0


def test_failed_solves_are_counted_and_spoil_the_loss():
    cnf = CNF(LinearField(jnp.array([[0.7]])), integrator=Integrator.adaptive(1e-6, 1e-6, max_steps=1))
    flow = Transformed(Normal.standard((1,)), cnf)
    loss, aux = eqx.filter_jit(MaximumLikelihood())(flow, Batch(jnp.array([[0.5], [2.0]])), key=jax.random.key(0))
    assert np.isnan(loss) and aux["failed"] == 1


@pytest.mark.parametrize(
    "objective", [FlowMatching(time_skew=2.0), pytest.param(MaximumLikelihood(), marks=pytest.mark.slow)]
)
def test_gradient_agrees_with_finite_differences(x64, objective):
    cnf = random_cnf(2, integrator=Integrator.constant(4, diffrax.Heun()))
    params, static = partition(Transformed(Normal.standard((2,)), cnf))
    batch = Batch(jnp.asarray(np.random.default_rng(0).normal(size=(8, 2))))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
    direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

    @jax.jit
    def along(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return objective(eqx.combine(moved, static), batch, key=jax.random.key(2))[0]

    slope = jax.jit(jax.grad(along))(0.0)
    step = 1e-5
    np.testing.assert_allclose(slope, (along(step) - along(-step)) / (2 * step), rtol=1e-6)
    assert abs(slope) > 1e-3


THROUGH, BACK = diffrax.RecursiveCheckpointAdjoint(), diffrax.BacksolveAdjoint()


@pytest.mark.parametrize(
    ("steps", "adjoint"),
    [
        pytest.param("constant", THROUGH, id="constant-through"),
        pytest.param("constant", BACK, id="constant-back", marks=pytest.mark.slow),
        pytest.param("shared", THROUGH, id="shared-through"),
        pytest.param("shared", BACK, id="shared-back", marks=pytest.mark.slow),
        pytest.param("of each row", THROUGH, id="of each row-through", marks=pytest.mark.slow),
        pytest.param("of each row", BACK, id="of each row-back"),
    ],
)
def test_gradient_of_a_linear_flow_is_that_of_the_matrix_exponential(x64, steps, adjoint):
    """Its divergence is the same at every row, which must not be counted once a row."""
    integrator = {
        "constant": Integrator.constant(100, adjoint=adjoint),
        "shared": Integrator.adaptive(1e-9, 1e-9, adjoint=adjoint).sharing(),
        "of each row": Integrator.adaptive(1e-9, 1e-9, adjoint=adjoint),
    }[steps]
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(9, 2)))

    def loss(matrix):
        flow = Transformed(Normal.standard((2,)), CNF(LinearField(matrix), integrator=integrator))
        return -jnp.mean(flow.log_prob(rows))

    def closed_form(matrix):
        z = rows @ jax.scipy.linalg.expm(-matrix).T
        return jnp.mean(jnp.sum(z**2, axis=1)) / 2 + jnp.trace(matrix)

    matrix = jnp.array([[0.5, -0.8], [0.3, 0.2]])
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(matrix), jax.jit(jax.grad(closed_form))(matrix), atol=1e-6)


@pytest.mark.parametrize(
    "integrator", [Integrator.constant(2), pytest.param(Integrator.adaptive(1e-3, 1e-3), marks=pytest.mark.slow)]
)
def test_the_weights_gradient_is_not_kept_for_each_row(integrator):
    rows, field = jnp.zeros((512, 2)), MLP((2,), width=64, depth=2, key=jax.random.key(0))
    flow = Transformed(Normal.standard((2,)), CNF(field, integrator=integrator))
    params, static = partition(flow)
    # Rows are an argument: the compiler would compute with constants for half a minute.
    loss = lambda p, rows: MaximumLikelihood()(eqx.combine(p, static), Batch(rows), key=jax.random.key(0))[0]
    memory = jax.jit(jax.grad(loss)).lower(params, rows).compile().memory_analysis()
    num_weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert memory.temp_size_in_bytes < 0.8 * 4 * num_weights * len(rows)


def test_mixed_precision_rounds_the_network_alone():
    field = Preconditioned(MLP((3,), width=16, depth=1, key=jax.random.key(0)))
    batch, key = Batch(jax.random.normal(jax.random.key(1), (64, 3))), jax.random.key(2)

    def losses(field):
        flow = Transformed(Normal.standard((3,)), CNF(field))
        value = lambda objective: eqx.filter_value_and_grad(lambda flow: objective(flow, batch, key=key)[0])
        loss = lambda objective: eqx.filter_jit(value(objective))(flow)
        return loss(FlowMatching()), loss(MixedPrecision(FlowMatching()))

    # At rest the closed form is all there is.
    (full, _), (mixed, _) = losses(field)
    assert full == mixed
    moved = jax.tree.map(lambda leaf: leaf + 0.1 if eqx.is_inexact_array(leaf) else leaf, field)
    (full, gradient), (mixed, rounded) = losses(moved)
    assert 0 < abs(full - mixed) < 0.02 * full
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(rounded), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=0.05 * float(jnp.abs(a).max()) + 1e-6)


class Traced(AbstractObjectiveOf):
    """An objective that notes each time that it is traced: once for each program."""

    objective: MaximumLikelihood
    traces: list = eqx.field(static=True)

    def __call__(self, flow, batch, *, key):
        self.traces.append(None)
        return self.objective(flow, batch, key=key)


@pytest.mark.parametrize(("rate", "expected"), [(0.5, 6), (4.5, 8), (6.0, 12), (8.0, 16), (20.0, None)])
def test_there_are_as_many_constant_steps_as_the_loss_needs(rate, expected):
    """Points of ``dx/dt = rate x`` shrink by ``exp(-rate)`` on the way to the base, and the error of n steps is known.

    A step of the fourth order shrinks them by ``1 - h + h^2/2 - h^3/6 + h^4/24``, with ``h = rate/n``.
    """
    flow = Transformed(Normal.standard((1,)), CNF(LinearField(rate * jnp.ones((1, 1)))))
    z = np.random.default_rng(0).normal(size=(256, 1))
    batch, traces = Batch(jnp.asarray(z * np.exp(rate))), []
    found = CheckedSteps(Traced(MaximumLikelihood(), traces)).checked(flow, lambda: (batch, jax.random.key(0)))
    assert found.num_steps == expected
    off = {}
    for n in (6, 8, 12, 16):
        h = rate / n
        stretched = (1 - h + h**2 / 2 - h**3 / 6 + h**4 / 24) ** n * np.exp(rate)
        off[n] = abs(stretched**2 - 1) * np.mean(z**2) / 2
    assert next((n for n, nats in off.items() if nats <= 0.01), None) == expected
    # One by the flow's own steps, and one for all numbers of constant steps.
    assert len(traces) == 2
    assert found.checked(flow, lambda: (batch, jax.random.key(0))).num_steps == expected
    no_loss = Batch(batch.x * jnp.nan)
    assert found.checked(flow, lambda: (no_loss, jax.random.key(0))).num_steps == expected
    assert len(traces) == 2


@pytest.mark.parametrize("scale", [0.1, 0.2])
def test_gradients_by_constant_steps_are_near_the_exact_ones(x64, scale):
    cnf = random_cnf(2, scale=scale)
    flow = lambda integrator: Transformed(Normal.standard((2,)), CNF(cnf.vector_field, integrator=integrator))
    batch, key = Batch(jax.random.normal(jax.random.key(3), (64, 2))), jax.random.key(4)

    def gradient(objective, flow):
        params, static = partition(flow)
        loss = lambda params: objective(eqx.combine(params, static), batch, key=key)[0]
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params))])

    exact = gradient(MaximumLikelihood(), flow(Integrator.constant(64)))
    off = lambda found: np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert off(gradient(CheckedSteps(MaximumLikelihood()), flow(Integrator.adaptive(1e-5, 1e-5)))) < 3e-4

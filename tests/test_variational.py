"""Fits to a density known up to a factor: objective, importance weights and the targets' normalizers."""

import doctest

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import liouville.data._energies as energies
from checks import LinearField
from liouville._types import partition
from liouville.bijections import CNF, Chain, Standardize
from liouville.data import rezende_mohamed, ring_with_two_lobes
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.objectives import Batch
from liouville.papers import (
    Evidence,
    Planar,
    Radial,
    ReverseKL,
    effective_sample_size,
    effective_sample_size_of_target,
    empty_batch,
    evidence,
    log_weights,
)
from liouville.regularizers import KineticEnergy
from liouville.training import Budget, Options, Trainer, TrainingData


def gaussian(scale: float) -> Transformed:
    return Transformed(Normal.standard((1,)), Standardize([0.0], [scale]))


def three_times_normal(x):
    """Three times the standard normal density: its log-normalizer is log 3."""
    return jnp.log(3.0) - 0.5 * jnp.sum(x**2) - 0.5 * x.size * jnp.log(2 * jnp.pi)


def test_reverse_kl_is_the_divergence_less_the_log_normalizer():
    scale = 0.7
    loss, aux = eqx.filter_jit(ReverseKL(three_times_normal))(
        gaussian(scale), Batch(jnp.zeros((40_000, 1))), key=jax.random.key(0)
    )
    # KL(N(0, s^2), N(0, 1)) = (s^2 - 1) / 2 - log s, and log q - log p is (1 - s^2) e^2 / -2 up to constants.
    divergence = (scale**2 - 1) / 2 - np.log(scale)
    std_error = (1 - scale**2) / np.sqrt(2) / np.sqrt(40_000)
    assert abs(loss - (divergence - np.log(3))) < 4 * std_error
    assert aux["failed"] == 0 and aux["evaluations"] == 0


def test_the_batch_gives_the_number_of_draws_and_nothing_else():
    objective, flow, key = ReverseKL(three_times_normal), gaussian(2.0), jax.random.key(0)
    value = lambda rows: objective(flow, Batch(rows), key=key)[0]
    assert value(jnp.zeros((5, 1))) == value(jnp.ones((5, 1))) != value(jnp.zeros((6, 1)))
    own = ReverseKL(three_times_normal, num_samples=5)
    assert own(flow, empty_batch(flow), key=key)[0] == value(jnp.zeros((5, 1)))


def test_reverse_kl_adds_the_penalties_of_a_cnf():
    cnf = CNF(
        LinearField(jnp.array([[0.7]])), integrator=Integrator.constant(20), regularizers=(KineticEnergy(weight=0.3),)
    )
    flow, free = (
        Transformed(Normal.standard((1,)), c) for c in (cnf, CNF(cnf.vector_field, integrator=cnf.integrator))
    )
    batch, key = Batch(jnp.zeros((16, 1))), jax.random.key(0)
    loss, aux = eqx.filter_jit(ReverseKL(three_times_normal))(flow, batch, key=key)
    without, _ = eqx.filter_jit(ReverseKL(three_times_normal))(free, batch, key=key)
    # v = a x along x(t) = z e^(a t): the energy is a / 4 z^2 (e^(2 a) - 1), and x is what the flow draws.
    x = np.asarray(jax.vmap(lambda k: flow._sample(k, None))(jax.random.split(key, 16)))
    energy = np.mean(0.7 / 4 * x**2 * np.exp(-1.4) * (np.exp(1.4) - 1))
    np.testing.assert_allclose(aux["kinetic_energy"], 0.3 * energy, rtol=1e-4)
    np.testing.assert_allclose(loss - without, 0.3 * energy, rtol=1e-4)
    assert aux["evaluations"] == 4 * 20


def test_gradient_agrees_with_finite_differences(x64):
    bijection = Chain([Planar((2,), key=jax.random.key(0)), Radial((2,), key=jax.random.key(1))])
    params, static = partition(Transformed(Normal.standard((2,)), bijection))
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    rng, objective = np.random.default_rng(1), ReverseKL(ring_with_two_lobes().log_density)
    direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

    @jax.jit
    def along(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return objective(eqx.combine(moved, static), Batch(jnp.zeros((16, 2))), key=jax.random.key(2))[0]

    slope = jax.jit(jax.grad(along))(0.0)
    np.testing.assert_allclose(slope, (along(1e-5) - along(-1e-5)) / 2e-5, rtol=1e-6)
    assert abs(slope) > 1e-3


def test_training_without_a_table_finds_a_gaussian():
    """The empty table gives no more than the number of draws, and a fit that can be perfect is."""
    target = lambda x: -0.5 * jnp.sum(((x - 1.0) / 0.5) ** 2)
    trainer = Trainer(
        lambda key: Transformed(Normal(np.zeros(2), np.ones(2), trainable=True), Standardize(np.zeros(2), np.ones(2))),
        ReverseKL(target),
        TrainingData.pad(np.zeros((1, 2)), np.ones(1)),
        validate=lambda flow: log_weights(flow, target, 500)[1],
        options=Options(learning_rate=0.05, batch_size=64),
        budget=Budget(max_iter=400),
        seed=0,
    )
    flow = trainer.run(goals=(1.0,)).best_flow()
    found = evidence(log_weights(flow, target, 2000, seed=1)[1])
    np.testing.assert_allclose(flow.base.loc, 1.0, atol=0.02)
    np.testing.assert_allclose(np.exp(flow.base.log_scale), 0.5, atol=0.02)
    np.testing.assert_allclose(found.log_normalizer, np.log(2 * np.pi * 0.25), atol=5e-3)
    assert found.effective_sample_size > 0.99


def test_importance_weights_find_the_normalizer_within_their_error():
    """Against many repetitions: the estimate, its standard error, the bound and the share, each has a closed form."""
    scale, num = 1.3, 400
    flow = gaussian(scale)
    found = [evidence(log_weights(flow, three_times_normal, num, seed=seed)[1]) for seed in range(300)]
    values = np.array([f.log_normalizer for f in found])
    assert abs(values.mean() - np.log(3)) < 5 * values.std() / np.sqrt(300) + 1e-3
    np.testing.assert_allclose(np.mean([f.std_error for f in found]), values.std(), rtol=0.15)
    divergence = (scale**2 - 1) / 2 - np.log(scale)
    bounds = np.array([f.lower_bound for f in found])
    assert abs(bounds.mean() - (np.log(3) - divergence)) < 5 * bounds.std() / np.sqrt(300)
    np.testing.assert_allclose(np.mean([f.lower_bound_std_error for f in found]), bounds.std(), rtol=0.15)
    density = lambda x: stats.norm.pdf(x) ** 2 / stats.norm.pdf(x, scale=scale)
    share = 1 / integrate.quad(density, -12, 12)[0]
    np.testing.assert_allclose(np.mean([f.effective_sample_size for f in found]), share, atol=5e-3)
    # The same share from draws of the target instead.
    x = np.random.default_rng(0).normal(size=(40_000, 1))
    from_target = three_times_normal_rows(x) - np.asarray(flow.log_prob(x))
    np.testing.assert_allclose(effective_sample_size_of_target(from_target), share, atol=5e-3)


def three_times_normal_rows(x):
    return np.log(3) + stats.norm.logpdf(x[:, 0])


def test_a_lost_mode_is_seen_from_the_target_alone():
    mixture = lambda x: np.logaddexp(stats.norm.logpdf(x, -6), stats.norm.logpdf(x, 6)) - np.log(2)
    rng = np.random.default_rng(0)
    own = rng.normal(6, 1, 2000)
    target = np.concatenate([own[:1000], rng.normal(-6, 1, 1000)])
    weights = lambda x: mixture(x) - stats.norm.logpdf(x, 6)
    lost = evidence(weights(own))
    assert lost.effective_sample_size > 0.99 and abs(lost.log_normalizer + np.log(2)) < 1e-3
    assert effective_sample_size_of_target(weights(target)) < 1e-6


def test_weights_that_overflow_vanish_or_are_no_numbers():
    assert evidence(np.array([1e4, 1e4])).log_normalizer == 1e4
    np.testing.assert_allclose(evidence(np.array([-np.inf, 0.0])).log_normalizer, -np.log(2))
    assert evidence(np.full(3, -np.inf)).log_normalizer == -np.inf
    assert effective_sample_size(np.array([-np.inf, 0.0])) == 0.5
    assert np.all(np.isnan(evidence(np.array([np.nan, 0.0, 1.0]))))
    with pytest.raises(ValueError, match="Expected 2 or more draws .* got 1; try"):
        evidence(np.zeros(1))
    assert Evidence._fields[0] == "log_normalizer"


def polar_mass() -> float:
    """Return the ring's integral by adaptive quadrature in polar coordinates, from the paper's formula."""

    def density(r, angle):
        left, right = (np.exp(-0.5 * ((r * np.cos(angle) - side) / 0.6) ** 2) for side in (2, -2))
        return r * np.exp(-0.5 * ((r - 2) / 0.4) ** 2) * (left + right)

    return integrate.dblquad(density, 0, 2 * np.pi, 0, 8)[0]


@pytest.mark.parametrize("index", range(4))
def test_normalizers_against_other_quadratures(index):
    energy = rezende_mohamed()[index]
    # Across a wave is a Gaussian, or two; along it stand the walls: a flat part and half a Gaussian at each end.
    bell = np.sqrt(2 * np.pi)
    widths = (None, 0.4, 0.35 + 0.35, 0.4 + 0.35)
    truth = polar_mass() if index == 0 else (8 + 0.4 * bell) * bell * widths[index]
    np.testing.assert_allclose(energy.log_normalizer(400), np.log(truth), atol=1e-5)


@pytest.mark.parametrize("index", range(4))
def test_draws_of_a_target_have_its_moments(index):
    energy = rezende_mohamed()[index]
    points, area = energy.grid(300)
    mass = np.exp(np.asarray(energy.log_density(jnp.asarray(points)), np.float64) - energy.log_normalizer()) * area
    x = energy.sample(np.random.default_rng(0), 20_000)
    for moment in (lambda p: p[..., 0], lambda p: p[..., 1] ** 2, lambda p: p[..., 0] * p[..., 1]):
        truth = np.sum(mass * moment(points))
        assert abs(moment(x).mean() - truth) < 5 * moment(x).std() / np.sqrt(20_000)
    slope = jax.grad(energy.log_density)(jnp.zeros(2))
    assert np.all(np.isfinite(slope))


def test_ring_has_two_lobes_and_is_the_same_both_ways():
    log_density = ring_with_two_lobes().log_density
    at = lambda *x: float(log_density(jnp.array(x, jnp.float32)))
    np.testing.assert_allclose(at(2.0, 0.0), at(-2.0, 0.0))
    assert at(2.0, 0.0) > at(1.5, 1.2) > at(0.0, 2.0) > at(0.0, 0.0)


@pytest.mark.parametrize(
    ("energy", "ridges", "between"),
    [
        (energies.sine_wave, [(1.0, 1.0), (-1.0, -1.0), (2.0, 0.0)], (1.0, -1.0)),
        (energies.split_wave, [(1.0, 1.0), (1.0, -2.0), (-3.0, 1.0)], (1.0, -0.5)),
        (energies.forked_wave, [(3.0, -1.0), (3.0, -4.0), (-1.0, -1.0)], (3.0, -2.5)),
    ],
)
def test_waves_have_their_ridges_where_the_paper_draws_them(energy, ridges, between):
    """The normalizer knows nothing of where a ridge is: it is the same wherever it is moved, up or down."""
    log_density = energy().log_density
    values = [float(log_density(jnp.array(x))) for x in ridges]
    assert np.all(np.array(values) > -0.05) and float(log_density(jnp.array(between))) < -5


def test_draws_fill_the_cells_of_their_grid():
    x, width = ring_with_two_lobes().sample(np.random.default_rng(0), 4000, num_cells=8), 12 / 8
    place = (x + 6) / width % 1
    # Kolmogorov's distance of 8,000 uniform draws is below 0.0182 with probability 0.99.
    assert stats.kstest(place.ravel(), "uniform").statistic < 0.0182


def test_examples_in_docstrings_run():
    assert doctest.testmod(energies).failed == 0

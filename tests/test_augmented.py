"""The bound of an augmented flow, against a Gaussian whose marginal is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from checks import LinearField, ShiftField
from liouville._types import parameters
from liouville.bijections import CNF
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.objectives import Batch, MaximumLikelihood
from liouville.papers import AugmentedBound
from liouville.regularizers import KineticEnergy

# Strong ties between x and e: the bound of a single draw is a quarter of a nat off and more.
MATRIX = np.array([[0.3, -0.4, 0.8], [0.2, 0.1, 0.6], [0.7, 0.5, 0.2]])
COVARIANCE = linalg.expm(MATRIX) @ linalg.expm(MATRIX).T
POINTS = np.array([[0.3, -0.5], [1.5, 1.0], [0.0, 0.0]])
FINE = Integrator.constant(8)


def linear_flow(**kwargs) -> Transformed:
    return Transformed(Normal.standard((3,)), CNF(LinearField(jnp.asarray(MATRIX)), integrator=FINE, **kwargs))


@eqx.filter_jit
def many(density, num_keys, x=POINTS):
    """Return the bound under many keys, of shape ``(keys, points)``."""
    keys = jax.random.split(jax.random.key(0), num_keys)
    return jax.vmap(lambda key: density.log_prob(x, key=key))(keys)


def expected_bound(x, scale=1.0, num_augmented=1) -> float:
    """Return ``E_q[log p(x, e) - log q(e)]`` by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    grid = np.stack(np.meshgrid(*[nodes] * num_augmented), axis=-1).reshape(-1, num_augmented)
    weight = (
        np.prod(np.stack(np.meshgrid(*[weights] * num_augmented), axis=-1), axis=-1).ravel()
        / weights.sum() ** num_augmented
    )
    e = scale * grid
    joint = np.concatenate([np.broadcast_to(x, (len(e), len(x))), e], axis=1)
    log_weights = stats.multivariate_normal(np.zeros(3), COVARIANCE).logpdf(joint) - stats.norm.logpdf(
        e, scale=scale
    ).sum(1)
    return float(weight @ log_weights)


@pytest.mark.parametrize(("num_augmented", "scale"), [(1, 1.0), (1, 0.5), (2, 1.0)])
def test_mean_of_single_draws_is_the_bound(num_augmented, scale):
    auxiliary = Normal(np.zeros(num_augmented), scale)
    density = AugmentedBound(linear_flow(), num_augmented, 8, importance_weighted=False, auxiliary=auxiliary)
    x = POINTS[:, : 3 - num_augmented]
    values = np.asarray(many(density, 500, x), np.float64)
    expected = [expected_bound(row, scale, num_augmented) for row in x]
    std_error = values.std(0) / np.sqrt(500)
    assert np.all(np.abs(values.mean(0) - expected) < 5 * std_error)
    truth = stats.multivariate_normal(np.zeros(3 - num_augmented), COVARIANCE[: 3 - num_augmented, : 3 - num_augmented])
    # The bounds lie below the truth by more than the test's own error: nothing else would be shown.
    assert np.all(np.asarray(expected) < truth.logpdf(x) - 10 * std_error)


@pytest.mark.slow
def test_importance_weights_tighten_the_bound_to_the_log_density():
    truth = stats.multivariate_normal(np.zeros(2), COVARIANCE[:2, :2]).logpdf(POINTS)
    means = []
    for num_samples in (1, 16, 1024):
        values = np.asarray(many(AugmentedBound(linear_flow(), 1, num_samples), 100), np.float64)
        assert np.all(values.mean(0) - 4 * values.std(0) / 10 < truth)
        means.append(values.mean(0))
    assert np.all(means[0] < means[1] - 0.05) and np.all(means[1] < means[2])
    np.testing.assert_allclose(means[2], truth, atol=0.01)
    assert AugmentedBound.is_lower_bound


def test_weights_of_equal_draws_change_nothing():
    """Where `e` is independent of `x` and has the distribution q, every draw is the log-density itself."""
    for importance_weighted in (True, False):
        density = AugmentedBound(Normal.standard((3,)), 1, 4, importance_weighted)
        values = eqx.filter_jit(density.log_prob)(POINTS, key=jax.random.key(1))
        np.testing.assert_allclose(values, stats.norm.logpdf(POINTS).sum(1), rtol=1e-5)


def test_samples_have_the_marginal_and_come_with_its_bound():
    density = AugmentedBound(linear_flow(), 1, 512)
    assert density.shape == (2,) and density.cond_shape is None
    draw = eqx.filter_jit(
        lambda d: (d.sample(jax.random.key(0), (4000,)), d.sample_and_log_prob(jax.random.key(1), (50,)))
    )
    x, (points, log_probs) = draw(density)
    assert x.shape == (4000, 2) and points.shape == (50, 2)
    # The standard error of a covariance of 4,000 normal rows is below 4% of the variances.
    np.testing.assert_allclose(np.cov(x.T), COVARIANCE[:2, :2], atol=0.15 * COVARIANCE[:2, :2].max())
    truth = stats.multivariate_normal(np.zeros(2), COVARIANCE[:2, :2]).logpdf(points)
    # Where x is rare, q misses the e that go with it, and the bound is loose.
    assert np.median(np.abs(log_probs - truth)) < 0.1 and np.mean(log_probs) < np.mean(truth)


@pytest.mark.parametrize("importance_weighted", [True, False])
def test_report_has_the_spread_and_the_costs_of_all_draws(importance_weighted):
    density = AugmentedBound(linear_flow(regularizers=(KineticEnergy(weight=2.0),)), 1, 64, importance_weighted)
    x, keys = jnp.asarray(POINTS[0]), jax.random.split(jax.random.key(0), 400)
    log_prob, report = eqx.filter_jit(jax.vmap(lambda key: density._log_prob_and_report(x, None, key)))(keys)
    np.testing.assert_allclose(np.mean(report.variance), np.var(log_prob), rtol=0.3)
    assert np.all(report.info.num_evaluations == 64 * 4 * 8) and not np.any(report.info.failed)
    assert np.all(report.penalties["kinetic_energy"] > 0)
    single = eqx.filter_jit(AugmentedBound(linear_flow(), 1, 1)._log_prob_and_report)(x, None, keys[0])[1]
    assert np.isnan(single.variance)


def test_a_failed_draw_is_nan_and_says_why():
    cnf = CNF(LinearField(jnp.asarray(MATRIX)), integrator=Integrator.adaptive(1e-6, 1e-6, max_steps=1))
    density = AugmentedBound(Transformed(Normal.standard((3,)), cnf), 1, 2)
    log_prob, report = eqx.filter_jit(density._log_prob_and_report)(jnp.asarray(POINTS[0]), None, jax.random.key(0))
    assert np.isnan(log_prob) and report.info.status == 1


def test_likelihood_trains_on_the_bound():
    density = AugmentedBound(linear_flow(), 1, 4)
    value_and_grad = eqx.filter_value_and_grad(
        lambda d: MaximumLikelihood()(d, Batch(jnp.asarray(POINTS)), key=jax.random.key(3))[0]
    )
    loss, grads = eqx.filter_jit(value_and_grad)(density)
    truth = stats.multivariate_normal(np.zeros(2), COVARIANCE[:2, :2]).logpdf(POINTS)
    assert -np.mean(truth) - 0.5 < loss < -np.mean(truth) + 1.5
    leaves = jax.tree.leaves(parameters(grads))
    assert leaves and all(np.all(np.isfinite(leaf)) for leaf in leaves) and np.any(leaves[0] != 0)


def test_condition_reaches_the_flow():
    density = AugmentedBound(Transformed(Normal.standard((2,)), CNF(ShiftField((2,)), integrator=FINE)), 1, 4)
    assert density.cond_shape == (2,)
    condition = jnp.array([3.0, 0.0])
    value = eqx.filter_jit(density.log_prob)(jnp.array([3.5]), condition, key=jax.random.key(0))
    np.testing.assert_allclose(value, stats.norm.logpdf(0.5), rtol=1e-4)
    assert abs(np.mean(eqx.filter_jit(density.sample)(jax.random.key(0), (200,), condition)) - 3.0) < 0.4


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"Expected a key .* got None; try log_prob\(x, key=key\)"):
        AugmentedBound(linear_flow(), 1).log_prob(POINTS)
    for num_augmented in (0, 3):
        with pytest.raises(ValueError, match="Expected a flow over vectors that are longer than num_augmented"):
            AugmentedBound(linear_flow(), num_augmented)
    with pytest.raises(ValueError, match="Expected a flow over vectors"):
        AugmentedBound(linear_flow(), 1, auxiliary=Normal.standard((2,)))
    with pytest.raises(ValueError, match="Expected num_samples of at least 1, got 0; try"):
        AugmentedBound(linear_flow(), 1, 0)

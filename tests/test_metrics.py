"""Baselines against distributions whose density is known."""

import numpy as np
import pytest
from scipy import integrate, stats

from liouville.data import banana, six_gaussians, three_modes, two_moons
from liouville.metrics import bits_per_dim, evaluate_baselines, likelihood


def test_likelihood_is_a_mean_with_its_standard_error():
    log_prob = np.random.default_rng(0).normal(-3.0, 2.0, 400)
    result = likelihood("a", log_prob)
    assert result.nll == pytest.approx(-log_prob.mean())
    assert result.std_error == pytest.approx(stats.sem(log_prob))
    with pytest.raises(ValueError, match="Expected 2 or more rows"):
        likelihood("a", log_prob[:1])


def test_bits_per_dim_of_a_uniform_byte():
    # A uniform density over 256 values has 8 bits per column.
    assert bits_per_dim(3 * np.log(256.0), 3) == pytest.approx(8.0)


def test_baselines_reach_the_truth_of_a_gaussian_in_its_own_units():
    rng, scale = np.random.default_rng(1), np.array([[1e3, 0.0], [5e2, 1e3]])
    train, test = (rng.normal(size=(n, 2)) @ scale.T + [7.0, -2.0] for n in (4000, 2000))
    truth = likelihood("truth", stats.multivariate_normal([7.0, -2.0], scale @ scale.T).logpdf(test))
    for baseline in evaluate_baselines(train, test):
        gap = baseline.nll - truth.nll
        # The kernel pays for what it does not know; the others have the right form.
        assert -0.01 < gap < (0.1 if "kernel" in baseline.name else 0.01), baseline


def test_the_mixture_finds_six_gaussians():
    target, rng = six_gaussians(), np.random.default_rng(2)
    train, test = target.sample(rng, 5000), target.sample(rng, 3000)
    gaussian, mixture, kernel = evaluate_baselines(train, test)
    truth = -target.log_prob(test).mean()
    assert mixture.nll - truth < 0.02
    assert mixture.nll < kernel.nll < gaussian.nll


@pytest.mark.parametrize("make", [six_gaussians, three_modes, banana, two_moons])
def test_targets_sample_from_their_density(make):
    target = make()
    rows = target.sample(np.random.default_rng(3), 200_000)
    # Importance weights from a wide Student density average to one where the log-density is normalized.
    wide = stats.multivariate_t(rows.mean(0), 2.0 * np.atleast_2d(np.cov(rows.T)), df=3, seed=4)
    points = np.asarray(wide.rvs(200_000)).reshape(-1, target.size)
    weights = np.exp(target.log_prob(points) - wide.logpdf(points))
    assert abs(weights.mean() - 1) < 4 * stats.sem(weights)
    # And the samples have it: the mean log-density of samples equals that of the weighted points.
    log_prob = target.log_prob(points)
    error = np.hypot(stats.sem(weights * log_prob), stats.sem(target.log_prob(rows)))
    assert abs((weights * log_prob).mean() - target.log_prob(rows).mean()) < 4 * error


@pytest.mark.parametrize(("radius", "noise"), [(2.0, 0.2), (1.0, 3.0)])
def test_moons_are_their_integral_and_integrate_to_one(radius, noise):
    target = two_moons(radius, noise)
    side = np.linspace(-1.6 * radius - 6 * noise, 1.6 * radius + 6 * noise, 241)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    mass = np.exp(target.log_prob(grid)).sum() * (side[1] - side[0]) ** 2
    assert abs(mass - 1) < 1e-6
    for point in ([0.1, 0.4], [-radius, -1.0]):
        arc = lambda a, s: s * radius * np.array([np.cos(a) - 0.5, np.sin(a)])
        kernel = lambda a, s, x=point, arc=arc: stats.multivariate_normal(arc(a, s), noise**2).pdf(x)
        expected = np.mean([integrate.quad(kernel, 0, np.pi, (s,), epsabs=1e-13)[0] / np.pi for s in (1, -1)])
        np.testing.assert_allclose(np.exp(target.log_prob(np.array([point]))[0]), expected, rtol=1e-8)

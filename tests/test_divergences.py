"""Divergences against the trace of the autodiff Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import check_hutchinson
from liouville.divergences import Exact, Hutchinson


def swirl(x):
    """A map whose Jacobian is full and depends on the point."""
    flat = jnp.ravel(x)
    return (jnp.sin(flat) * jnp.sum(flat**2) + jnp.roll(flat, 1)).reshape(x.shape)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2), (15, 10)])
def test_exact_is_the_trace_of_the_jacobian(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    value, divergence = jax.jit(lambda x: Exact()(swirl, x, Exact().init(x, None)))(x)
    jacobian = jax.jit(jax.jacfwd(lambda flat: swirl(flat.reshape(shape)).ravel()))(x.ravel())
    np.testing.assert_allclose(value, swirl(x), rtol=1e-6)
    np.testing.assert_allclose(divergence, np.trace(jacobian), rtol=1e-5)


@pytest.mark.parametrize("num_probes", [1, 4])
@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_and_its_variance_falls_with_the_probes(noise, num_probes):
    check_hutchinson(Hutchinson(noise, num_probes), num_probes)


def test_hutchinson_gives_one_estimate_per_probe_and_averages_them():
    x, divergence = jnp.array([0.3, -1.0, 0.5]), Hutchinson(num_probes=6)
    noise = divergence.init(x, jax.random.key(1))
    local = divergence.linearize(swirl, x, noise)
    value, estimates = local.value, local.estimates
    jacobian = np.asarray(jax.jacfwd(swirl)(x))
    by_hand = [e @ jacobian @ e for e in np.asarray(noise)]
    np.testing.assert_allclose(estimates, by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(divergence(swirl, x, noise)[1], np.mean(by_hand), rtol=1e-4)
    np.testing.assert_allclose(value, swirl(x), rtol=1e-6)


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_reverse_mode_estimates_the_same_number_from_the_transposed_jacobian(noise):
    x = jnp.array([0.3, -1.0, 0.5])
    forward, reverse = Hutchinson(noise, 5), Hutchinson(noise, 5, "reverse")
    probes = forward.init(x, jax.random.key(2))
    jacobian = np.asarray(jax.jacfwd(swirl)(x))
    np.testing.assert_allclose(
        reverse.linearize(swirl, x, probes).estimates, forward.linearize(swirl, x, probes).estimates, rtol=1e-4
    )
    np.testing.assert_allclose(forward.linearize(swirl, x, probes).products, probes @ jacobian.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reverse.linearize(swirl, x, probes).products, probes @ jacobian, rtol=1e-4, atol=1e-5)


def test_signs_are_exact_where_the_jacobian_is_diagonal():
    x = jnp.array([0.5, -1.0, 2.0])
    keys = jax.random.split(jax.random.key(0), 8)
    draw = lambda divergence, key: divergence(lambda x: x**3, x, divergence.init(x, key))[1]
    signs, normals = (
        jax.jit(jax.vmap(lambda k, d=d: draw(d, k)))(keys) for d in (Hutchinson(), Hutchinson("gaussian"))
    )
    expected = float(jnp.sum(3 * x**2))
    np.testing.assert_allclose(signs, expected, rtol=1e-6)
    assert np.all(np.abs(normals - expected) > 1e-3)


def test_noise_is_reproducible_and_fresh_for_each_key():
    x, divergence = jnp.zeros((2, 2)), Hutchinson(num_probes=5)
    first, again, other = (divergence.init(x, jax.random.key(seed)) for seed in (0, 0, 1))
    assert first.shape == (5, 2, 2)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert set(np.unique(first)) == {-1.0, 1.0}
    assert len(np.unique(np.asarray(first).reshape(5, -1), axis=0)) > 1


def test_hutchinson_needs_a_key_and_exact_none():
    with pytest.raises(ValueError, match="Expected a key .* got None; try"):
        Hutchinson().init(jnp.zeros(2), None)
    assert Exact().init(jnp.zeros(2), None) is None


@pytest.mark.parametrize("options", [{"noise": "uniform"}, {"num_probes": 0}, {"mode": "sideways"}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="Expected .* got .*; try"):
        Hutchinson(**options)

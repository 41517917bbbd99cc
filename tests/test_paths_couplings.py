"""Paths against autodiff, couplings against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from liouville.couplings import ExactOT, Independent
from liouville.paths import LinearPath

PATHS = {"linear": LinearPath()}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_velocity_is_the_derivative_of_the_path(name, t):
    x0, x1 = jnp.array([1.0, -2.0]), jnp.array([[3.0, 0.5]])[0]
    position = lambda t: PATHS[name](x0, x1, t)[0]
    expected, slope = jax.jvp(position, (jnp.asarray(t),), (jnp.asarray(1.0),))
    x, velocity = PATHS[name](x0, x1, t)
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    np.testing.assert_allclose(velocity, slope, rtol=1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_path_goes_from_base_to_data(name):
    x0, x1 = jnp.array([1.0, -2.0]), jnp.array([3.0, 0.5])
    np.testing.assert_allclose(PATHS[name](x0, x1, 0.0)[0], x0)
    np.testing.assert_allclose(PATHS[name](x0, x1, 1.0)[0], x1)


@pytest.mark.parametrize("shape", [(40, 3), (40, 2, 2)])
def test_exact_ot_finds_the_optimum(shape):
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=shape).astype(np.float32), (2 + 3 * rng.normal(size=shape)).astype(np.float32)
    y0, y1 = map(np.asarray, jax.jit(lambda *args: ExactOT()(*args, key=jax.random.key(0)))(x0, x1))
    cost = cdist(x0.reshape(40, -1), x1.reshape(40, -1), "sqeuclidean")
    best = cost[linear_sum_assignment(cost)].sum()
    np.testing.assert_allclose(np.sum((y0 - y1) ** 2), best, rtol=1e-5)
    assert best < 0.9 * np.trace(cost)
    # A pairing, not a choice: every point is there once.
    np.testing.assert_array_equal(np.sort(y1.reshape(40, -1), axis=0), np.sort(x1.reshape(40, -1), axis=0))
    np.testing.assert_array_equal(y0, x0)


def test_independent_leaves_the_batches_alone():
    x0, x1 = np.arange(4.0)[:, None], np.arange(4.0)[::-1, None]
    y0, y1 = Independent()(x0, x1, key=jax.random.key(0))
    assert y0 is x0 and y1 is x1

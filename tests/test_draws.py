"""Initial weights drawn on the host: the numbers that JAX draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liouville._draws import first_key, split, uniform
from liouville.vector_fields import MLP

SEEDS = (0, 1, 2**31 - 2)


def data_of(keys) -> np.ndarray:
    return np.stack([np.asarray(jax.random.key_data(key)) for key in keys])


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_and_numbers_are_those_of_jax(seed):
    key = jax.random.key(seed)
    np.testing.assert_array_equal(data_of([first_key(seed)]), data_of([key]))
    np.testing.assert_array_equal(data_of(split(key, 5)), data_of(jax.random.split(key, 5)))
    for size, bound in ((0, 1.0), (1, 0.3), (4097, 1 / np.sqrt(3))):
        drawn, expected = uniform(key, size, bound), jax.random.uniform(key, (size,), minval=-bound, maxval=bound)
        assert drawn.dtype == expected.dtype
        # XLA rounds once or twice, as it is told to compile.
        np.testing.assert_allclose(drawn, expected, rtol=0, atol=bound * 2**-23)


def test_numbers_of_double_precision_are_those_of_jax_but_for_rounding():
    with jax.enable_x64(True):
        drawn = uniform(jax.random.key(3), 1000, 0.3)
        expected = jax.random.uniform(jax.random.key(3), (1000,), minval=-0.3, maxval=0.3)
    assert drawn.dtype == np.float64
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-16)


def test_a_network_built_in_a_compiled_function_is_the_same():
    build = lambda key: jax.tree.leaves(eqx.filter(MLP((2,), width=8, depth=1, key=key), eqx.is_array))
    keys = jax.random.split(jax.random.key(0), 3)
    ensemble = jax.vmap(build)(keys)
    for i, key in enumerate(keys):
        for leaf, several in zip(build(key), ensemble, strict=True):
            np.testing.assert_allclose(several[i], leaf, rtol=0, atol=2e-7)


def test_other_generators_draw_by_themselves():
    key = jax.random.key(0, impl="rbg")
    np.testing.assert_array_equal(data_of(split(key, 3)), data_of(jax.random.split(key, 3)))
    drawn = jnp.asarray(uniform(key, 7, 2.0))
    np.testing.assert_array_equal(drawn, jax.random.uniform(key, (7,), minval=-2.0, maxval=2.0))

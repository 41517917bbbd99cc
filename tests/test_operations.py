"""Counts of operations, against XLA's."""

import jax
import jax.numpy as jnp
import pytest

from liouville._operations import count_operations
from liouville.vector_fields import MLP, ConvNet, UNet

FIELDS = {
    "mlp": MLP((64,), width=128, depth=2, key=jax.random.key(0)),
    "conv": ConvNet((8, 8, 1), width=16, depth=2, key=jax.random.key(0)),
    "unet": UNet((8, 8, 1), width=16, depth=1, key=jax.random.key(0)),
}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("derivative", [False, True])
def test_products_are_nearly_all_that_xla_counts(name, derivative):
    field = FIELDS[name]
    velocity = lambda x: field(jnp.asarray(0.5), x)
    fn = jax.grad(lambda x: jnp.sum(velocity(x))) if derivative else velocity
    x = jnp.ones(field.shape)
    assert count_operations(fn, x) == pytest.approx(jax.jit(fn).lower(x).cost_analysis()["flops"], rel=0.1)


def test_loops_of_known_length_count_as_often_as_they_run():
    matrix, x = jnp.ones((3, 3)), jnp.ones(3)
    loop = lambda x: jax.lax.fori_loop(0, 7, lambda _, x: matrix @ x, x)
    assert count_operations(loop, x) == 7 * 2 * 9


def test_convolutions_count_by_kernel_and_place():
    convolve = lambda x, w: jax.lax.conv_general_dilated(x, w, (2, 2), "SAME")
    assert count_operations(convolve, jnp.ones((1, 3, 8, 8)), jnp.ones((5, 3, 3, 3))) == 2 * 5 * 4 * 4 * 3 * 9

"""Pictures: fields, flows at several scales, dequantization."""

import functools
import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from liouville._types import parameters, partition
from liouville.bijections import CNF, Leading, Logit, Split, Squeeze, Standardize, multiscale
from liouville.density import Density
from liouville.dequantization import UniformDequantization, VariationalDequantization
from liouville.distributions import Normal, Transformed
from liouville.frames import Frame
from liouville.integrate import Integrator
from liouville.metrics import bits_per_dim
from liouville.objectives import Batch, Encoded, FlowMatching, MaximumLikelihood
from liouville.vector_fields import MLP, ConvNet, LowPrecision, UNet
from liouville.vector_fields._conv import as_convolution, as_product

FIELDS = {
    "concat": lambda shape, cond, key: ConvNet(shape, width=4, depth=2, cond_shape=cond, key=key),
    "concat_squash": lambda shape, cond, key: ConvNet(
        shape, width=4, depth=2, cond_shape=cond, conditioning="concat_squash", key=key
    ),
    "unet": lambda shape, cond, key: UNet(shape, width=8, depth=1, multipliers=(1, 2), cond_shape=cond, key=key),
}


def shaken(tree, seed, size=0.3):
    """Return a module with noise on all its parameters, so that nothing is zero."""
    rng = np.random.default_rng(seed)
    params, static = partition(tree)
    noise = lambda leaf: leaf + jnp.asarray(size * rng.normal(size=leaf.shape), leaf.dtype)
    return eqx.combine(jax.tree.map(noise, params), static)


@functools.cache
def made(name, shape):
    """Return one of the fields, of a condition of three; made once, as drawing weights is most of the time."""
    return eqx.filter_jit(lambda key: FIELDS[name](shape, (3,), key))(jax.random.key(0))


@eqx.filter_jit
def call(field, t, x, condition):
    """Return a field's value, compiled as a whole: operation by operation takes far longer."""
    return field(t, x, condition)


@pytest.mark.parametrize(("name", "shape"), [("concat", (6, 5, 3)), ("concat_squash", (6, 5, 3)), ("unet", (8, 8, 1))])
def test_fields_start_at_rest_and_are_told_time_and_condition(name, shape):
    field, x = made(name, shape), jax.random.normal(jax.random.key(1), shape)
    one, other = jnp.eye(3)[0], jnp.eye(3)[1]
    assert not np.any(call(field, jnp.asarray(0.3), x, one))
    field = shaken(field, 2)
    value = call(field, jnp.asarray(0.3), x, one)
    assert value.shape == shape
    assert np.all(np.isfinite(value))
    for t, point, condition in ((0.4, x, one), (0.3, x, other), (0.3, x + 0.1, one)):
        assert np.max(np.abs(value - call(field, jnp.asarray(t), point, condition))) > 1e-4


def test_a_field_maps_over_pictures():
    field = shaken(made("unet", (8, 8, 1)), 1)
    x = jax.random.normal(jax.random.key(2), (5, 8, 8, 1))
    t, condition = jnp.asarray(0.5), jnp.eye(3)[0]
    together = jax.jit(jax.vmap(lambda x: field(t, x, condition)))(x)
    np.testing.assert_allclose(together, jnp.stack([call(field, t, one, condition) for one in x]), atol=2e-5)


def test_a_convolution_is_what_its_sum_says():
    field = shaken(ConvNet((4, 5, 2), width=3, depth=0, key=jax.random.key(0)), 1)
    x = np.asarray(jax.random.normal(jax.random.key(2), (4, 5, 2)))
    layer = field.layers[0].convolution
    padded = np.zeros((6, 7, 3))
    padded[1:-1, 1:-1] = np.concatenate([x, np.full((4, 5, 1), 0.7)], axis=-1)
    expected = np.zeros((4, 5, 2)) + np.asarray(layer.bias)
    for i in range(3):
        for j in range(3):
            expected += padded[i : i + 4, j : j + 5] @ np.asarray(layer.weight)[i, j]
    np.testing.assert_allclose(field(0.7, jnp.asarray(x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "number"), [((28, 28, 1), 800_636), ((32, 32, 3), 1_358_868), ((64, 64, 3), 1_996_116)]
)
def test_published_nets_have_as_many_parameters_as_published(shape, number):
    make = lambda key: multiscale(shape, lambda shape, key: ConvNet(shape, key=key), key=key)
    shapes = jax.eval_shape(lambda key: parameters(make(key)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == number


@pytest.mark.parametrize(("shape", "size", "stride"), [((6, 5, 3), 3, 1), ((7, 8, 2), 3, 2), ((4, 4, 2), 1, 1)])
def test_a_product_of_neighbourhoods_is_the_platforms_convolution(shape, size, stride):
    x = jax.random.normal(jax.random.key(0), shape)
    weight = jax.random.normal(jax.random.key(1), (size, size, shape[-1], 4))
    product, convolution = (jax.jit(f, static_argnums=2)(x, weight, stride) for f in (as_product, as_convolution))
    np.testing.assert_allclose(product, convolution, atol=1e-5)


def test_squeeze_puts_each_two_by_two_into_channels():
    x = np.random.default_rng(0).normal(size=(4, 6, 3))
    z = np.asarray(Squeeze((4, 6, 3)).inverse(jnp.asarray(x))).reshape(2, 3, 12)
    for row in range(2):
        for column in range(3):
            for channel in range(3):
                block = x[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel]
                np.testing.assert_allclose(z[row, column, 4 * channel : 4 * channel + 4], block.ravel(), rtol=1e-6)


@pytest.mark.parametrize("bijection", [Squeeze((4, 6, 3)), Split((2, 3, 5)), Leading(Split((2, 1, 3)), (3, 4))])
def test_rearrangements_are_undone(bijection):
    x = jax.random.normal(jax.random.key(0), bijection.shape)
    z, log_det = bijection.inverse_and_log_det(x)
    assert log_det == 0
    assert sorted(np.ravel(z)) == sorted(np.ravel(x))
    np.testing.assert_array_equal(bijection.transform(z), x)


def small_multiscale(key):
    field = lambda shape, key: eqx.filter_jit(lambda key: ConvNet(shape, width=4, depth=1, key=key))(key)
    # Forward mode compiles in a third of the time, and is as good an oracle.
    integrator = Integrator.constant(8, adjoint=diffrax.ForwardMode())
    return shaken(multiscale((8, 8, 1), field, blocks=1, integrator=integrator, key=key), 0)


@pytest.mark.slow
def test_the_log_determinant_of_a_multiscale_flow_is_that_of_its_jacobian():
    flow = small_multiscale(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (8, 8, 1))
    report = eqx.filter_jit(flow.to_base)(x)
    z, log_det = report.x, report.log_det
    jacobian = jax.jit(jax.jacfwd(lambda x: flow.inverse(x.reshape(8, 8, 1)).ravel()))(x.ravel())
    assert abs(log_det) > 0.1
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=2e-3)
    back, minus = eqx.filter_jit(flow.transform_and_log_det)(z)
    np.testing.assert_allclose(back, x, atol=1e-3)
    np.testing.assert_allclose(minus, -log_det, atol=2e-3)
    assert report.info.num_evaluations > 3 * 8


def test_sides_that_are_odd_are_refused():
    with pytest.raises(ValueError, match="even sides"):
        Squeeze((5, 4, 1))


def test_the_logit_is_its_formula_and_survives_the_ends():
    logit = Logit((3,), alpha=1e-5)
    x = np.array([[0.0, 0.3, 1.0]])
    z, log_det = logit.inverse_and_log_det(x)
    squeezed = 1e-5 + (1 - 2e-5) * x
    np.testing.assert_allclose(z, np.log(squeezed / (1 - squeezed)), rtol=1e-9)
    np.testing.assert_allclose(log_det, np.sum(np.log((1 - 2e-5) / squeezed / (1 - squeezed)), axis=1), rtol=1e-9)
    back, minus = logit.transform_and_log_det(z)
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(minus, -log_det)
    assert np.isfinite(logit.transform_and_log_det(np.array([[-800.0, 0.0, 700.0]]))[1]).all()


def test_uniform_pixels_take_as_many_bits_as_they_have():
    identity = Transformed(Normal.standard((6,)), Logit((6,), alpha=0.05))
    x = jnp.array([0, 1, 7, 15, 3, 3])

    class Flat(eqx.Module):
        def _log_prob(self, y, condition, key):
            return jnp.where(jnp.all((y >= 0) & (y < 1)), 0.0, -jnp.inf)

    pictures = Density(identity, Frame((6,), (), 16, UniformDequantization()))
    flat = eqx.tree_at(lambda density: density.core, pictures, Flat())
    bound = flat.log_prob_bound(x, key=jax.random.key(0))
    np.testing.assert_allclose(bits_per_dim(-float(bound), 6), 4.0, rtol=1e-6)


def logit_normal(size, noise=None):
    """Return the density of whole numbers from 0 to 3 of a logit-normal, dequantized."""
    core = Transformed(Normal.standard((size,)), Logit((size,), alpha=0.05))
    return Density(core, Frame((size,), (), 4, noise or UniformDequantization()))


def exact_log_prob(x, alpha, levels):
    """Return the log-probability of whole numbers under a dequantized logit-normal, by its distribution function."""
    edge = lambda k: stats.norm.cdf(np.log(s := alpha + (1 - 2 * alpha) * k / levels) - np.log1p(-s))
    return np.log(edge(x + 1) - edge(x)).sum()


def test_bounds_are_below_the_probability_and_rise_to_it():
    pictures = logit_normal(3)
    x = np.array([0, 1, 3])
    exact = exact_log_prob(x, 0.05, 4)
    bound = lambda k, num: pictures.log_prob_bound(jnp.asarray(x), key=k, num_draws=num)
    keys = jax.random.split(jax.random.key(0), 2000)
    draws = lambda num: np.asarray(jax.jit(jax.vmap(lambda k: bound(k, num)))(keys))
    one, many = draws(1), draws(64)
    error = lambda v: v.std() / math.sqrt(len(v))
    assert one.mean() + 4 * error(one) < exact
    assert many.mean() > one.mean() + 4 * error(one)
    assert abs(many.mean() - exact) < 4 * error(many) + 2e-3
    # The weights are unbiased, whatever the noise.
    weights = np.exp(one - exact)
    assert abs(weights.mean() - 1) < 4 * error(weights)


def test_noise_of_a_flow_gives_unbiased_weights_too():
    field = shaken(MLP((3,), cond_shape=(3,), width=8, depth=1, key=jax.random.key(0)), 1, 0.2)
    # A little wider than the logits of uniform noise, so that no weight is far above the others.
    noise = VariationalDequantization(
        Transformed(Normal(np.zeros(3), np.full(3, 2.2)), CNF(field, integrator=Integrator.constant(10)))
    )
    pictures = logit_normal(3, noise)
    x = np.array([0, 1, 3])
    keys = jax.random.split(jax.random.key(2), 4000)
    bounds = jax.jit(jax.vmap(lambda k: pictures.log_prob_bound(jnp.asarray(x), key=k)))(keys)
    weights = np.exp(np.asarray(bounds))
    exact = np.exp(exact_log_prob(x, 0.05, 4))
    assert abs(weights.mean() - exact) < 4 * weights.std() / math.sqrt(len(weights))
    drawn, _ = eqx.filter_jit(noise.draw)(jnp.asarray(x) / 4, jax.random.key(3))
    assert np.all((drawn > 0) & (drawn < 1))


def test_samples_are_whole_numbers_with_the_right_shares():
    pictures = logit_normal(1)
    x = np.asarray(eqx.filter_jit(pictures.sample)(jax.random.key(0), (20_000,))).ravel()
    expected = np.exp([exact_log_prob(np.array([k]), 0.05, 4) for k in range(4)])
    # What lies beyond the ends is clipped into the outermost values.
    beyond = (1 - expected.sum()) / 2
    expected = expected + beyond * np.array([1, 0, 0, 1])
    shares = np.bincount(x.astype(int), minlength=4) / len(x)
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / math.sqrt(len(x)))


@pytest.mark.parametrize("name", ["concat", "unet"])
def test_a_field_in_low_precision_is_near_the_full_one(name):
    field = shaken(made(name, (8, 8, 1)), 1)
    low, x = LowPrecision(field), jax.random.normal(jax.random.key(2), (8, 8, 1))
    one, t = jnp.eye(3)[0], jnp.asarray(0.3)
    full, rounded = call(field, t, x, one), call(low, t, x, one)
    assert rounded.dtype == full.dtype
    off = jnp.linalg.norm(rounded - full) / jnp.linalg.norm(full)
    assert 1e-5 < off < 0.03
    # Time is not rounded: times that a short number cannot tell apart are two.
    assert name != "unet" or np.any(rounded != call(low, jnp.asarray(0.3001), x, one))
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters(low))} == {jnp.dtype("float32")}


def small_pictures(key):
    field = shaken(MLP((3,), width=8, depth=1, key=key), 0, 0.1)
    links = Logit((3,), alpha=0.05), Standardize([0.1, 0.2, 0.3], [1.0, 2.0, 0.5])
    core = Transformed(Normal.standard((3,)), CNF(field, integrator=Integrator.constant(10)))
    return Density(core, Frame((3,), links, 4, UniformDequantization()))


def test_the_loss_of_dequantized_likelihood_is_the_bound():
    pictures, x = small_pictures(jax.random.key(0)), jnp.array([[0, 1, 3], [2, 2, 0]])
    keys = jax.random.split(jax.random.key(1), 300)
    loss = jax.jit(jax.vmap(lambda k: Encoded(MaximumLikelihood())(pictures, Batch(x), key=k)[0]))(keys)
    bound = jax.jit(jax.vmap(lambda k: jax.vmap(lambda x: pictures.log_prob_bound(x, key=k))(x).mean()))(keys)
    error = math.hypot(np.std(loss), np.std(bound)) / math.sqrt(300)
    assert abs(np.mean(loss) + np.mean(bound)) < 4 * error


def test_dequantized_matching_is_matching_in_the_coordinates_of_the_core():
    pictures, x = small_pictures(jax.random.key(0)), jnp.array([[0, 1, 3], [2, 2, 0]])
    key = jax.random.key(1)
    loss, _ = eqx.filter_jit(Encoded(FlowMatching()))(pictures, Batch(x), key=key)
    noise_key, key = jax.random.split(key)
    noise = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(jax.random.split(noise_key, 2))
    y = (x.astype(noise.dtype) + noise) / 4
    squeezed = 0.05 + 0.9 * y
    z = (jnp.log(squeezed / (1 - squeezed)) - jnp.array([0.1, 0.2, 0.3])) / jnp.array([1.0, 2.0, 0.5])
    np.testing.assert_allclose(loss, eqx.filter_jit(FlowMatching())(pictures.core, Batch(z), key=key)[0], rtol=1e-5)

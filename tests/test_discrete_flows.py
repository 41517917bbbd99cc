"""Planar, radial and residual layers: their inverses and log-determinants against what autodiff and NumPy say."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import DISCRETE, check_log_det, check_mass
from liouville._activations import ACTIVATIONS, activate
from liouville._types import partition
from liouville.bijections import Chain, Invert
from liouville.distributions import Normal, Transformed
from liouville.integrate import STATUS
from liouville.papers import Planar, PowerSeries, Radial, Residual, with_series
from liouville.papers._discrete import LEAST_SLOPE, above_minus_one
from liouville.papers._residual import STEEPEST, spectral_bound

POINTS = np.random.default_rng(1).normal(size=(6, 3)) * np.linspace(0.1, 4, 6)[:, None]


def steep_block(size: int = 3, lipschitz: float = 0.7, **kwargs) -> Residual:
    """Return a block whose Jacobian is large, so that a wrong series would show."""
    block = Residual((size,), width=8, depth=1, lipschitz=lipschitz, key=jax.random.key(1), **kwargs)
    larger = lambda pair: (4 * pair[0], pair[1] + 0.3)
    return eqx.tree_at(lambda b: b.layers, block, tuple(larger(pair) for pair in block.layers))


def true_log_det(bijection, z):
    """Return what autodiff says of the map itself."""
    jacobian = jax.jacfwd(bijection.transform)(z)
    return jnp.linalg.slogdet(jacobian.reshape(z.size, z.size))[1]


@pytest.mark.parametrize("way", ["as it is", "inverted"])
@pytest.mark.parametrize("name", DISCRETE)
def test_round_trip_and_log_det(x64, name, way):
    bijection = DISCRETE[name]((3,))
    check_log_det(bijection if way == "as it is" else Invert(bijection), jnp.asarray(POINTS), atol=1e-7)


@pytest.mark.parametrize("name", DISCRETE)
def test_round_trip_in_float32(name):
    check_log_det(DISCRETE[name]((3,)), jnp.asarray(POINTS, jnp.float32), atol=5e-4)


# Three dimensions, and the layers in a chain, are above.
@pytest.mark.parametrize("shape", [(1,), (2, 3)])
@pytest.mark.parametrize("name", ["planar", "radial", "residual"])
def test_any_dimension(x64, name, shape):
    bijection, z = DISCRETE[name](shape), jnp.asarray(np.random.default_rng(0).normal(size=shape))

    @eqx.filter_jit
    def there_and_back(bijection, z):
        x, log_det = bijection.transform_and_log_det(z)
        return x, log_det, *bijection.inverse_and_log_det(x), true_log_det(bijection, z)

    x, log_det, back, down, truth = there_and_back(bijection, z)
    assert x.shape == back.shape == shape and log_det.shape == ()
    np.testing.assert_allclose(log_det, truth, atol=1e-9)
    np.testing.assert_allclose(down, -log_det, atol=1e-7)
    np.testing.assert_allclose(back, z, atol=1e-7)


# Three strong layers on a line squeeze it to spikes that the grid misses.
@pytest.mark.parametrize("name", ["planar", "radial", "residual"])
def test_density_on_the_line_integrates_to_one(name):
    check_mass(Transformed(Normal.standard((1,)), DISCRETE[name]((1,))), centre=0.0, scale=1.0)


@pytest.mark.parametrize("name", DISCRETE)
def test_numbers_of_training_can_be_moved(name):
    """Parameters are JAX arrays, and the gradient of a log-density reaches each of them, through the inverse."""
    flow = Transformed(Normal.standard((3,)), DISCRETE[name]((3,)))
    params, static = partition(flow)
    loss = lambda params: jnp.mean(eqx.combine(params, static).log_prob(jnp.asarray(POINTS, jnp.float32)))
    leaves = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    assert leaves and all(np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0) for leaf in leaves)


@pytest.mark.parametrize("name", ["planar", "radial", "residual"])
def test_gradient_through_the_inverse_agrees_with_finite_differences(x64, name):
    params, static = partition(DISCRETE[name]((2,)))
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    rng, x = np.random.default_rng(1), jnp.array([0.7, -1.2])
    direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

    @jax.jit
    def along(step):
        z, log_det = eqx.combine(
            jax.tree.map(lambda p, d: p + step * d, params, direction), static
        ).inverse_and_log_det(x)
        return z @ jnp.array([1.0, 2.0]) + log_det

    np.testing.assert_allclose(jax.jit(jax.grad(along))(0.0), (along(1e-5) - along(-1e-5)) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize("far", [1e3, 1e6])
@pytest.mark.parametrize("name", DISCRETE)
def test_far_points_come_back(name, far):
    bijection, z = DISCRETE[name]((2,)), far * jnp.array([1.0, -0.5])
    back = eqx.filter_jit(lambda bijection, z: bijection.inverse(bijection.transform(z)))(bijection, z)
    np.testing.assert_allclose(back, z, rtol=1e-5)


def test_inverses_settle_in_float32_wherever_they_start():
    """Rounding of terms that nearly cancel must not look like an iteration that goes on for ever."""
    rng = np.random.default_rng(0)
    # As steep as its bound allows, with images far from the origin of points near it.
    turn, shift = jnp.asarray(np.linalg.qr(rng.normal(size=(32, 2)))[0], jnp.float32), 3.0
    block = Residual((2,), width=32, depth=1, activation="tanh", key=jax.random.key(0))
    steep = ((50 * turn, jnp.zeros(32)), (50 * turn.T, jnp.full(2, shift)))
    block, planar = eqx.tree_at(lambda b: b.layers, block, steep), DISCRETE["planar"]((2,))
    z = rng.normal(size=(4000, 2)) * np.geomspace(1e-2, 3, 4000)[:, None]
    for layer in (block, planar):
        forward = eqx.filter_jit(eqx.filter_vmap(layer.transform))
        x = forward(jnp.asarray(z, jnp.float32))
        back = eqx.filter_jit(jax.vmap(layer.to_base))(x)
        assert not np.any(back.info.failed)
        np.testing.assert_allclose(forward(back.x), x, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("name", ["planar", "residual"])
def test_a_search_that_fails_is_nan_and_says_so(name):
    bijection = DISCRETE[name]((2,))
    search = eqx.filter_jit(bijection.to_base)
    lost = search(jnp.array([jnp.nan, 1.0]))
    assert np.all(np.isnan(lost.x)) and np.isnan(lost.log_det) and "not finite" in STATUS[int(lost.info.status)]
    found = search(jnp.array([0.3, 1.0]))
    assert not found.info.failed and found.info.num_evaluations > 2


def test_too_few_steps_are_found(monkeypatch):
    block, x = steep_block(max_steps=3), jnp.ones(3)
    moved, alone = eqx.filter_jit(lambda x: (block.to_base(x), block.inverse(x)))(x)
    assert np.all(np.isnan(moved.x)) and np.all(np.isnan(alone)) and "max_steps" in STATUS[int(moved.info.status)]
    monkeypatch.setattr("liouville.papers._planar.MAX_STEPS", 3)
    moved = eqx.filter_jit(DISCRETE["planar"]((3,)).to_base)(x)
    assert np.all(np.isnan(moved.x)) and np.isnan(moved.log_det) and "max_steps" in STATUS[int(moved.info.status)]
    # A chain passes it on.
    chain = Chain([DISCRETE["planar"]((3,)), DISCRETE["radial"]((3,))])
    assert eqx.filter_jit(chain.to_base)(x).info.failed


def planar_and_radial(size: float, seed: int) -> list:
    """Return layers on a line that fold it as much as their constraints allow: raw numbers of a given size."""
    planar, radial = Planar((1,), key=jax.random.key(seed)), Radial((1,), key=jax.random.key(seed))
    against = -jnp.sign(planar.weight) * (1 + jnp.abs(planar.direction)) * size
    return [eqx.tree_at(lambda p: p.direction, planar, against), eqx.tree_at(lambda r: r.strength, radial, -size)]


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_any_parameters_are_invertible(x64, size):
    """What training can reach is constrained: slopes stay positive, whatever the raw numbers are."""
    line = jnp.linspace(-5, 5, 501)[:, None]
    both = eqx.filter_jit(
        lambda layer: (
            jax.vmap(jax.jacfwd(layer.transform))(line),
            jax.vmap(layer.inverse)(jax.vmap(layer.transform)(line)),
        )
    )
    for layer in [layer for seed in range(4) for layer in planar_and_radial(jnp.asarray(size), seed)]:
        slopes, back = both(layer)
        assert np.all(slopes > 0.9 * LEAST_SLOPE) and (size == 1.0 or np.min(slopes) < 0.2)
        np.testing.assert_allclose(back, line, atol=1e-9)


def test_constraint_leaves_zero_alone_and_increases():
    raw = jnp.linspace(-200, 200, 4001)
    values = jax.vmap(above_minus_one)(raw)
    assert abs(above_minus_one(jnp.zeros(()))) < 1e-7 and np.all(np.diff(values) >= 0)
    assert np.all(values >= LEAST_SLOPE - 1) and values[-1] > 190


def test_planar_and_radial_of_zeros_are_the_identity():
    planar = eqx.tree_at(lambda p: p.direction, Planar((2,), key=jax.random.key(0)), jnp.zeros(2))
    radial = eqx.tree_at(lambda r: r.strength, Radial((2,), key=jax.random.key(0)), jnp.zeros(()))
    for layer in (planar, radial):
        x, log_det = layer.transform_and_log_det(jnp.array([0.3, -2.0]))
        np.testing.assert_allclose(x, [0.3, -2.0], atol=1e-6)
        np.testing.assert_allclose(log_det, 0.0, atol=1e-6)


def test_radial_has_a_slope_at_its_centre(x64):
    radial = eqx.tree_at(lambda r: r.strength, DISCRETE["radial"]((3,)), jnp.array(-1.0))
    centre = radial.centre
    np.testing.assert_allclose(radial.transform(centre), centre)
    alpha, beta = radial.constrained()
    for direction in (radial.transform_and_log_det, lambda x: (None, -radial.inverse_and_log_det(x)[1])):
        np.testing.assert_allclose(eqx.filter_jit(direction)(centre)[1], 3 * jnp.log(1 + beta / alpha), atol=1e-12)
    assert np.all(np.isfinite(eqx.filter_jit(jax.jacrev(radial.transform))(centre)))
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: radial.inverse_and_log_det(x)[1]))(centre)))


@pytest.mark.parametrize("shape", [(2, 40), (40, 40), (64, 3), (1, 1)])
def test_spectral_bound_is_above_the_largest_singular_value(shape):
    rng = np.random.default_rng(0)
    for scale in (1e-6, 1.0, 1e6):
        weight = (scale * rng.normal(size=shape)).astype(np.float32)
        exact = np.linalg.norm(weight.astype(np.float64), 2)
        bound = float(spectral_bound(jnp.asarray(weight)))
        assert exact * (1 - 1e-5) < bound < exact * min(shape) ** (1 / 64) * (1 + 1e-5)
    # Alike singular values are the worst case.
    np.testing.assert_allclose(spectral_bound(jnp.eye(64)), 64 ** (1 / 64), rtol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_as_flat_as_is_said(name):
    slopes = jax.jit(jax.vmap(jax.grad(lambda x: activate(name, x))))(jnp.linspace(-10, 10, 20_001))
    assert np.max(np.abs(slopes)) <= STEEPEST.get(name, 1.0) * (1 + 1e-6)
    assert np.max(np.abs(slopes)) > 0.99 * STEEPEST.get(name, 1.0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_blocks_are_contractions_of_the_size_that_is_said(activation):
    block = steep_block(lipschitz=0.9, activation=activation)
    layers, rng = block.flat_layers(), np.random.default_rng(0)
    jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda z: block.branch(layers, z))))
    jacobians = jacobian(jnp.asarray(rng.normal(size=(200, 3)) * 3))
    norms = np.linalg.norm(np.asarray(jacobians), 2, axis=(1, 2))
    assert 0.2 < norms.max() <= 0.9 + 1e-5


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_bound_of_a_block_is_reached(activation):
    """On a line all norms multiply: the steepest slope is the bound itself, no more and hardly less."""
    block = Residual((1,), width=1, depth=1, lipschitz=0.9, activation=activation, key=jax.random.key(0))
    block = eqx.tree_at(lambda b: b.layers, block, tuple((jnp.full((1, 1), 5.0), jnp.zeros(1)) for _ in range(2)))
    slope = jax.jit(jax.vmap(jax.jacfwd(lambda z: block.branch(block.flat_layers(), z))))
    slopes = slope(jnp.linspace(-10, 10, 4001)[:, None])
    assert 0.89 < np.max(np.abs(slopes)) < 0.9 + 1e-5


def test_truncated_series_is_within_its_bound(x64):
    block, points = steep_block(), jnp.asarray(POINTS)
    truth = jax.jit(jax.vmap(lambda z: true_log_det(block, z)))(points)
    worst = {}
    for num_terms in (1, 2, 3, 8, 40):
        series = PowerSeries(num_terms)
        rows = jax.vmap(lambda z, series=series: series(block.branch, block.flat_layers(), z, None))
        log_det, variance = jax.jit(rows)(points)
        worst[num_terms] = np.max(np.abs(log_det - truth))
        assert np.all(variance == 0) and worst[num_terms] <= series.bound(3, block.lipschitz)
    # The bound is no excuse: with few terms there is an error to be seen, and it falls.
    assert 0.02 < worst[1] < 0.2 and worst[8] < 1e-3 * worst[1] and worst[40] < 1e-10


@pytest.mark.parametrize(
    "series", [PowerSeries(2, stop=0.4), PowerSeries(1, stop=0.4, num_probes=2), PowerSeries(25, num_probes=1)]
)
def test_random_series_are_unbiased(x64, series):
    """Value and gradient agree on average with autodiff's, where a sum of as many terms, cut, does not."""
    block, z = steep_block(), jnp.asarray(POINTS[4])
    params, static = partition(with_series(block, series))
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    value = lambda params, z, key: eqx.combine(params, static).transform_and_log_det(z, key=key)[1]
    exact = lambda params, z: true_log_det(eqx.combine(params, static), z)
    keys = jax.random.split(jax.random.key(0), 8000)
    draws, (slopes, towards) = jax.jit(jax.vmap(jax.value_and_grad(value, (0, 1)), (None, None, 0)))(params, z, keys)
    true_slopes, true_towards = jax.jit(jax.grad(exact, (0, 1)))(params, z)
    pairs = [(draws, exact(params, z)), (towards, true_towards)]
    pairs += list(zip(jax.tree.leaves(slopes), jax.tree.leaves(true_slopes), strict=True))
    for found, truth in pairs:
        found = np.asarray(found)
        std_error = found.std(axis=0) / np.sqrt(len(found)) + 1e-12
        # Hundreds of entries are compared: five standard errors are beyond their largest by chance.
        assert np.max(np.abs(found.mean(axis=0) - truth) / std_error) < 5
    cut = PowerSeries(1)(block.branch, block.flat_layers(), z, None)[0]
    assert abs(cut - exact(params, z)) > 10 * np.std(draws) / np.sqrt(len(draws))


def test_gradient_of_the_truncated_series_is_that_of_the_sum(x64):
    block, z, num_terms = steep_block(), jnp.asarray(POINTS[3]), 4

    def plain_sum(layers, z):
        jacobian, power, total = jax.jacfwd(lambda z: block.branch(layers, z))(z), jnp.eye(3), 0.0
        for k in range(1, num_terms + 1):
            power = power @ jacobian
            total -= (-1) ** k / k * jnp.trace(power)
        return total

    found = jax.value_and_grad(lambda *a: PowerSeries(num_terms)(block.branch, *a, None)[0], (0, 1))
    for a, b in zip(
        jax.tree.leaves(jax.jit(found)(block.flat_layers(), z)),
        jax.tree.leaves(jax.jit(jax.value_and_grad(plain_sum, (0, 1)))(block.flat_layers(), z)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_standard_error_is_that_of_the_draws(x64):
    block = with_series(steep_block(), PowerSeries(2, stop=0.4, num_probes=16))
    keys = jax.random.split(jax.random.key(1), 1000)
    moved = jax.jit(jax.vmap(lambda key: block.to_base(jnp.asarray(POINTS[2]), key=key)))(keys)
    np.testing.assert_allclose(np.mean(moved.variance), np.var(moved.log_det), rtol=0.15)
    single = with_series(block, PowerSeries(num_probes=1))
    assert np.isnan(single.to_data(jnp.ones(3), key=jax.random.key(0)).variance)
    assert np.isnan(with_series(block, PowerSeries(stop=0.3)).to_data(jnp.ones(3), key=keys[0]).variance)


def test_series_are_swapped_throughout_a_flow():
    flow = Transformed(Normal.standard((3,)), Invert(Chain([steep_block(), steep_block()])))
    random = with_series(flow, PowerSeries(2, stop=0.3))
    assert all(link.series.stop == 0.3 for link in random.bijection.bijection.links)
    assert eqx.tree_equal(with_series(random, None), flow)
    with pytest.raises(ValueError, match="Expected a key .* got None; try key"):
        random.log_prob(jnp.ones(3))


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="Expected a lipschitz constant between 0 and 1, got 1.0; try"):
        Residual((2,), lipschitz=1.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="Expected an activation"):
        Residual((2,), activation="step", key=jax.random.key(0))
    with pytest.raises(ValueError, match="Expected num_terms and num_probes of at least 1, got .*; try"):
        PowerSeries(0)
    with pytest.raises(ValueError, match="Expected a probability between 0 and 1 for stop, got 1.5; try"):
        PowerSeries(stop=1.5)

"""Distributions: densities that integrate to one, samples that follow them, rows that do not mind their mates."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from checks import ShiftField, check_condition, check_mass, random_cnf, scaled_flow
from liouville._types import parameters
from liouville.bijections import CNF, Chain, Invert, Standardize, Whiten
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.vector_fields import MLP, Preconditioned


@eqx.filter_jit
def log_prob(flow, x):
    return flow.log_prob(x)


def flow_2d(integrator=None) -> Transformed:
    """Return a random flow behind a whitening of correlated data."""
    rows = np.random.default_rng(0).normal(size=(500, 2)) @ np.array([[2.0, 1.0], [0.0, 0.1]])
    bijection = Chain([random_cnf(2, integrator=integrator), Whiten.fit(rows, np.ones(500))])
    return Transformed(Normal.standard((2,)), bijection)


def test_integrates_to_one_on_the_line():
    check_mass(scaled_flow(Standardize), centre=1e3, scale=50.0)


def test_integrates_to_one_in_the_plane():
    # The grid is spanned in whitened coordinates: there the density is round, and the area of a cell is known.
    flow, axis = flow_2d(), np.linspace(-8, 8, 161)
    whiten = flow.bijection.links[1]
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    cell = (axis[1] - axis[0]) ** 2 * np.prod(whiten.scale)
    mass = np.sum(np.exp(np.asarray(log_prob(flow, whiten.transform(grid)), np.float64))) * cell
    np.testing.assert_allclose(mass, 1.0, atol=1e-3)
    # Not the base's density by chance: the weights are random.
    assert np.abs(log_prob(flow, whiten.transform(grid[:10])) - stats.norm.logpdf(grid[:10]).sum(1)).max() > 0.1


def test_samples_carry_their_log_density(x64):
    flow = flow_2d(Integrator.adaptive(1e-5, 1e-5))
    draw = eqx.filter_jit(lambda flow, key: flow.sample_and_log_prob(key, (5,)))
    x, claimed = draw(flow, jax.random.key(0))
    assert x.shape == (5, 2) and claimed.shape == (5,)
    np.testing.assert_allclose(claimed, log_prob(flow, x), atol=1e-3)


def test_samples_follow_the_density():
    flow = scaled_flow(Standardize)
    x = np.asarray(eqx.filter_jit(lambda flow: flow.sample(jax.random.key(1), (3000,)))(flow))[:, 0]
    grid = np.linspace(400, 1600, 2401)
    mass = np.exp(np.asarray(log_prob(flow, grid[:, None]), np.float64))
    cdf = np.cumsum(mass) * (grid[1] - grid[0])
    # 1.95 / sqrt(n) is Kolmogorov's bound with probability 0.999.
    assert stats.kstest(x, lambda q: np.interp(q, grid, cdf)).statistic < 1.95 / np.sqrt(3000)


def test_a_row_does_not_mind_its_mates_nor_its_place(x64):
    """Adaptive steps are each row's own: with a shared step a hard row would move its mates."""
    flow = flow_2d(Integrator.adaptive(1e-5, 1e-5))
    rows = np.random.default_rng(1).normal(size=(5, 2)) * np.linspace(0.1, 6, 5)[:, None]
    together = log_prob(flow, rows)
    alone = [log_prob(flow, row[None])[0] for row in rows]
    np.testing.assert_allclose(together, alone, rtol=1e-7)
    np.testing.assert_allclose(log_prob(flow, rows[::-1])[::-1], together, rtol=1e-7)


def test_normal_is_scipys():
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    loc, scale = np.array([0.0, 1.0, -2.0]), np.array([1.0, 0.1, 5.0])
    value = Normal(loc, scale).log_prob(x)
    np.testing.assert_allclose(value, stats.norm.logpdf(x, loc, scale).sum(-1), rtol=1e-4)
    draws = np.asarray(Normal(loc, scale).sample(jax.random.key(0), (4000,)))
    assert np.all(np.abs(draws.mean(0) - loc) < 5 * scale / np.sqrt(4000))
    assert np.all(np.abs(draws.std(0) / scale - 1) < 5 / np.sqrt(2 * 4000))


def test_a_trainable_normal_has_parameters_and_a_fixed_one_none():
    found = lambda d: jax.tree.leaves(parameters(d))
    assert found(Normal.standard((2,))) == []
    assert [leaf.shape for leaf in found(Normal(np.zeros(2), np.ones(2), trainable=True))] == [(2,), (2,)]


@pytest.mark.parametrize("shape", [(3,), (), (2, 3)])
def test_points_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"Expected points of shape \(\.\.\., 2,\), got .*; try"):
        Normal.standard((2,)).log_prob(np.zeros(shape))


def test_leading_axes_are_kept():
    x = np.zeros((4, 5, 2))
    assert Normal.standard((2,)).log_prob(x).shape == (4, 5)
    assert Normal.standard((2,)).log_prob(x[0, 0]).shape == ()
    assert Normal.standard((2,)).sample(jax.random.key(0)).shape == (2,)
    points, log_probs = Normal.standard((2,)).sample_and_log_prob(jax.random.key(0), (3, 4))
    assert points.shape == (3, 4, 2) and log_probs.shape == (3, 4)


def test_a_conditional_flow_uses_its_condition():
    check_condition(lambda cnf: Transformed(Normal.standard((1,)), cnf))


def test_shapes_come_from_the_bijection():
    field = MLP((2,), width=4, depth=0, cond_shape=(3,), key=jax.random.key(0))
    flow = Transformed(Normal.standard((2,)), Chain([CNF(field), Standardize(jnp.zeros(2), jnp.ones(2))]))
    assert flow.shape == (2,) and flow.cond_shape == (3,)


def shifting() -> Transformed:
    """Return the normal distribution around its condition, solved exactly by one step."""
    return Transformed(Normal.standard((1,)), CNF(ShiftField((1,)), integrator=Integrator.constant(1, diffrax.Euler())))


def test_leading_axes_of_points_and_conditions_are_broadcast():
    flow, rng = shifting(), np.random.default_rng(0)
    x, condition = rng.normal(size=(2, 1, 5, 1)), rng.normal(size=(3, 1, 1))
    found = eqx.filter_jit(lambda f: (f.log_prob(x, condition), f.log_prob(x[0, 0, 0], condition)))(flow)
    expected = stats.norm.logpdf(x - condition)[..., 0]
    assert expected.shape == (2, 3, 5)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    np.testing.assert_allclose(found[1], stats.norm.logpdf(x[0, 0, 0] - condition)[..., 0], atol=1e-5)


def test_each_condition_has_its_draws():
    flow, condition = shifting(), 10.0 * np.arange(7.0)[:, None]
    points, log_probs = eqx.filter_jit(lambda f, k: f.sample_and_log_prob(k, (400,), condition))(
        flow, jax.random.key(0)
    )
    assert points.shape == (400, 7, 1) and log_probs.shape == (400, 7)
    np.testing.assert_allclose(np.mean(points, axis=0), condition, atol=5 / np.sqrt(400))
    np.testing.assert_allclose(log_probs, stats.norm.logpdf(points - condition)[..., 0], atol=1e-5)
    assert len(np.unique(np.round(points - condition, 4))) > 2000
    assert flow.sample(jax.random.key(0), (4,), np.zeros(1)).shape == (4, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda flow: flow.log_prob(np.zeros(1)), r"Expected conditions of shape \(\.\.\., 1,\), got None; try"),
        (lambda flow: flow.sample(jax.random.key(0)), r"Expected conditions of shape \(\.\.\., 1,\), got None; try"),
        (lambda flow: flow.log_prob(np.zeros(1), np.zeros(3)), r"Expected conditions of shape .*, got \(3,\); try"),
        (lambda flow: flow.log_prob(np.zeros((2, 1)), np.zeros((3, 1))), r"that fit each other, got \(2,\) and \(3,\)"),
        (lambda flow: flow.base.log_prob(np.zeros(1), np.zeros(1)), r"Expected no condition, got one of shape \(1,\)"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(shifting())


def test_parts_that_do_not_fit_are_refused_where_they_are_put_together():
    with pytest.raises(ValueError, match=r"Expected a base of the bijection's shape \(2,\), got \(3,\); try"):
        Transformed(Normal.standard((3,)), Standardize([0.0, 0.0], [1.0, 1.0]))
    fields = [MLP((2,), width=4, depth=0, cond_shape=(size,), key=jax.random.key(0)) for size in (3, 4)]
    with pytest.raises(ValueError, match=r"Expected conditions of one shape, got \[\(3,\), \(4,\)\]; try"):
        Chain([CNF(field) for field in fields])
    conditional = Transformed(Normal.standard((2,)), CNF(fields[0]))
    with pytest.raises(ValueError, match="Expected conditions of one shape"):
        Transformed(conditional, CNF(fields[1]))


def test_a_part_of_a_wrapper_can_be_replaced():
    """By `dataclasses.replace`, too: shapes are what the new part says."""
    inner = MLP((2,), width=4, depth=0, key=jax.random.key(0))
    flow = Transformed(Normal.standard((2,)), Chain([CNF(inner), Invert(CNF(inner))]))
    wider = CNF(MLP((3,), width=4, depth=0, key=jax.random.key(0)))
    assert dataclasses.replace(CNF(inner), vector_field=wider.vector_field).shape == (3,)
    assert dataclasses.replace(flow, base=Normal.standard((3,)), bijection=Chain([wider])).shape == (3,)
    assert dataclasses.replace(flow.bijection, links=(wider,)).shape == (3,)
    assert dataclasses.replace(flow.bijection.links[1], bijection=wider).shape == (3,)
    assert dataclasses.replace(Preconditioned(inner), rest=wider.vector_field).shape == (3,)

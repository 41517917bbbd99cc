"""A core behind a frame: the change of variables, the way back, and what does not fit."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import stats

from checks import random_cnf, skeleton
from liouville import evaluation
from liouville._types import parameters
from liouville.bijections import CNF, Chain, Logit, Standardize, Whiten
from liouville.density import Density, FittedSteps
from liouville.dequantization import UniformDequantization
from liouville.distributions import Normal, Transformed
from liouville.flows import FlowSpec
from liouville.frames import PREPROCESSORS, Frame, fit_pictures, fit_table
from liouville.integrate import Integrator

FORWARD = Integrator.constant(10)
REPLICATED = NamedSharding(Mesh(jax.devices()[:1], ("rows",)), PartitionSpec())


def table(num=800):
    return np.random.default_rng(0).standard_t(5, size=(num, 3)) * [1.0, 100.0, 1e-3] + [0.0, 1e4, 7.0]


@pytest.mark.parametrize("kind", PREPROCESSORS)
def test_frames_are_undone_with_all_digits_and_know_their_slope(kind):
    rows = table()
    frame, points = fit_table(kind, rows, np.ones(len(rows)))
    again, log_det = frame.encode(rows)
    np.testing.assert_allclose(again, points, atol=1e-12)
    np.testing.assert_allclose(frame.decode(points), rows, rtol=1e-9)
    np.testing.assert_allclose(frame.decode_and_log_det(points)[1], -log_det, atol=1e-7)
    # The volume of a small box, by finite differences in the units of each column.
    step = 1e-6 * rows.std(0)
    sides = [(frame.encode(rows[:20] + e)[0] - frame.encode(rows[:20] - e)[0]) / 2e-6 for e in np.diag(step)]
    volume = np.linalg.slogdet(np.stack(sides, axis=1))[1] - np.log(rows.std(0)).sum()
    # A curve's slope jumps at its knots.
    assert np.median(np.abs(volume - log_det[:20])) < 1e-5


def test_a_density_is_that_of_the_whole_chain(x64):
    whiten = Whiten.fit(table(), np.ones(800))
    cnf = random_cnf(3, integrator=FORWARD)
    density = Density(Transformed(Normal.standard((3,)), cnf), Frame((3,), (whiten,)))
    chain = Transformed(Normal.standard((3,)), Chain([cnf, whiten]))
    rows, key = table(5), jax.random.key(1)
    np.testing.assert_allclose(density.log_prob(rows), chain.log_prob(rows), atol=1e-9)
    drawn, log_prob = density.sample_and_log_prob(key, (6,))
    np.testing.assert_allclose(drawn, density.sample(key, (6,)), rtol=1e-9)
    np.testing.assert_allclose(log_prob, density.log_prob(drawn), atol=1e-3)
    assert np.all(np.abs((drawn - table().mean(0)) / table().std(0)) < 30)


def test_a_closed_form_of_ones_own_makes_a_kind(monkeypatch):
    arcsinh = skeleton("bijections._arcsinh").Arcsinh
    monkeypatch.setitem(PREPROCESSORS, "arcsinh", (Standardize, arcsinh, Whiten))
    rows = table()
    frame, points = fit_table("arcsinh", rows, np.ones(len(rows)))
    np.testing.assert_allclose(np.cov(points.T, ddof=0), np.eye(3), atol=1e-9)
    np.testing.assert_allclose(frame.decode(points), rows, rtol=1e-9)


@pytest.mark.parametrize(
    "carry",
    [
        pytest.param(lambda tree: eqx.filter_jit(lambda t: t)(tree), id="jit"),
        pytest.param(lambda tree: jax.tree.map(lambda a: jax.device_put(a) if eqx.is_array(a) else a, tree), id="put"),
        pytest.param(lambda tree: eqx.filter_shard(tree, REPLICATED), id="shard"),
    ],
)
def test_what_is_trained_is_told_by_place(carry):
    """A flow that was compiled, copied or laid out has as many parameters as before, and its frame all digits."""
    frame = Frame((2,), (Standardize([1e6 + 1 / 3, 2.0], [3.0, 4.0]),))
    for spec in (FlowSpec(2, width=8, depth=1), FlowSpec(2, "potential", width=8, depth=1, base="trainable")):
        density = Density(spec(jax.random.key(0)), frame)
        count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(parameters(tree)))
        moved = dataclasses.replace(density, core=carry(density.core))
        assert count(moved) == count(carry(density)) == count(density) == count(density.core)
        assert moved.frame.links[0].loc.dtype == np.float64 and moved.frame.links[0].loc[0] == 1e6 + 1 / 3
        trained = {leaf.shape for leaf in jax.tree.leaves(parameters(density.core.base))}
        assert trained == ({(2,)} if spec.base == "trainable" else set())


def test_whole_numbers_come_back_as_they_were():
    pixels = np.random.default_rng(0).integers(0, 5, size=(200, 2, 3, 1)).astype(np.uint8)
    for kind in ("margins", "logit", "center"):
        frame = fit_pictures(kind, pixels, np.ones(200), 5, UniformDequantization())
        noise = np.random.default_rng(1).uniform(0.01, 0.99, size=pixels.shape)
        points, log_det = frame.encode(pixels, (noise, np.zeros(200)))
        assert frame.decode(points).dtype == np.uint8 and log_det.shape == (200,)
        np.testing.assert_array_equal(frame.decode(points), pixels)
        found = frame.decode(jnp.asarray(points, jnp.float32))
        assert isinstance(found, jax.Array) and np.mean(np.asarray(found) != pixels) < 0.01


@pytest.mark.parametrize("kind", ["margins", "center"])
def test_a_picture_of_weight_two_counts_like_two(kind):
    pixels = np.random.default_rng(0).integers(0, 5, size=(200, 2, 3, 1)).astype(np.uint8)
    weight = np.random.default_rng(1).integers(0, 3, size=200)
    noise = UniformDequantization()
    frames = [
        fit_pictures(kind, pixels, weight.astype(float), 5, noise),
        fit_pictures(kind, np.repeat(pixels, weight, axis=0), np.ones(weight.sum()), 5, noise),
    ]
    for one, other in zip(*(jax.tree.leaves(frame) for frame in frames), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_rows_that_fitted_steps_are_not_trusted_with_keep_their_noise():
    """However rows are solved, and whichever are solved again, each has the noise of its place."""
    cnf = random_cnf(2, integrator=FORWARD)
    density = Density(Transformed(Normal.standard((2,)), cnf), Frame((2,), (), 4, UniformDequantization()))
    rows = np.random.default_rng(0).integers(0, 4, size=(300, 2)).astype(np.uint8)
    plain, _ = evaluation.score(density, rows, seed=3)
    steps = FittedSteps(Integrator.constant(2), FORWARD, 0.0, 0.0, float(np.median(plain)) + np.log(16), 0.0)
    found, info = evaluation.score(dataclasses.replace(density, steps=steps), rows, seed=3)
    again = info.num_evaluations > info.num_evaluations.min()
    assert 50 < again.sum() < 250
    np.testing.assert_array_equal(found[again], plain[again])
    assert np.any(found[~again] != plain[~again])


def test_noise_makes_a_bound_of_a_probability():
    """The density between 0 and 1 is uniform: whatever the noise, a number of 4 has a probability of a quarter."""
    uniform = Transformed(Normal.standard((2,)), Standardize(np.zeros(2), np.ones(2)))
    normal = lambda x: stats.norm.logpdf(x).sum()
    density = Density(uniform, Frame((2,), (), 4, UniformDequantization()))
    x, key = jnp.array([1, 3]), jax.random.key(0)
    found = density.log_prob(x, key=key)
    assert normal([0.5, 1.0]) - np.log(16) < found < normal([0.25, 0.75]) - np.log(16)
    drawn, log_prob = density.sample_and_log_prob(key, (5,))
    assert drawn.shape == (5, 2) and log_prob.shape == (5,) and set(np.ravel(drawn)) <= {0.0, 1.0, 2.0, 3.0}
    with pytest.raises(ValueError, match=r"Expected a key for the noise of whole numbers, got None; try key="):
        density.log_prob(x)


def test_what_does_not_fit_is_refused_where_it_is_put_together():
    core = Transformed(Normal.standard((3,)), random_cnf(3, integrator=FORWARD))
    assert isinstance(core.bijection, CNF)
    with pytest.raises(ValueError, match=r"Expected a frame of the core's shape \(3,\), got \(2,\); try Frame"):
        Density(core, Frame((2,)))
    with pytest.raises(ValueError, match=r"Expected links of shape \(3,\), got \[\(2,\)\]; try links of one shape"):
        Frame((3,), (Logit((2,)),))
    with pytest.raises(ValueError, match=r"Expected noise and levels together, got levels=4 and noise=None; try both"):
        Frame((3,), (), 4)

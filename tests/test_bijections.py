"""Bijections: what every one owes its callers, and what the fitted ones make of odd tables."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from checks import BIJECTIONS, CLOSED_FORMS, check_log_det, odd_table
from liouville._types import parameters
from liouville.bijections import CNF, Chain, GaussianMargins, GaussianRadius, Invert, Standardize, Whiten
from liouville.bijections._gaussianized import weighted_quantiles
from liouville.divergences import Hutchinson
from liouville.integrate import Integrator
from liouville.regularizers import KineticEnergy
from liouville.vector_fields import AbstractVectorField


def base_points(name: str, rows: int = 6) -> np.ndarray:
    """Return points from the middle to far out, of the scale of the bijection's base."""
    points = np.random.default_rng(1).normal(size=(rows, 3)) * np.linspace(0.1, 4, rows)[:, None]
    return odd_table(rows, seed=2) if name == "invert" else points


@pytest.mark.parametrize("name", BIJECTIONS)
def test_round_trip_and_log_det(x64, name):
    check_log_det(BIJECTIONS[name](), jnp.asarray(base_points(name)), atol=1e-6)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_numpy_and_jax_agree(x64, name):
    bijection, z = CLOSED_FORMS[name](), base_points(name)
    x, log_det = bijection.transform_and_log_det(z)
    back, inverse_log_det = bijection.inverse_and_log_det(x)
    if not name.startswith(("chain", "invert")):
        assert isinstance(x, np.ndarray) and x.dtype == np.float64
    both = eqx.filter_jit(lambda b, z, x: (b.transform_and_log_det(z), b.inverse_and_log_det(x)))
    (x_jax, log_det_jax), (back_jax, inverse_jax) = both(bijection, jnp.asarray(z), jnp.asarray(x))
    np.testing.assert_allclose(x_jax, x, rtol=1e-10)
    np.testing.assert_allclose(log_det_jax, log_det, atol=1e-10)
    np.testing.assert_allclose(back_jax, back, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(inverse_jax, inverse_log_det, atol=1e-8)
    # Leading axes are kept: a table of tables is one call.
    deep, deep_log_det = bijection.transform_and_log_det(z.reshape(2, 3, 3))
    np.testing.assert_allclose(np.asarray(deep).reshape(6, 3), x, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(deep_log_det).ravel(), log_det, atol=1e-12)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_closed_forms_are_constants(name):
    """Training moves JAX arrays alone: what is fitted stays as it was fitted."""
    leaves = jax.tree.leaves(parameters(BIJECTIONS[name]()))
    assert bool(leaves) == (name == "cnf")


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_standardize_keeps_digits_at_any_scale_and_offset(scale):
    rows = 1e6 + scale * np.random.default_rng(0).normal(size=(300, 2))
    link = Standardize.fit(rows, np.ones(300))
    z, log_det = link.inverse_and_log_det(rows)
    # The offset costs its share of the 16 digits, no more: float32 would leave none at scale 1e-8.
    atol = 10 * np.spacing(np.abs(rows).max()) / scale
    np.testing.assert_allclose(z.mean(0), 0, atol=atol)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9 + atol)
    np.testing.assert_allclose(link.transform(z), rows, rtol=1e-14, atol=1e-15 * np.abs(rows).max())
    np.testing.assert_allclose(log_det, -2 * np.log(scale), atol=0.3)


def test_standardize_survives_the_ends_of_float64():
    rows = np.random.default_rng(0).normal(size=(300, 2)) * [1e200, 1e-200]
    z = Standardize.fit(rows, np.ones(300)).inverse(rows)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)


def test_whitened_rows_have_unit_covariance():
    rows = odd_table(1000)
    link = Whiten.fit(rows, np.ones(1000))
    z, log_det = link.inverse_and_log_det(rows)
    np.testing.assert_allclose(np.cov(z.T, ddof=0), np.eye(3), atol=1e-8)
    np.testing.assert_allclose(log_det, -0.5 * np.linalg.slogdet(np.cov(rows.T, ddof=0))[1], atol=1e-8)


def test_gaussian_margins_make_columns_normal():
    rows = np.random.default_rng(0).exponential(size=(20_000, 1)) ** 2
    z = GaussianMargins.fit(rows, np.ones(len(rows))).inverse(rows)
    # Kolmogorov's distance of 20,000 normal draws is below 0.0115 with probability 0.99.
    assert stats.kstest(z[:, 0], "norm").statistic < 0.0115
    assert stats.kstest(stats.zscore(rows[:, 0]), "norm").statistic > 0.2


def test_gaussian_radius_makes_distances_chi_and_keeps_directions():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_000, 4)) * np.exp(rng.normal(size=(20_000, 1)))
    z = GaussianRadius.fit(rows, np.ones(len(rows))).inverse(rows)
    assert stats.kstest(np.linalg.norm(z, axis=1), stats.chi(4).cdf).statistic < 0.0115
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(unit(z), unit(rows), atol=1e-12)


@pytest.mark.parametrize("far", [10.0, 1e3, 1e6])
@pytest.mark.parametrize("cls", [GaussianMargins, GaussianRadius])
def test_far_points_come_back(cls, far):
    """Beyond the data the curves go on as straight lines: finite, monotone, and exactly invertible."""
    rows = np.random.default_rng(0).standard_t(3, size=(2000, 2))
    link = cls.fit(rows, np.ones(2000))
    x = far * np.array([[1.0, -1.0], [1.0, 0.5], [-2.0, 0.0]])
    z, log_det = link.inverse_and_log_det(x)
    back, inverse_log_det = link.transform_and_log_det(z)
    assert np.all(np.isfinite(z)) and np.all(np.isfinite(log_det))
    np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-9 * far)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-9)


def test_margins_are_smooth_at_their_knots():
    """At a knot value and slope come from two pieces: they must meet, and the inverse must find the knot."""
    link = GaussianMargins.fit(odd_table(5000, 1), np.ones(5000))
    knots, values, _ = link.table[:, 0]
    z, log_det = link.inverse_and_log_det(knots[:, None])
    np.testing.assert_allclose(z[:, 0], values, atol=1e-9)
    np.testing.assert_allclose(link.transform(values[:, None])[:, 0], knots, rtol=1e-9)
    width = 1e-9 * np.diff(knots).min()
    left, right = (link.inverse_and_log_det(knots[:, None] + side * width) for side in (-1, 1))
    np.testing.assert_allclose(left[1], right[1], atol=1e-4)
    assert np.all(np.diff(link.inverse(np.linspace(knots[0] - 5, knots[-1] + 5, 20_000)[:, None])[:, 0]) > 0)


@pytest.mark.parametrize("cls", [GaussianMargins, GaussianRadius])
def test_ties_leave_an_invertible_map(cls):
    """Nine rows of ten are the same, and the others take few values."""
    rng = np.random.default_rng(0)
    rows = np.where(rng.uniform(size=(3000, 1)) < 0.9, 2.0, rng.integers(0, 5, size=(3000, 1))) * np.ones((1, 2))
    link = cls.fit(rows, np.ones(3000))
    x = np.random.default_rng(1).uniform(0.5, 5, size=(50, 2))
    z, log_det = link.inverse_and_log_det(x)
    assert np.all(np.isfinite(z)) and np.all(np.isfinite(log_det))
    np.testing.assert_allclose(link.transform(z), x, rtol=1e-6, atol=1e-6)


def test_knots_that_rounding_cannot_tell_apart_are_one():
    """One row at 1e18 leaves the others, standardized, within the rounding of a single number."""
    rows = np.full((200, 1), -0.07) + 1e-17 * np.arange(200)[:, None]
    rows[0] = 14.0
    with np.errstate(all="raise"):
        z, log_det = GaussianMargins.fit(rows, np.ones(200)).inverse_and_log_det(rows)
    assert np.isfinite(z).all() and np.isfinite(log_det).all()


def test_radius_is_finite_at_the_centre():
    link = GaussianRadius.fit(odd_table(), np.ones(400))
    z, log_det = link.inverse_and_log_det(np.zeros((1, 3)))
    assert np.all(z == 0) and np.all(np.isfinite(log_det))
    slope = link.inverse(np.full((1, 3), 1e-9)) / 1e-9
    np.testing.assert_allclose(log_det, 3 * np.log(slope[0, 0]), atol=1e-6)


def test_chain_applies_its_links_in_order_and_adds_their_log_dets():
    chain = Chain([Standardize([1.0], [2.0]), Standardize([10.0], [5.0])])
    x, log_det = chain.transform_and_log_det(jnp.array([3.0]))
    np.testing.assert_allclose(x, [10 + 5 * (1 + 2 * 3)])
    np.testing.assert_allclose(log_det, np.log(10), rtol=1e-6)
    np.testing.assert_allclose(chain.inverse(x), [3.0], rtol=1e-6)


def test_chain_refuses_what_does_not_fit():
    for links in ([], [Standardize([0.0], [1.0]), Standardize([0.0, 0.0], [1.0, 1.0])]):
        with pytest.raises(ValueError, match="Expected links of one shape, got .*; try"):
            Chain(links)


ENDS = ((0, 1.0), (1, 1.0), (2, 0.5))


class Counted(AbstractVectorField):
    """A field that counts how often it is traced."""

    calls: ClassVar[list] = []
    shape = (3,)
    cond_shape = None
    matrix: jax.Array
    factor: float = 1.0

    def __call__(self, t, x, condition=None):
        self.calls.append(t)
        return self.factor * jnp.tanh(self.matrix @ x)


@pytest.mark.slow
def test_neighbours_that_are_solved_are_compiled_once(x64):
    """CNFs that differ in their numbers alone are one loop, with the values and the slopes of one after the other."""
    integrator = Integrator.constant(2).sharing()
    matrices = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3)))
    z, key = jnp.asarray(np.random.default_rng(1).normal(size=(7, 3))), jax.random.key(0)

    def one_by_one(chain, z):
        total = jnp.zeros(())
        for link, link_key in zip(chain.links, jax.random.split(key, 3), strict=True):
            moved = link.to_data(z, key=link_key)
            z, total = moved.x, total + moved.log_det + moved.penalties["kinetic_energy"]
        return total + jnp.sum(z**2)

    def chained(chain, z):
        moved = chain.to_data(z, key=key)
        return moved.log_det + moved.penalties["kinetic_energy"] + jnp.sum(moved.x**2)

    def slopes_and_calls(way):
        Counted.calls.clear()
        # The last one ends sooner, and may not be taken for more of the same.
        cnfs = lambda a: [CNF(Counted(a[i]), Hutchinson(), integrator, (KineticEnergy(),), t1=t) for i, t in ENDS]
        loss = lambda a: jnp.sum(jax.vmap(lambda row: way(Chain(cnfs(a)), row))(z))
        return jax.jit(jax.value_and_grad(loss))(matrices), len(Counted.calls)

    (found, calls), (expected, more_calls) = slopes_and_calls(chained), slopes_and_calls(one_by_one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)
    assert calls * 3 == more_calls * 2


def test_invert_swaps_the_directions():
    link = Standardize([1.0], [4.0])
    x = np.array([9.0])
    assert Invert(link).transform(x) == link.inverse(x) == [2.0]
    assert Invert(link).transform_and_log_det(x)[1] == -np.log(4.0)


@pytest.mark.parametrize("cls", [Standardize, Whiten, GaussianMargins, GaussianRadius])
def test_weights_count_rows(cls):
    """A row of weight 3 is that row three times; between quantiles of 2,000 rows that holds up to their grain."""
    rows = odd_table(2000)
    weight = np.random.default_rng(3).integers(1, 4, size=2000)
    weighted = cls.fit(rows, weight.astype(float))
    repeated = cls.fit(np.repeat(rows, weight, axis=0), np.ones(weight.sum()))
    plain = cls.fit(rows, np.ones(2000))
    x = odd_table(200, seed=5)
    exact = cls in (Standardize, Whiten)
    # Beyond the outermost knots few rows rule the slope: compare where the data are.
    middle = np.all(np.abs(x - np.median(rows, 0)) < 2 * rows.std(0), axis=1)
    z = weighted.inverse(x[middle])
    np.testing.assert_allclose(z, repeated.inverse(x[middle]), atol=1e-9 if exact else 0.1)
    assert np.max(np.abs(z - plain.inverse(x[middle]))) > 1e-4


@pytest.mark.parametrize("cls", [Standardize, Whiten, GaussianMargins, GaussianRadius])
def test_rows_of_weight_zero_count_for_nothing(cls):
    rows = odd_table(500)
    outliers = np.full((50, 3), 1e6)
    weight = np.concatenate([np.ones(500), np.zeros(50)])
    with_outliers = cls.fit(np.concatenate([rows, outliers]), weight)
    np.testing.assert_allclose(
        with_outliers.inverse(rows), cls.fit(rows, np.ones(500)).inverse(rows), rtol=1e-6, atol=1e-6
    )


def test_weighted_quantiles_against_a_known_law():
    """Rows drawn uniformly and weighted by their size have the quantiles ``sqrt(level)``."""
    x = np.random.default_rng(0).uniform(size=100_000)
    levels, quantiles = weighted_quantiles(x, x)
    assert np.all(np.diff(levels) > 0) and levels[0] > 0 and levels[-1] < 1
    np.testing.assert_allclose(quantiles, np.sqrt(levels), atol=0.01)

"""Vector fields: what every field owes its callers, and the closed forms of the preconditioned one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from checks import FIELDS, make_field, randomize
from liouville.bijections import CNF
from liouville.distributions import Normal, Transformed
from liouville.divergences import Exact, Hutchinson
from liouville.vector_fields import MLP, ConcatSquash, Masked, Preconditioned

CASES = [(name, cond_shape) for name in FIELDS for cond_shape in (None, (2,))]
cases = pytest.mark.parametrize(("name", "cond_shape"), CASES)
# With a condition a field is called in all that it is: without one is a variation.
SOME = [pytest.param(*case, marks=pytest.mark.slow if case[1] is None else ()) for case in CASES]
some_cases = pytest.mark.parametrize(("name", "cond_shape"), SOME)


def inputs(cond_shape, rows: int = 4):
    rng = np.random.default_rng(2)
    condition = None if cond_shape is None else rng.normal(size=(rows, *cond_shape)).astype(np.float32)
    return rng.uniform(size=rows).astype(np.float32), rng.normal(size=(rows, 3)).astype(np.float32), condition


@eqx.filter_jit
def call_rows(field, t, x, condition):
    return jax.vmap(field, (0, 0, None if condition is None else 0))(t, x, condition)


@eqx.filter_jit
def call_one(field, *args):
    return field(*args)


@some_cases
def test_jit_and_vmap_change_nothing(name, cond_shape):
    field = make_field(name, cond_shape=cond_shape)
    t, x, condition = inputs(cond_shape)
    rows = call_rows(field, t, x, condition)
    single = call_one(field, t[2], x[2], None if condition is None else condition[2])
    assert rows.shape == x.shape and single.shape == field.shape
    np.testing.assert_allclose(rows[2], single, atol=1e-6)


@some_cases
def test_gradients_are_finite_and_reach_every_parameter(name, cond_shape):
    field = make_field(name, cond_shape=cond_shape)
    rows = inputs(cond_shape)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda field: jnp.sum(call_rows(field, *rows) ** 2)))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient(field))]
    assert leaves and all(np.all(np.isfinite(leaf)) for leaf in leaves)
    assert all(np.any(leaf != 0) for leaf in leaves)


@cases
def test_depends_on_time_point_and_condition(name, cond_shape):
    field = make_field(name, cond_shape=cond_shape)
    t, x, condition = inputs(cond_shape)
    value = np.asarray(call_rows(field, t, x, condition))
    # Each argument in turn is taken from another row: every row's value must change.
    assert np.all(np.max(np.abs(call_rows(field, t[::-1], x, condition) - value), axis=1) > 1e-4)
    assert np.all(np.max(np.abs(call_rows(field, t, x[::-1], condition) - value), axis=1) > 1e-4)
    if condition is not None:
        assert np.all(np.max(np.abs(call_rows(field, t, x, condition[::-1]) - value), axis=1) > 1e-4)


@cases
def test_value_and_divergence_agree_with_the_call(name, cond_shape):
    """The preconditioned field adds its part in closed form: the oracle differentiates the whole field."""
    field = make_field(name, cond_shape=cond_shape)
    estimate = lambda fn, x: Exact().linearize(fn, x, None)

    def one_row(t, x, c):
        jacobian = jax.jacfwd(lambda x: field(t, x, c))(x)
        return field(t, x, c), jacobian, field.value_and_divergence(t, x, c, estimate)

    axes = (0, 0, None if cond_shape is None else 0)
    expected, jacobian, local = jax.jit(jax.vmap(one_row, axes))(*inputs(cond_shape))
    np.testing.assert_allclose(local.value, expected, atol=1e-6)
    np.testing.assert_allclose(local.estimates[:, 0], np.trace(jacobian, axis1=1, axis2=2), rtol=1e-4, atol=1e-5)
    # The products with the basis, one per direction, are the columns of the Jacobian.
    np.testing.assert_allclose(local.products, np.swapaxes(jacobian, 1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cond_shape", [None, (2,)])
def test_the_trace_of_many_columns_goes_through_few_units(cond_shape):
    """What is asked of the Jacobian is seen: `width` directions, and none of the `size` that are nobody's business."""
    field = randomize(MLP((7, 5), width=4, depth=2, cond_shape=cond_shape, key=jax.random.key(0)), seed=1)
    rng, asked = np.random.default_rng(0), []
    x, condition = rng.normal(size=(7, 5)).astype(np.float32), None if cond_shape is None else np.ones(2, np.float32)

    def estimate(fn, x):
        asked.append(x.size)
        return Exact().linearize(fn, x, None)

    local = Preconditioned(field).value_and_divergence(0.3, x, condition, estimate)
    jacobian = jax.jacfwd(lambda x: Preconditioned(field)(0.3, x, condition))(x).reshape(35, 35)
    np.testing.assert_allclose(local.estimates, [np.trace(jacobian)], rtol=1e-5)
    np.testing.assert_allclose(local.products.reshape(35, 35), jacobian.T, rtol=1e-4, atol=1e-5)
    assert asked == [35, 4]
    probes = Hutchinson(num_probes=3)
    noise = probes.init(jnp.asarray(x), jax.random.key(1))
    estimates = field.value_and_divergence(0.3, x, condition, lambda fn, x: probes.linearize(fn, x, noise)).estimates
    of_field = jax.jacfwd(lambda x: field(0.3, x, condition))(x).reshape(35, 35)
    expected = np.einsum("pi,ij,pj->p", noise.reshape(3, 35), of_field, noise.reshape(3, 35))
    np.testing.assert_allclose(estimates, expected, rtol=1e-4)


def test_of_many_columns_some_are_held_still():
    field = randomize(MLP((9,), width=3, depth=1, cond_shape=(9,), key=jax.random.key(0)), seed=1)
    mask, x = np.array([1, 1, 0, 1, 0, 1, 1, 1, 1], np.float32), np.linspace(-1, 1, 9, dtype=np.float32)
    local = Masked(field).value_and_divergence(0.3, x, mask, lambda fn, x: Exact().linearize(fn, x, None))
    jacobian = jax.jacfwd(lambda x: Masked(field)(0.3, x, mask))(x)
    np.testing.assert_allclose(local.estimates, [np.trace(jacobian)], rtol=1e-5)


def test_points_may_have_any_shape():
    for field in (make_field("mlp", (2, 3)), make_field("concat_squash_2", (2, 3), cond_shape=(2, 2))):
        condition = None if field.cond_shape is None else jnp.ones((2, 2))
        assert eqx.filter_eval_shape(field, 0.5, jnp.ones((2, 3)), condition).shape == (2, 3)


def test_mlp_starts_at_rest():
    field = MLP((3,), width=8, key=jax.random.key(0))
    assert np.all(call_one(field, 0.7, np.ones(3, np.float32)) == 0)


@pytest.mark.parametrize("field_type", [MLP, ConcatSquash])
def test_unknown_activation_is_refused_by_name(field_type):
    with pytest.raises(ValueError, match=r"Expected an activation among .* got 'relu6'; try"):
        field_type((2,), activation="relu6", key=jax.random.key(0))


def test_preconditioned_field_is_the_regression_of_the_velocity():
    """For normal data the best field is ``E[x1 - x0 | x_t]``, linear in ``x_t``: here its slope by least squares."""
    times = np.array([0.1, 0.5, 0.8], np.float32)
    field = Preconditioned(MLP((1,), width=4, depth=0, key=jax.random.key(0)))
    slopes = call_rows(field, times, np.ones((3, 1), np.float32), None)[:, 0]
    x0, x1 = np.random.default_rng(0).normal(size=(2, 100_000))
    for t, slope in zip(times, slopes, strict=True):
        fit = stats.linregress((1 - t) * x0 + t * x1, x1 - x0)
        assert abs(float(slope) - fit.slope) < 5 * fit.stderr


def test_preconditioned_without_rest_carries_normal_to_normal():
    field = Preconditioned(MLP((2,), width=4, depth=0, key=jax.random.key(0)))
    flow = Transformed(Normal.standard((2,)), CNF(field))
    x = np.array([[0.0, 0.0], [1.0, -2.0], [4.0, 3.0]])
    log_prob = eqx.filter_jit(lambda flow: flow.log_prob(x))(flow)
    np.testing.assert_allclose(log_prob, stats.norm.logpdf(x).sum(1), atol=2e-4)

"""The vector fields of papers: their closed forms and bases against autodiff, NumPy's polynomials and networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev, polynomial

from checks import FIELDS, make_field, randomize
from liouville._types import parameters
from liouville.bijections import CNF
from liouville.divergences import Exact, Hutchinson
from liouville.flows import VECTOR_FIELDS, FlowSpec
from liouville.integrate import Integrator
from liouville.papers import Galerkin, Hypernetwork, PlanarField, Potential, TrainedTime
from liouville.papers._time_varying import BASES, basis_functions
from liouville.vector_fields import ConcatSquash, Wrapped

KEY = jax.random.key(0)
X = jnp.array([0.4, -1.1, 0.7])
CONDITION = jnp.array([0.3, -0.8])


def trace_of(field, t, x, condition=None):
    """Return the trace of the autodiff Jacobian."""
    size = x.size
    flat = lambda y: field(t, y.reshape(x.shape), condition).ravel()
    return jnp.trace(jax.jacrev(flat)(x.ravel()).reshape(size, size))


@pytest.mark.parametrize("cond_shape", [None, (2,)])
@pytest.mark.parametrize("name", ["planar", "potential_0", "potential_3", "trained_time"])
def test_closed_divergence_replaces_every_estimate(name, cond_shape):
    """A probe has no say: whichever divergence is asked, the answer is the trace of the autodiff Jacobian."""
    field, condition = make_field(name, cond_shape=cond_shape), None if cond_shape is None else CONDITION
    trace = jax.jit(lambda x: trace_of(field, 0.3, x, condition))(X)
    for divergence in (Exact(), Hutchinson("gaussian", num_probes=3)):
        noise = divergence.init(X, KEY)
        estimate = lambda fn, x, d=divergence, e=noise: d.linearize(fn, x, e)
        local = eqx.filter_jit(lambda field, x, e=estimate: field.value_and_divergence(0.3, x, condition, e))(field, X)
        assert local.estimates.shape == (divergence.num_probes,)
        np.testing.assert_allclose(local.estimates, np.full(divergence.num_probes, trace), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(local.value, field(0.3, X, condition), rtol=1e-5, atol=1e-6)


def test_jacobian_products_go_with_the_scaled_field():
    """Regularizers read the products: behind a trained time they are those of the whole field."""
    field = make_field("trained_time")
    local = field.value_and_divergence(0.3, X, None, lambda fn, x: Exact().linearize(fn, x, None))
    jacobian = jax.jacfwd(lambda x: field(0.3, x))(X)
    np.testing.assert_allclose(local.products, jacobian.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["layers", pytest.param("terms", marks=pytest.mark.slow)])
def test_planar_field_by_three_divergences(x64, form):
    """Closed form, forward-mode and reverse-mode Hutchinson: the last two agree probe by probe, and in the mean."""
    x = jnp.asarray(np.asarray(X), jnp.float64)
    field = randomize(PlanarField((3,), width=6, form=form, key=KEY), 1)
    value = lambda x: field(0.3, x)
    closed = field.value_and_divergence(0.3, x, None, lambda fn, x: Exact().linearize(fn, x, None)).estimates[0]
    np.testing.assert_allclose(closed, Exact()(value, x, None)[1], rtol=1e-12)
    noise = Hutchinson("gaussian", 20_000).init(x, KEY)
    forward, reverse = (
        Hutchinson("gaussian", 20_000, mode).linearize(value, x, noise) for mode in ("forward", "reverse")
    )
    np.testing.assert_allclose(forward.estimates, reverse.estimates, rtol=1e-9, atol=1e-12)
    # J e and J' e are not the same vector: the modes do differ.
    assert np.max(np.abs(forward.products - reverse.products)) > 1e-3
    std_error = np.std(forward.estimates) / np.sqrt(20_000)
    assert abs(np.mean(forward.estimates) - closed) < 5 * std_error


def test_planar_gates_alone_vary_in_time():
    """With the gates pinned, the field is a sum of planar terms, constant in time."""
    field = randomize(PlanarField((3,), width=6, key=KEY), 1)
    gates = np.asarray(jax.vmap(field.gates)(jnp.linspace(0, 1, 5)))
    assert np.all((gates > 0) & (gates < 1)) and np.all(np.ptp(gates, axis=0) > 0)
    u, w, b = (np.asarray(a) for a in (field.outer.weight, field.inner.weight, field.inner.bias))
    terms = [gates[2, m] * u[:, m] * np.tanh(w[m] @ np.asarray(X) + b[m]) for m in range(6)]
    np.testing.assert_allclose(field(0.5, X), np.sum(terms, axis=0), rtol=1e-5)


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("cond_shape", [None, (2,)])
def test_potential_gives_its_gradients(depth, cond_shape, x64):
    field = randomize(Potential((3,), width=5, depth=depth, cond_shape=cond_shape, key=KEY), 1)
    condition = None if cond_shape is None else CONDITION.astype(float)
    t, x = jnp.float64(0.3), jnp.asarray(np.asarray(X), jnp.float64)
    phi = lambda t, x: field.potential_and_gradients(t, x, condition)[0]
    _, gradient, rate = field.potential_and_gradients(t, x, condition)
    np.testing.assert_allclose(rate, jax.grad(phi)(t, x), rtol=1e-10)
    np.testing.assert_allclose(gradient, jax.grad(phi, 1)(t, x), rtol=1e-10)
    np.testing.assert_allclose(field(t, x, condition), -gradient, rtol=1e-12)
    estimate = lambda fn, x: Exact().linearize(lambda x: 0 * x, x, None)
    laplacian = jnp.trace(jax.hessian(phi, 1)(t, x))
    np.testing.assert_allclose(field.value_and_divergence(t, x, condition, estimate).estimates, -laplacian, rtol=1e-10)


def test_potential_is_the_published_function():
    """The potential, term by term in NumPy; the activation by its definition, which overflows far out."""
    field = randomize(Potential((2,), width=4, depth=2, key=KEY), 1)
    act = lambda z: np.log(np.exp(z) + np.exp(-z))
    s = np.array([0.5, -0.2, 0.3])
    layer = lambda l, z: np.asarray(l.weight) @ z + np.asarray(l.bias)  # noqa: E741
    u = act(layer(field.opening, s))
    for hidden in field.layers:
        u = u + 0.5 * act(layer(hidden, u))
    a = np.asarray(field.factor)
    expected = np.asarray(field.weight) @ u + s @ a.T @ a @ s / 2 + np.asarray(field.slope) @ s
    np.testing.assert_allclose(field.potential_and_gradients(0.3, jnp.asarray(s[:2]))[0], expected, rtol=1e-5)
    assert np.all(np.isfinite(field(0.3, jnp.array([1e4, -1e4]))))


ORACLES = {
    "polynomial": lambda t, k: polynomial.polyval(t, np.eye(k + 1)[k]),
    "chebyshev": lambda t, k: chebyshev.chebval(2 * t - 1, np.eye(k + 1)[k]),
    "fourier": lambda t, k: [np.cos, np.sin][k % 2](np.pi * ((k + 1) // 2) * t),
}


@pytest.mark.parametrize("basis", BASES)
def test_basis_functions(basis):
    times = np.linspace(0, 1, 7)
    values = np.asarray(jax.vmap(lambda t: basis_functions(basis, t, 6))(times))
    expected = np.stack([ORACLES[basis](times, k) for k in range(6)], axis=1)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    # They are independent, and tell base from data: a network can be another at each end.
    assert np.linalg.matrix_rank(values, tol=1e-4) == 6 and np.max(np.abs(values[0] - values[-1])) > 0.5
    for terms in (1, 2):
        np.testing.assert_allclose(basis_functions(basis, times[3], terms), expected[3, :terms], atol=1e-5)


def plain_network(weights, biases, x):
    """Return a multilayer perceptron's value, in NumPy."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = weight @ x + bias
        x = x / (1 + np.exp(-x))
    return weights[-1] @ x + biases[-1]


@pytest.mark.parametrize("basis", BASES)
def test_galerkin_is_the_network_with_the_weights_of_its_time(basis):
    field = randomize(Galerkin((3,), width=5, depth=2, basis=basis, terms=4, key=KEY), 1)
    for t in (0.0, 0.3, 1.0):
        c = np.array([ORACLES[basis](t, k) for k in range(4)])
        weights = [np.tensordot(c, layer.weight, 1) for layer in field.layers]
        biases = [np.tensordot(c, layer.bias, 1) for layer in field.layers]
        np.testing.assert_allclose(field(t, X), plain_network(weights, biases, np.asarray(X)), rtol=1e-4, atol=1e-6)


def test_hypernetwork_is_the_network_with_the_weights_it_makes():
    field = randomize(Hypernetwork((3,), width=5, hyper_width=3, hyper_depth=2, cond_shape=(2,), key=KEY), 1)
    hidden = np.array([0.3, *np.asarray(CONDITION)])
    for layer in field.hyper.layers:
        hidden = np.tanh(np.asarray(layer.weight) @ hidden + np.asarray(layer.bias))
    c = np.array([1.0, *hidden])
    weights = [np.tensordot(c, layer.weight, 1) for layer in field.layers]
    biases = [np.tensordot(c, layer.bias, 1) for layer in field.layers]
    expected = plain_network(weights, biases, np.asarray(X))
    np.testing.assert_allclose(field(0.3, X, CONDITION), expected, rtol=1e-4, atol=1e-6)


def test_one_term_makes_the_weights_constant():
    field = randomize(Galerkin((3,), width=5, terms=1, key=KEY), 1)
    np.testing.assert_array_equal(field(0.1, X), field(0.9, X))


def layer_of(conditioning):
    """Return a single layer, its value at a time, and the arrays inside as NumPy's."""
    field = ConcatSquash((3,), depth=0, conditioning=conditioning, key=KEY)
    return field, jax.tree.map(np.asarray, field.layers[0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


PAPER_LAYERS = {
    "concat": lambda p, t, x: p.linear.weight @ np.append(x, t) + p.linear.bias,
    "squash": lambda p, t, x: (p.linear.weight @ x + p.linear.bias) * sigmoid(p.gate.weight[:, 0] * t + p.gate.bias),
    "concat_squash": lambda p, t, x: PAPER_LAYERS["squash"](p, t, x) + p.shift.weight[:, 0] * t,
    "blend": lambda p, t, x: (
        (1 - t) * (p.layer.weight[0] @ x + p.layer.bias[0]) + t * (p.layer.weight[1] @ x + p.layer.bias[1])
    ),
    "hyper": lambda p, t, x: (p.layer.weight[0] + t * p.layer.weight[1]) @ x + p.layer.bias[0] + t * p.layer.bias[1],
}


@pytest.mark.parametrize("conditioning", PAPER_LAYERS)
def test_conditionings_are_the_published_layers(conditioning):
    field, arrays = layer_of(conditioning)
    for t in (0.0, 0.6):
        expected = PAPER_LAYERS[conditioning](arrays, t, np.asarray(X))
        np.testing.assert_allclose(field(t, X), expected, rtol=1e-4, atol=1e-6)


def test_blend_goes_from_one_layer_to_another_on_a_line():
    """A condition is an input there, and does not blend: only time does."""
    field = ConcatSquash((3,), depth=0, conditioning="blend", cond_shape=(2,), key=KEY)
    start, middle, end = (np.asarray(field(t, X, CONDITION)) for t in (0.0, 0.25, 1.0))
    np.testing.assert_allclose(middle, 0.75 * start + 0.25 * end, rtol=1e-4, atol=1e-6)
    assert np.max(np.abs(start - end)) > 0.1


def test_trained_time_is_the_flow_to_its_end_time(x64):
    """Over [0, 1] with the time stretched: what the field inside does over [0, T]."""
    inner = randomize(PlanarField((3,), width=6, key=KEY), 1, scale=1.0)
    field, x = TrainedTime(inner, 0.6), jnp.asarray(np.asarray(X), jnp.float64)
    integrator = Integrator.adaptive(1e-9, 1e-9)
    stretched = CNF(field, integrator=integrator).transform_and_log_det(x)
    straight = CNF(inner, integrator=integrator, t1=0.6).transform_and_log_det(x)
    np.testing.assert_allclose(stretched[0], straight[0], rtol=1e-7)
    np.testing.assert_allclose(stretched[1], straight[1], rtol=1e-6)


def test_end_time_has_the_right_gradient(x64):
    """``dx/dT`` is the velocity at the end: the derivative of the flow by its own length."""
    inner = randomize(PlanarField((3,), width=6, key=KEY), 1, scale=1.0)
    x, integrator = jnp.asarray(np.asarray(X), jnp.float64), Integrator.constant(50)
    end = lambda field: CNF(field, integrator=integrator).transform(x)[0]
    field = TrainedTime(inner, 0.6)
    gradient = eqx.filter_grad(end)(field).log_end_time
    arrived = CNF(field, integrator=integrator).transform(x)
    np.testing.assert_allclose(gradient, 0.6 * inner(0.6, arrived)[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["galerkin", "planar", "potential"])
def test_recipes_know_the_fields_by_name(name):
    flow = FlowSpec(2, vector_field=name, width=8, depth=1)(KEY)
    assert isinstance(flow.bijection.vector_field.rest, VECTOR_FIELDS[name])


@pytest.mark.parametrize(
    "build",
    [
        lambda: Galerkin((2,), basis="legendre", key=KEY),
        lambda: Galerkin((2,), terms=0, key=KEY),
        lambda: ConcatSquash((2,), conditioning="film", key=KEY),
        lambda: TrainedTime(make_field("mlp"), 0.0),
        lambda: Hypernetwork((2,), activation="relu6", key=KEY),
    ],
)
def test_bad_arguments_are_refused(build):
    with pytest.raises(ValueError, match=r"Expected .* got .*; try"):
        build()


def test_points_of_any_shape_flow_through_the_fields():
    for name in ("galerkin", "hypernetwork", "planar", "potential_3", "trained_time", "hyper_1"):
        field = FIELDS[name]((2, 2), cond_shape=None, key=KEY)
        assert eqx.filter_eval_shape(field, 0.5, jnp.ones((2, 2))).shape == (2, 2)


def test_planar_layers_are_the_sum_of_gated_layers(x64):
    field = randomize(PlanarField((3,), width=6, form="layers", key=KEY), 1)
    x, t = np.array([0.4, -1.1, 0.7]), 0.3
    gates = np.asarray(field.gates(t))
    assert np.any(gates < 0)
    w, b, u = (np.asarray(part) for part in (field.inner.weight, field.inner.bias, field.outer.weight.T))
    expected = sum(g * (x + u[m] * np.tanh(w[m] @ x + b[m])) for m, g in enumerate(gates))
    np.testing.assert_allclose(field(t, jnp.asarray(x)), expected, rtol=1e-6)
    # It starts at rest, as all fields do.
    assert not np.any(PlanarField((3,), form="layers", key=KEY)(t, jnp.asarray(x)))
    with pytest.raises(ValueError, match=r"Expected a form among \['terms', 'layers'\], got 'notebook'"):
        PlanarField((3,), form="notebook", key=KEY)


def test_any_network_makes_a_flow(x64):
    """The tutorial's: 2-64-64-64-2, not told the time. Its flow is a semigroup, and every weight is trained."""
    net = eqx.nn.MLP(2, 2, width_size=64, depth=3, activation=jnp.tanh, key=KEY)
    field = Wrapped(net, (2,))
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters(field))) == 8642
    cnf, x = CNF(field, integrator=Integrator.constant(20)), jnp.array([0.4, -1.1])
    end, log_det = eqx.filter_jit(cnf.transform_and_log_det)(x)
    jacobian = jax.jit(jax.jacrev(cnf.transform))(x)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=1e-6)
    half = eqx.filter_jit(lambda x: cnf.move(cnf.move(x, 0.0, 0.5).x, 0.3, 0.8).x)(x)
    np.testing.assert_allclose(half, end, atol=1e-6)


def test_a_function_of_time_makes_a_field():
    field = Wrapped(lambda t, x: t * x, (2,), takes_time=True)
    np.testing.assert_allclose(CNF(field).transform(jnp.ones(2)), np.exp(0.5), rtol=1e-4)


def test_what_is_no_field_is_named():
    net = eqx.nn.MLP(2, 2, 8, 1, key=KEY)
    with pytest.raises(TypeError, match=r"Expected an AbstractVectorField, got MLP; try .*Wrapped\(net, shape\)"):
        CNF(net)
    with pytest.raises(TypeError, match="Expected an AbstractVectorField, got function; try"):
        CNF(lambda t, x: x)
    with pytest.raises(TypeError, match=r"called as net\(x\), got function.*try takes_time=True"):
        Wrapped(lambda t, x: x, (2,))
    with pytest.raises(TypeError, match=r"called as net\(t, x\), got MLP.*try takes_time=False"):
        Wrapped(net, (2,), takes_time=True)
    with pytest.raises(ValueError, match=r"a velocity of shape \(2,\), got \(1,\)"):
        Wrapped(lambda x: x[:1], (2,))


@pytest.mark.parametrize("cond_shape", [None, (2,)])
def test_without_conditioning_a_field_is_not_told_the_time(cond_shape):
    field = ConcatSquash((3,), width=8, depth=1, conditioning="none", cond_shape=cond_shape, key=KEY)
    condition = None if cond_shape is None else CONDITION
    value = field(0.1, X, condition)
    np.testing.assert_array_equal(value, field(0.9, X, condition))
    assert np.any(value != field(0.1, X + 1, condition))
    if condition is not None:
        assert np.any(value != field(0.1, X, condition + 1))
    else:
        net = [(np.asarray(layer.linear.weight), np.asarray(layer.linear.bias)) for layer in field.layers]
        (w, b), (v, c) = net
        np.testing.assert_allclose(value, v @ np.tanh(w @ np.asarray(X) + b) + c, rtol=1e-5)


class ChebyshevLayer(eqx.Module):
    """A layer of one's own: Chebyshev polynomials of each input, their coefficients affine in the time."""

    weight: jax.Array

    def __init__(self, fan_in, fan_out, signal, *, key):
        self.weight = jax.random.normal(key, (1 + signal, fan_out, 3 * fan_in)) / fan_in

    def __call__(self, x, signal):
        features = jnp.concatenate([jnp.cos(k * jnp.arccos(jnp.tanh(x))) for k in range(3)])
        return jnp.einsum("s,soi,i->o", jnp.concatenate([jnp.ones(1, x.dtype), signal]), self.weight, features)


def test_a_layer_of_ones_own_stacks():
    field = ConcatSquash((3,), width=4, depth=1, conditioning=ChebyshevLayer, key=KEY)
    first, last = (np.asarray(layer.weight, np.float64) for layer in field.layers)

    def layer(weight, x, t):
        basis = [chebyshev.chebval(np.tanh(x), np.eye(3)[k]) for k in range(3)]
        return (weight[0] + t * weight[1]) @ np.concatenate(basis)

    expected = layer(last, np.tanh(layer(first, np.asarray(X, np.float64), 0.3)), 0.3)
    np.testing.assert_allclose(field(0.3, X), expected, rtol=1e-4, atol=1e-5)

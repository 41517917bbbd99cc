"""Networks whose weights are functions of time: the depth-varying parameters of neural ODEs."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activations import activate, check_activation
from .._draws import split
from .._types import Condition, Key, Point, Time
from ..vector_fields import AbstractVectorField
from ..vector_fields._layers import ExpandedLinear, Perceptron, append_condition, condition_size, time_signal

BASES = ("chebyshev", "fourier", "polynomial")


def basis_functions(name: str, t: Time, terms: int) -> Float[Array, " terms"]:
    """Return the first functions of a basis on the unit interval at time `t`; the very first is 1.

    Parameters
    ----------
    name
        ``"polynomial"``: the powers of `t`; ``"chebyshev"``: the Chebyshev polynomials of ``2 t - 1``, which span the
        same functions, all within [-1, 1] and far better conditioned; ``"fourier"``: sines and cosines of ``pi t``,
        ``2 pi t`` and so on, of period 2, since with period 1 the weights at base and data would be the same.
    t
        Time.
    terms
        Number of functions.

    Returns
    -------
    Array
        Their values, of shape ``(terms,)``.

    Examples
    --------
    >>> print(basis_functions("polynomial", 0.5, 3))
    [1.   0.5  0.25]
    """
    t = jnp.asarray(t, jnp.result_type(float))
    if name == "fourier":
        order = np.arange(terms)
        angle = np.pi * ((order + 1) // 2) * t
        return jnp.where(order % 2 == 1, jnp.sin(angle), jnp.cos(angle))
    values = [jnp.ones_like(t), t if name == "polynomial" else 2 * t - 1]
    while len(values) < terms:
        last = values[1] * values[-1]
        values.append(last if name == "polynomial" else 2 * last - values[-2])
    return jnp.stack(values[:terms])


def _layers(sizes: list[int], terms: int, key: Key) -> tuple[ExpandedLinear, ...]:
    """Return the layers of a network; the last starts at zero, so the flow starts at the identity."""
    keys, last = split(key, len(sizes) - 1), len(sizes) - 2
    return tuple(
        ExpandedLinear(terms, *sizes[i : i + 2], key=k, zero=i == last)  # pyright: ignore[reportCallIssue]
        for i, k in enumerate(keys)
    )


def _run(
    layers: tuple[ExpandedLinear, ...], activation: str, h: Float[Array, " n"], coefficients: Float[Array, " terms"]
) -> Float[Array, " m"]:
    for layer in layers[:-1]:
        h = activate(activation, layer(h, coefficients))
    return layers[-1](h, coefficients)


class Galerkin(AbstractVectorField):
    """A multilayer perceptron whose weights are expansions in a basis of functions of time.

    ``W(t) = sum_k c_k(t) W_k``, for weights and biases alike (Massaroli and others, Dissecting neural
    ODEs, 2020): the weights vary with depth, as those of a stack of layers do.

    Parameters
    ----------
    shape
        Shape of one point.
    width, depth
        Units of the hidden layers, and number of hidden layers.
    basis
        ``"polynomial"``, ``"fourier"`` or ``"chebyshev"``; see `basis_functions`.
    terms
        Number of basis functions: the network has as many times the parameters of a plain one. With 1 the
        weights are constant.
    cond_shape
        Shape of the condition, or None; it enters beside the point.
    activation
        Name of the activation between layers.
    key
        Key for the initial weights.

    Raises
    ------
    ValueError
        Where the basis or the activation is unknown, or `terms` is less than 1.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> field = Galerkin((2,), width=8, depth=1, basis="fourier", key=jax.random.key(0))
    >>> print(field(0.5, jnp.ones(2)))
    [0. 0.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    basis: str = eqx.field(static=True)
    layers: tuple[ExpandedLinear, ...]

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 2,
        basis: str = "chebyshev",
        terms: int = 5,
        cond_shape: tuple[int, ...] | None = None,
        activation: str = "silu",
        key: Key,
    ):
        if basis not in BASES:
            raise ValueError(f"Expected a basis among {list(BASES)}, got {basis!r}; try 'chebyshev'.")
        if terms < 1:
            raise ValueError(f"Expected terms of at least 1, got {terms}; try 5.")
        self.shape, self.cond_shape, self.basis = tuple(shape), cond_shape, basis
        self.activation = check_activation(activation)
        size = math.prod(shape)
        self.layers = _layers([size + condition_size(cond_shape), *[width] * depth, size], terms, key)

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        h = append_condition(jnp.ravel(x), condition)
        return _run(self.layers, self.activation, h, self.coefficients(t)).reshape(self.shape)

    def coefficients(self, t: Time) -> Float[Array, " terms"]:
        """Return the values of the basis functions: what each layer's weights are combined with."""
        return basis_functions(self.basis, t, self.layers[0].bias.shape[0])


class Hypernetwork(AbstractVectorField):
    """A multilayer perceptron whose weights are the output of a small network of the time.

    The small network has one affine output layer, so its weights, too, are expansions ``W_0 + sum_k
    c_k(t) W_k``, in functions that are learned: its hidden units (Massaroli and others, Dissecting
    neural ODEs, 2020; Ha and others, HyperNetworks, 2017.)

    Parameters
    ----------
    shape
        Shape of one point.
    width, depth
        Units of the hidden layers, and number of hidden layers.
    hyper_width, hyper_depth
        Units and number of the small network's hidden layers: parameters grow with `hyper_width`.
    cond_shape
        Shape of the condition, or None; it drives the weights, beside the time.
    activation
        Name of the activation between layers.
    key
        Key for the initial weights.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> field = Hypernetwork((2,), width=8, depth=1, key=jax.random.key(0))
    >>> print(field(0.5, jnp.ones(2)))
    [0. 0.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    hyper: Perceptron
    layers: tuple[ExpandedLinear, ...]

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 2,
        hyper_width: int = 8,
        hyper_depth: int = 1,
        cond_shape: tuple[int, ...] | None = None,
        activation: str = "silu",
        key: Key,
    ):
        self.shape, self.cond_shape = tuple(shape), cond_shape
        self.activation = check_activation(activation)
        hyper_key, key = split(key)
        signal, size = 1 + condition_size(cond_shape), math.prod(shape)
        self.hyper = Perceptron([signal, *[hyper_width] * hyper_depth], key=hyper_key)
        self.layers = _layers([size, *[width] * depth, size], hyper_width + 1, key)

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        return _run(self.layers, self.activation, jnp.ravel(x), self.coefficients(t, condition)).reshape(self.shape)

    def coefficients(self, t: Time, condition: Condition = None) -> Float[Array, " terms"]:
        """Return 1 and the hidden units of the small network: what each layer's weights are combined with."""
        hidden = jnp.tanh(self.hyper(time_signal(t, condition)))
        return jnp.concatenate([jnp.ones(1, hidden.dtype), hidden])

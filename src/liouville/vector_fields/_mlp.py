"""The default vector field: a residual multilayer perceptron that is told the time."""

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activations import activate, check_activation
from .._draws import split
from .._types import Condition, Key, Point, Time
from ._base import AbstractVectorField, Linearization
from ._layers import append_condition, condition_size, linear, time_features

_MANY = 1.25


class ResidualBlock(eqx.Module):
    """``h + W2 act(W1 act(h) + shift)``; the shift carries time and condition."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    activation: str = eqx.field(static=True)

    def __init__(self, width: int, activation: str, *, key: Key):
        key_first, key_second = split(key)
        self.first = linear(width, width, key=key_first)
        self.second = linear(width, width, key=key_second)
        self.activation = activation

    def __call__(self, h: Float[Array, " width"], shift: Float[Array, " width"]) -> Float[Array, " width"]:
        inner = self.first(activate(self.activation, h)) + shift
        return h + self.second(activate(self.activation, inner))


class MLP(AbstractVectorField):
    """Residual blocks with a Fourier embedding of time, added before every block.

    Parameters
    ----------
    shape
        Shape of one point.
    width, depth
        Units of the hidden layers, and number of residual blocks (two layers each; 0 is allowed).
    cond_shape
        Shape of the condition, or None.
    activation
        Name of the activation: smooth ones only, since the divergence differentiates the field.
    num_frequencies
        Cosine and sine pairs in the embedding of time.
    key
        Key for the initial weights.

    Notes
    -----
    The output layer starts at zero, so the field starts at rest and the flow at the identity.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> field = MLP((2,), width=16, depth=1, key=jax.random.key(0))
    >>> print(field(0.5, jnp.ones(2)))
    [0. 0.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    num_frequencies: int = eqx.field(static=True)
    inner: eqx.nn.Linear
    embedding: eqx.nn.Linear
    blocks: tuple[ResidualBlock, ...]
    outer: eqx.nn.Linear

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 2,
        cond_shape: tuple[int, ...] | None = None,
        activation: str = "silu",
        num_frequencies: int = 8,
        key: Key,
    ):
        keys = split(key, depth + 3)
        size = math.prod(shape)
        self.shape, self.cond_shape = tuple(shape), cond_shape
        self.activation, self.num_frequencies = check_activation(activation), num_frequencies
        # Data at unit scale make features at unit scale: smaller ones start out linear, and stay so for long.
        self.inner = linear(size, width, key=keys[0], gain=2.0)
        fan_in = 2 * num_frequencies + condition_size(cond_shape)
        self.embedding = linear(fan_in, width * (depth + 1), key=keys[1])
        self.blocks = tuple(ResidualBlock(width, self.activation, key=k) for k in keys[3:])
        self.outer = linear(width, size, key=keys[2], zero=True)

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        hidden = self._hidden(self.inner(jnp.ravel(x)), self._shifts(t, condition))
        return self.outer(hidden).reshape(self.shape)

    def value_and_divergence(self, t: Time, x: Point, condition: Condition, estimate: Callable) -> Linearization:
        """Return the velocity and its divergence: where it is exact, through the layers with the fewest units."""
        local = estimate(lambda x: self(t, x, condition), x)
        # Of hardly more coordinates than units the circle costs what it saves.
        if not local.is_trace or x.size <= _MANY * self.inner.weight.shape[0]:
            return local
        # A trace of products is that of the same in a circle: the velocity, as a map of the first layer's units, goes
        # on to the units that it would have them be.
        shifts = self._shifts(t, condition)
        circle = self.inner.weight @ self.outer.weight
        within = estimate(lambda h: circle @ self._hidden(h, shifts), self.inner(jnp.ravel(x)))
        return dataclasses.replace(local, estimates=within.estimates)

    def _shifts(self, t: Time, condition: Condition) -> Float[Array, "layers width"]:
        """Return what time and condition add to the units of the first layer, and within each block."""
        features = append_condition(time_features(t, self.num_frequencies), condition)
        return self.embedding(features).reshape(len(self.blocks) + 1, -1)

    def _hidden(self, h: Float[Array, " width"], shifts: Float[Array, "layers width"]) -> Float[Array, " width"]:
        """Return the last units, of those that the first layer makes of a point."""
        h = h + shifts[0]
        for block, shift in zip(self.blocks, shifts[1:], strict=True):
            h = block(h, shift)
        return activate(self.activation, h)

"""The planar continuous flow: gated planar terms, whose divergence is known in closed form."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Condition, Key, Point, Time
from ._base import AbstractVectorField, Linearization
from ._layers import Perceptron, condition_size, linear, time_signal


class PlanarField(AbstractVectorField):
    """A sum of planar terms, ``sum_m g_m(t) u_m tanh(w_m . x + b_m)``, each with a gate in time.

    The continuous planar flow (Chen and others, Neural ordinary differential equations, 2018, section 4):
    `u`, `w` and `b` are constant in time, the gates ``g_m(t)`` in (0, 1) come from
    a multilayer perceptron of the time and the condition. The divergence,
    ``sum_m g_m(t) (u_m . w_m) (1 - tanh(w_m . x + b_m)^2)``, is exact and costs no more than the field:
    no divergence is estimated, whichever the flow is given.

    Parameters
    ----------
    shape
        Shape of one point.
    width
        Number of planar terms.
    depth
        Hidden layers of the gate (0: a sigmoid of a linear map of the time).
    gate_width
        Units of the gate's hidden layers.
    cond_shape
        Shape of the condition, or None; it drives the gates.
    key
        Key for the initial weights.

    Notes
    -----
    The vectors `u` start at zero, so the flow starts at the identity.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> field = PlanarField((2,), width=8, key=jax.random.key(0))
    >>> print(field(0.5, jnp.ones(2)))
    [0. 0.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear
    gate: Perceptron

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 1,
        gate_width: int = 16,
        cond_shape: tuple[int, ...] | None = None,
        key: Key,
    ):
        self.shape, self.cond_shape = tuple(shape), cond_shape
        inner_key, outer_key, gate_key = jax.random.split(key, 3)
        size = math.prod(shape)
        self.inner = linear(size, width, key=inner_key)
        self.outer = linear(width, size, key=outer_key, zero=True, bias=False)
        self.gate = Perceptron([1 + condition_size(cond_shape), *[gate_width] * depth, width], key=gate_key)

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        return self.outer(self.gates(t, condition) * jnp.tanh(self.inner(jnp.ravel(x)))).reshape(self.shape)

    def gates(self, t: Time, condition: Condition = None) -> Float[Array, " width"]:
        """Return the gates at time `t`, each in (0, 1)."""
        return jax.nn.sigmoid(self.gate(time_signal(t, condition)))

    def value_and_divergence(self, t: Time, x: Point, condition: Condition, estimate: Callable) -> Linearization:
        """Return the velocity and its divergence, in closed form."""
        local = estimate(lambda x: self(t, x, condition), x)
        overlap = jnp.sum(self.outer.weight.T * self.inner.weight, axis=1)
        slope = 1 - jnp.tanh(self.inner(jnp.ravel(x))) ** 2
        divergence = jnp.sum(self.gates(t, condition) * overlap * slope)
        return Linearization(local.value, local.probes, local.products, jnp.full_like(local.estimates, divergence))

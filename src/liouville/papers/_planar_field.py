"""The planar continuous flow: gated planar terms, whose divergence is known in closed form."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._draws import split
from .._types import Condition, Key, Point, Time
from ..vector_fields import AbstractVectorField, Linearization
from ..vector_fields._layers import Perceptron, condition_size, linear, time_signal

FORMS = ("terms", "layers")


class PlanarField(AbstractVectorField):
    """A sum of planar terms, each with a gate in time: ``sum_m g_m(t) u_m tanh(w_m . x + b_m)``.

    The continuous planar flow (Chen and others, Neural ordinary differential equations, 2018, section 4):
    `u`, `w` and `b` are constant in time, the gates ``g_m(t)`` in (0, 1) come from
    a multilayer perceptron of the time and the condition. The divergence,
    ``sum_m g_m(t) (u_m . w_m) (1 - tanh(w_m . x + b_m)^2)``, is exact and costs no more than the field:
    no divergence is estimated, whichever the flow is given.

    With ``form="layers"`` the sum is one of whole planar layers, ``sum_m g_m(t) (x + u_m tanh(w_m . x + b_m))``, whose
    gates can be any number. As many terms then learn more: a gate that never turns its sign can undo nothing.

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
    form
        ``"terms"``, the paper's; or ``"layers"``, with the identity inside and gates without bounds.
    cond_shape
        Shape of the condition, or None; it drives the gates.
    key
        Key for the initial weights.

    Raises
    ------
    ValueError
        Where the form is neither.

    Notes
    -----
    The vectors `u` of terms start at zero, and the gates of layers, so the flow starts at the identity.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> field = PlanarField((2,), width=8, key=jax.random.key(0))
    >>> print(field(0.5, jnp.ones(2)))
    [0. 0.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    form: str = eqx.field(static=True)
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
        form: str = "terms",
        cond_shape: tuple[int, ...] | None = None,
        key: Key,
    ):
        if form not in FORMS:
            raise ValueError(f"Expected a form among {list(FORMS)}, got {form!r}; try 'layers'.")
        self.shape, self.cond_shape, self.form = tuple(shape), cond_shape, form
        inner_key, outer_key, gate_key = split(key, 3)
        size = math.prod(shape)
        self.inner = linear(size, width, key=inner_key)
        self.outer = linear(width, size, key=outer_key, zero=form == "terms", bias=False)
        sizes = [1 + condition_size(cond_shape), *[gate_width] * depth, width]
        self.gate = Perceptron(sizes, key=gate_key, zero=form == "layers")

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        gates = self.gates(t, condition)
        moved = self.outer(gates * jnp.tanh(self.inner(jnp.ravel(x)))).reshape(self.shape)
        return moved + jnp.sum(gates) * x if self.form == "layers" else moved

    def gates(self, t: Time, condition: Condition = None) -> Float[Array, " width"]:
        """Return the gates at time `t`: of terms each in (0, 1), of layers any numbers."""
        gates = self.gate(time_signal(t, condition))
        return gates if self.form == "layers" else jax.nn.sigmoid(gates)

    def value_and_divergence(self, t: Time, x: Point, condition: Condition, estimate: Callable) -> Linearization:
        """Return the velocity and its divergence, in closed form."""
        local = estimate(lambda x: self(t, x, condition), x)
        overlap = jnp.sum(self.outer.weight.T * self.inner.weight, axis=1)
        slope = 1 - jnp.tanh(self.inner(jnp.ravel(x))) ** 2
        identity = x.size if self.form == "layers" else 0
        divergence = jnp.sum(self.gates(t, condition) * (identity + overlap * slope))
        return Linearization(local.value, local.probes, local.products, jnp.full_like(local.estimates, divergence))

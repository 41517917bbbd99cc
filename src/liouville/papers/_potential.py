"""OT-Flow's field: minus the gradient of a potential, with its divergence in closed form."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._draws import split
from .._types import Condition, Key, Point, Scalar, Time
from ..regularizers import AbstractRegularizer, PathPoint
from ..vector_fields import AbstractVectorField, Linearization
from ..vector_fields._layers import condition_size, linear, time_signal


def log_cosh_activation(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return ``log(exp(x) + exp(-x))``, the antiderivative of ``tanh``, without overflow."""
    return jnp.logaddexp(x, -x)


class Potential(AbstractVectorField):
    """Minus the gradient of a potential (Onken and others, OT-Flow, 2021).

    With ``s = (x, t, condition)`` the potential is ``Phi(t, x) = w . N(s) + |A s|^2 / 2 + b . s`` plus a constant,
    that no gradient sees, and the field is ``v = -grad_x Phi``: flows of optimal transport are of this kind. `N` is a
    residual network with the antiderivative of ``tanh`` for activation: ``u_0 = act(K_0 s + b_0)`` and
    ``u_i = u_{i-1} + h act(K_i u_{i-1} + b_i)`` with ``h = 1 / depth``. Gradient and Laplacian are in closed form, at
    any depth: the divergence is exact, at about the cost of `d` columns through the network, and nothing is
    estimated, whichever divergence the flow is given.

    Parameters
    ----------
    shape
        Shape of one point.
    width
        Units of each layer (`m` in the paper).
    depth
        Residual layers behind the opening one (0 is allowed; the paper's two-layer network has 1).
    rank
        Rows of `A`; None takes as many as the paper does, 10 at most.
    cond_shape
        Shape of the condition, or None.
    key
        Key for the initial weights.

    Notes
    -----
    The field does not start at rest: ``w`` starts at ones, as published.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> field = Potential((2,), width=8, key=jax.random.key(0))
    >>> _, gradient, _ = field.potential_and_gradients(0.5, jnp.ones(2))
    >>> bool(jnp.allclose(field(0.5, jnp.ones(2)), -gradient))
    True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    opening: eqx.nn.Linear
    layers: tuple[eqx.nn.Linear, ...]
    weight: Float[Array, " width"]
    factor: Float[Array, "rank signal"]
    slope: Float[Array, " signal"]

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 1,
        rank: int | None = None,
        cond_shape: tuple[int, ...] | None = None,
        key: Key,
    ):
        self.shape, self.cond_shape = tuple(shape), cond_shape
        signal = math.prod(shape) + 1 + condition_size(cond_shape)
        rank = min(10, signal) if rank is None else rank
        opening_key, factor_key, *keys = split(key, depth + 2)
        self.opening = linear(signal, width, key=opening_key)
        self.layers = tuple(linear(width, width, key=k) for k in keys)
        self.weight = jnp.ones(width)
        self.factor = jax.nn.initializers.glorot_uniform()(factor_key, (rank, signal))
        self.slope = jnp.zeros(signal)

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        *_, gradient = self._backward(self._signal(t, x, condition))
        return -gradient[: x.size].reshape(self.shape)

    def potential_and_gradients(self, t: Time, x: Point, condition: Condition = None) -> tuple[Scalar, Point, Scalar]:
        """Return the potential, its gradient in `x` and its derivative in `t`, all in closed form.

        On paths of optimal transport ``dPhi/dt = |grad_x Phi|^2 / 2``, the Hamilton-Jacobi-Bellman equation (OT-Flow,
        2021): its residual is what their regularizer makes small.

        Parameters
        ----------
        t, x, condition
            Time, point and condition.

        Returns
        -------
        potential : Array
            The potential, up to a constant.
        gradient : Array
            Its gradient in `x`, of the shape of one point: minus the field.
        rate : Array
            Its derivative in time at a fixed point.
        """
        signal = self._signal(t, x, condition)
        outputs, *_, gradient = self._backward(signal)
        quadratic = jnp.sum((self.factor @ signal) ** 2) / 2
        potential = self.weight @ outputs[-1] + quadratic + self.slope @ signal
        return potential, gradient[: x.size].reshape(self.shape), gradient[x.size]

    def value_and_divergence(self, t: Time, x: Point, condition: Condition, estimate: Callable) -> Linearization:
        """Return the velocity and its divergence, minus the Laplacian of the potential, in closed form."""
        local = estimate(lambda x: self(t, x, condition), x)
        divergence = -self._laplacian(self._signal(t, x, condition), x.size)
        return Linearization(local.value, local.probes, local.products, jnp.full_like(local.estimates, divergence))

    def _signal(self, t: Time, x: Point, condition: Condition) -> Float[Array, " signal"]:
        return jnp.concatenate([jnp.ravel(x), time_signal(t, condition).astype(x.dtype)])

    def _forward(self, signal: Float[Array, " signal"]) -> tuple[list[Array], list[Array]]:
        """Return the outputs ``u_i`` and the arguments of the activations, layer by layer."""
        arguments = [self.opening(signal)]
        outputs = [log_cosh_activation(arguments[0])]
        for layer in self.layers:
            arguments.append(layer(outputs[-1]))
            outputs.append(outputs[-1] + log_cosh_activation(arguments[-1]) / len(self.layers))
        return outputs, arguments

    def _backward(self, signal: Float[Array, " signal"]) -> tuple[list[Array], list[Array], list[Array], Array]:
        """Return what `_forward` does, the adjoints ``w . dN/du_i`` of every layer, and the gradient in the signal."""
        outputs, arguments = self._forward(signal)
        adjoints = [self.weight]
        for layer, argument in zip(self.layers[::-1], arguments[:0:-1], strict=True):
            adjoint = adjoints[0]
            change = layer.weight.T @ (jnp.tanh(argument) * adjoint) / len(self.layers)
            adjoints.insert(0, adjoint + change)
        gradient = self.opening.weight.T @ (jnp.tanh(arguments[0]) * adjoints[0])
        gradient = gradient + self.factor.T @ (self.factor @ signal) + self.slope
        return outputs, arguments, adjoints, gradient

    def _laplacian(self, signal: Float[Array, " signal"], size: int) -> Scalar:
        """Return the trace of the potential's Hessian in `x` (OT-Flow computes it for two layers; this is any depth).

        Each activation adds its second derivative, weighed by its adjoint, times the squares of the Jacobian of its
        argument in `x`: one matrix with a column per entry of `x`, that goes forward through the network.
        """
        _, arguments, adjoints, _ = self._backward(signal)
        jacobian = self.opening.weight[:, :size]
        trace = self._curvature(arguments[0], adjoints[0], jacobian)
        jacobian = jnp.tanh(arguments[0])[:, None] * jacobian
        for layer, argument, adjoint in zip(self.layers, arguments[1:], adjoints[1:], strict=True):
            inner = layer.weight @ jacobian
            trace = trace + self._curvature(argument, adjoint, inner) / len(self.layers)
            jacobian = jacobian + jnp.tanh(argument)[:, None] * inner / len(self.layers)
        return trace + jnp.sum(self.factor[:, :size] ** 2)

    @staticmethod
    def _curvature(argument: Array, adjoint: Array, jacobian: Array) -> Scalar:
        return jnp.sum((1 - jnp.tanh(argument) ** 2) * adjoint * jnp.sum(jacobian**2, axis=1))


class HamiltonJacobi(AbstractRegularizer):
    """``|dPhi/dt - |grad Phi|^2 / 2|``: how far a potential is from optimal transport's (OT-Flow, 2021).

    Where ``v = -grad Phi`` the optimal potential solves the Hamilton-Jacobi-Bellman equation
    ``dPhi/dt = |grad Phi|^2 / 2``: points keep their velocity. It is the same whichever way time runs. Exact.

    Parameters
    ----------
    weight
        Factor in the loss.

    Raises
    ------
    TypeError
        Where the vector field is not a `Potential`.
    """

    weight: float = eqx.field(default=0.01, static=True)
    name: str = eqx.field(default="hamilton_jacobi", static=True, init=False)

    def __call__(self, point: PathPoint) -> Scalar:
        """Return the equation's residual, in absolute value."""
        if not isinstance(point.vector_field, Potential):
            raise TypeError(
                f"Expected a Potential as the vector field, got {type(point.vector_field).__name__}; "
                "try CNF(Potential(...), ...)."
            )
        _, gradient, rate = point.vector_field.potential_and_gradients(point.t, point.x, point.condition)
        return jnp.abs(rate - jnp.sum(gradient**2) / 2)

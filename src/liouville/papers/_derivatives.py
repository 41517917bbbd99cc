"""Penalties on derivatives along the path: RNODE's code, and TayNODE."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.experimental import jet

from .._types import Point, Scalar
from ..regularizers import AbstractSquares, PathPoint


class DirectionalDerivative(AbstractSquares):
    """``|J v|^2``: how the velocity changes along itself at a fixed time (Finlay and others' code, 2020). Exact.

    Parameters
    ----------
    weight
        Factor in the loss.
    reduce
        ``"mean"`` per dimension, as published, or ``"sum"``.
    """

    name: str = eqx.field(default="directional_derivative", static=True, init=False)

    def __call__(self, point: PathPoint) -> Scalar:
        """Return the squares of ``J v``."""
        _, change = jax.jvp(lambda x: point.field(point.t, x), (point.x,), (point.local.value,))
        return self.squares(change)


class TotalDerivative(AbstractSquares):
    """``|dv/dt + J v|^2``: the squared acceleration along the path (Finlay and others' code, 2020). Exact.

    Zero on straight paths at constant speed, which any solver follows in one step.

    Parameters
    ----------
    weight
        Factor in the loss.
    reduce
        ``"mean"`` per dimension, as published, or ``"sum"``.
    """

    name: str = eqx.field(default="total_derivative", static=True, init=False)

    def __call__(self, point: PathPoint) -> Scalar:
        """Return the squares of the acceleration."""
        t = jnp.asarray(point.t, point.x.dtype)
        _, change = jax.jvp(point.field, (t, point.x), (jnp.ones_like(t), point.local.value))
        return self.squares(change)


class TaylorDerivative(AbstractSquares):
    """``|d^K x / dt^K|^2`` along the path (Kelly and others, TayNODE, 2020). Exact, by Taylor mode.

    A solver of order m takes long steps where the derivatives above the m-th are small.

    Parameters
    ----------
    order
        `K`: 2 is the acceleration, 3 the jerk.
    weight
        Factor in the loss.
    reduce
        ``"mean"`` per dimension, as published, or ``"sum"``.

    Notes
    -----
    The field's activations must have Taylor-mode rules: ``tanh`` and ``silu`` have.
    """

    order: int = eqx.field(default=2, static=True)
    name: str = eqx.field(default="", static=True)

    def __init__(self, order: int = 2, *, weight: float = 0.01, reduce: str = "mean"):
        if order < 2:
            raise ValueError(f"Expected an order of at least 2, got {order}; try KineticEnergy for order 1.")
        self.order, self.weight, self.reduce, self.name = order, weight, reduce, f"taylor_{order}"

    def __call__(self, point: PathPoint) -> Scalar:
        """Return the squares of the derivative of order `K`."""
        return self.squares(path_derivatives(point, self.order)[-1])


def path_derivatives(point: PathPoint, order: int) -> list[Point]:
    """Return the derivatives of the path in time, of order 1 to `order`, by Taylor mode."""
    t = jnp.asarray(point.t, point.x.dtype)
    derivatives = [point.local.value]
    for _ in range(order - 1):
        # Known derivatives of the path go in; those of the velocity, one more of the path each, come out.
        times = [jnp.ones_like(t), *[jnp.zeros_like(t)] * (len(derivatives) - 1)]
        velocity, further = jet.jet(point.field, (t, point.x), (times, derivatives))
        derivatives = [velocity, *further]
    return derivatives

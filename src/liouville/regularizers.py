"""Regularizers: scalar rates that are integrated along the path, beside the flow itself.

Each is a sum of squares, or its mean per dimension: papers differ in this (RNODE's code takes means, OT-Flow
sums), and a weight means something else with each.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.experimental import jet

from ._types import Condition, Point, Scalar, Time
from .vector_fields import AbstractVectorField, Linearization, Potential


class PathPoint(eqx.Module):
    """A point of the path, and what the solve knows of the field there.

    Attributes
    ----------
    t, x, condition
        Where the path is.
    vector_field
        The field that moves it.
    local
        The field's value and its Jacobian along the divergence's probes.
    is_exact
        True where the probes are a whole basis, and not random.
    """

    t: Time
    x: Point
    condition: Condition
    vector_field: AbstractVectorField
    local: Linearization
    is_exact: bool = eqx.field(static=True)

    def field(self, t: Time, x: Point) -> Point:
        """Return the velocity elsewhere, under the same condition."""
        return self.vector_field(t, x, self.condition)


class AbstractRegularizer(eqx.Module):
    """A penalty on the path: one scalar rate per time, integrated from `t0` to `t1`.

    Attributes
    ----------
    name
        Key of the integral in ``FlowSolution.penalties``.
    weight
        Factor of the integral in the loss of maximum likelihood.
    """

    name: eqx.AbstractVar[str]
    weight: eqx.AbstractVar[float]

    @abc.abstractmethod
    def __call__(self, point: PathPoint) -> Scalar:
        """Return the rate at a point of the path."""


def check_reduce(reduce: str) -> None:
    """Raise ``ValueError`` unless `reduce` is a way to reduce squares to a number."""
    if reduce not in ("mean", "sum"):
        raise ValueError(f"Expected reduce 'mean' or 'sum', got {reduce!r}; try 'mean'.")


def squares(entries: Point, reduce: str) -> Scalar:
    """Return the sum of the squares of the entries, or their mean per dimension."""
    return jnp.mean(entries**2) if reduce == "mean" else jnp.sum(entries**2)


class KineticEnergy(AbstractRegularizer):
    """The kinetic energy ``mean(v^2) / 2`` (Finlay and others, RNODE, 2020).

    Exact whatever the divergence.

    Parameters
    ----------
    weight
        Factor in the loss.
    reduce
        ``"mean"`` per dimension, as RNODE's code has it, or ``"sum"``: OT-Flow's transport cost.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.vector_fields import MLP
    >>> cnf = CNF(MLP((2,), key=jax.random.key(0)), regularizers=(KineticEnergy(),))
    >>> print(cnf.to_data(jnp.ones(2)).penalties)
    {'kinetic_energy': Array(0., dtype=float32)}
    """

    weight: float = eqx.field(default=0.01, static=True)
    reduce: str = eqx.field(default="mean", static=True)
    name: str = eqx.field(default="kinetic_energy", static=True, init=False)

    def __check_init__(self):
        check_reduce(self.reduce)

    def __call__(self, point: PathPoint) -> Scalar:
        """Return half the mean, or the sum, of the squared velocity."""
        return squares(point.local.value, self.reduce) / 2


class JacobianFrobenius(AbstractRegularizer):
    """The squared Frobenius norm of the Jacobian (Finlay and others, RNODE, 2020).

    It reuses the probe of the divergence: ``mean((J e)^2)`` is an unbiased estimate of ``|J|^2 / d``, since
    the probes' entries are independent with variance 1; in reverse mode ``(e' J)^2``, as published, with the same
    mean. With an exact divergence it is exact.

    Parameters
    ----------
    weight
        Factor in the loss.
    reduce
        ``"mean"`` per dimension, as published, or ``"sum"``: the squared norm itself.
    """

    weight: float = eqx.field(default=0.01, static=True)
    reduce: str = eqx.field(default="mean", static=True)
    name: str = eqx.field(default="jacobian_frobenius", static=True, init=False)

    def __check_init__(self):
        check_reduce(self.reduce)

    def __call__(self, point: PathPoint) -> Scalar:
        """Return the squared norm, or its estimate, averaged over the probes."""
        total = jnp.sum(point.local.products**2)
        count = 1 if point.is_exact else point.local.products.shape[0]
        return total / (count * (point.x.size if self.reduce == "mean" else 1))


class DirectionalDerivative(AbstractRegularizer):
    """``|J v|^2``: how the velocity changes along itself at a fixed time (Finlay and others' code, 2020). Exact.

    Parameters
    ----------
    weight
        Factor in the loss.
    reduce
        ``"mean"`` per dimension, as published, or ``"sum"``.
    """

    weight: float = eqx.field(default=0.01, static=True)
    reduce: str = eqx.field(default="mean", static=True)
    name: str = eqx.field(default="directional_derivative", static=True, init=False)

    def __check_init__(self):
        check_reduce(self.reduce)

    def __call__(self, point: PathPoint) -> Scalar:
        """Return the squares of ``J v``."""
        _, change = jax.jvp(lambda x: point.field(point.t, x), (point.x,), (point.local.value,))
        return squares(change, self.reduce)


class TotalDerivative(AbstractRegularizer):
    """``|dv/dt + J v|^2``: the squared acceleration along the path (Finlay and others' code, 2020). Exact.

    Zero on straight paths at constant speed, which any solver follows in one step.

    Parameters
    ----------
    weight
        Factor in the loss.
    reduce
        ``"mean"`` per dimension, as published, or ``"sum"``.
    """

    weight: float = eqx.field(default=0.01, static=True)
    reduce: str = eqx.field(default="mean", static=True)
    name: str = eqx.field(default="total_derivative", static=True, init=False)

    def __check_init__(self):
        check_reduce(self.reduce)

    def __call__(self, point: PathPoint) -> Scalar:
        """Return the squares of the acceleration."""
        t = jnp.asarray(point.t, point.x.dtype)
        _, change = jax.jvp(point.field, (t, point.x), (jnp.ones_like(t), point.local.value))
        return squares(change, self.reduce)


class TaylorDerivative(AbstractRegularizer):
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

    order: int = eqx.field(static=True)
    weight: float = eqx.field(static=True)
    reduce: str = eqx.field(static=True)
    name: str = eqx.field(static=True)

    def __init__(self, order: int = 2, *, weight: float = 0.01, reduce: str = "mean"):
        if order < 2:
            raise ValueError(f"Expected an order of at least 2, got {order}; try KineticEnergy for order 1.")
        check_reduce(reduce)
        self.order, self.weight, self.reduce, self.name = order, weight, reduce, f"taylor_{order}"

    def __call__(self, point: PathPoint) -> Scalar:
        """Return the squares of the derivative of order `K`."""
        return squares(path_derivatives(point, self.order)[-1], self.reduce)


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
        return jnp.abs(rate - squares(gradient, "sum") / 2)

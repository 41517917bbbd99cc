"""Regularizers: scalar rates that are integrated along the path, beside the flow itself.

Each is a sum of squares, or its mean per dimension: papers differ in this (RNODE's code takes means, OT-Flow
sums), and a weight means something else with each.
"""

import abc

import equinox as eqx
import jax.numpy as jnp

from ._types import Condition, Point, Scalar, Time
from .vector_fields import AbstractVectorField, Linearization


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


class AbstractSquares(AbstractRegularizer):
    """A penalty on squares: their sum, or their mean per dimension (`reduce`)."""

    weight: float = eqx.field(default=0.01, static=True)
    reduce: str = eqx.field(default="mean", static=True)

    def __check_init__(self):
        if self.reduce not in ("mean", "sum"):
            raise ValueError(f"Expected reduce 'mean' or 'sum', got {self.reduce!r}; try 'mean'.")

    def squares(self, entries: Point) -> Scalar:
        """Return the sum of the squares of the entries, or their mean."""
        return jnp.mean(entries**2) if self.reduce == "mean" else jnp.sum(entries**2)


class KineticEnergy(AbstractSquares):
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

    name: str = eqx.field(default="kinetic_energy", static=True, init=False)

    def __call__(self, point: PathPoint) -> Scalar:
        """Return half the mean, or the sum, of the squared velocity."""
        return self.squares(point.local.value) / 2


class JacobianFrobenius(AbstractSquares):
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

    name: str = eqx.field(default="jacobian_frobenius", static=True, init=False)

    def __call__(self, point: PathPoint) -> Scalar:
        """Return the squared norm, or its estimate, averaged over the probes."""
        total = jnp.sum(point.local.products**2)
        count = 1 if point.is_exact else point.local.products.shape[0]
        return total / (count * (point.x.size if self.reduce == "mean" else 1))

"""Regularizers: scalar rates that are integrated along the path, beside the flow itself."""

import abc

import equinox as eqx
import jax.numpy as jnp

from ._types import Point, Scalar, Time


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
    def __call__(self, t: Time, x: Point, velocity: Point) -> Scalar:
        """Return the rate at time `t`, point `x` and the field's value there."""


class KineticEnergy(AbstractRegularizer):
    """The kinetic energy ``mean(v^2) / 2`` per dimension (Finlay and others, RNODE, 2020).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> print(KineticEnergy()(0.0, jnp.zeros(2), jnp.array([1.0, 3.0])))
    2.5
    """

    weight: float = eqx.field(default=0.01, static=True)
    name: str = eqx.field(default="kinetic_energy", static=True, init=False)

    def __call__(self, t: Time, x: Point, velocity: Point) -> Scalar:
        """Return ``mean(v^2) / 2``."""
        return jnp.mean(velocity**2) / 2

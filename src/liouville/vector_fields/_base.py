"""The protocol of a vector field: the right-hand side of the flow, at one point."""

import abc
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from .._types import Condition, Point, Time


class AbstractVectorField(eqx.Module):
    """A vector field ``v(t, x, condition)`` on one point; batches are the caller's ``vmap``.

    Attributes
    ----------
    shape
        Shape of one point `x`, and of the value.
    cond_shape
        Shape of the condition, or None where the field takes none.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]
    cond_shape: eqx.AbstractVar[tuple[int, ...] | None]

    @abc.abstractmethod
    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        """Return the velocity at time `t` and point `x`."""

    def value_and_divergence(
        self, t: Time, x: Point, condition: Condition, estimate: Callable
    ) -> tuple[Point, Float[Array, " probes"]]:
        """Return the velocity and its divergence, as ``estimate(fn, x)`` gives it.

        A field that knows part of its divergence in closed form overrides this, and hands only the
        rest to `estimate`.
        """
        return estimate(lambda x: self(t, x, condition), x)

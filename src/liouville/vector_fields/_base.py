"""The protocol of a vector field: the right-hand side of the flow, at one point."""

import abc
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from .._types import Condition, Point, Time


class Linearization(eqx.Module):
    """What a divergence sees of a function at a point: its value, and its Jacobian `J` along some probes.

    Whoever needs more of the Jacobian than its trace, as regularizers do, finds it here and computes nothing again.

    Attributes
    ----------
    value
        The function's value.
    probes
        The directions `e` along which the Jacobian was taken: a whole basis where the divergence is exact.
    products
        ``J e`` for every probe, or ``J' e`` in reverse mode.
    estimates
        One estimate of the trace per Hutchinson probe; a single number where it is exact.
    is_trace
        True where the estimate is the trace of the function's whole Jacobian, whatever the function.
    """

    value: Point
    probes: Float[Array, "directions *shape"]
    products: Float[Array, "directions *shape"]
    estimates: Float[Array, " probes"]
    is_trace: bool = eqx.field(default=False, static=True)


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

    def value_and_divergence(self, t: Time, x: Point, condition: Condition, estimate: Callable) -> Linearization:
        """Return the velocity and its divergence, as ``estimate(fn, x)`` gives it.

        A field that knows its divergence, or a part of it, in closed form overrides this, and puts it into
        the ``estimates`` of what `estimate` returns. What is then read by nobody is never computed: it does
        not survive compilation.
        """
        return estimate(lambda x: self(t, x, condition), x)

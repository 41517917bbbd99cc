"""A field over a length of time that is trained."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp

from .._types import Condition, Point, Scalar, Time
from ..vector_fields import AbstractVectorField, Linearization


class TrainedTime(AbstractVectorField):
    """The field ``T v(T t, x)``, whose flow over [0, 1] is that of `v` over [0, T], with `T` trained.

    FFJORD trains the end time of each of its flows (Grathwohl and others, 2019, and their code). Here the
    solver's end stays at 1, and the time is stretched: the same flow, with nothing special about its end.

    Parameters
    ----------
    field
        The field `v`.
    end_time
        Initial `T`, above 0; its logarithm is the parameter, so it stays above 0.

    Raises
    ------
    ValueError
        Where `end_time` is not above 0.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.vector_fields import ConcatSquash
    >>> field = TrainedTime(ConcatSquash((2,), width=8, key=jax.random.key(0)), end_time=0.5)
    >>> print(field.end_time)
    0.5
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    field: AbstractVectorField
    log_end_time: Scalar

    def __init__(self, field: AbstractVectorField, end_time: float = 1.0):
        if not end_time > 0:
            raise ValueError(f"Expected an end time above 0, got {end_time}; try 1.0.")
        self.shape, self.cond_shape = field.shape, field.cond_shape
        self.field, self.log_end_time = field, jnp.log(jnp.asarray(end_time, jnp.result_type(float)))

    @property
    def end_time(self) -> Scalar:
        """The trained length of time `T`."""
        return jnp.exp(self.log_end_time)

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        return self.end_time * self.field(self.end_time * t, x, condition)

    def value_and_divergence(self, t: Time, x: Point, condition: Condition, estimate: Callable) -> Linearization:
        """Return the velocity and its divergence, `T` times those of the field inside."""
        local, scale = self.field.value_and_divergence(self.end_time * t, x, condition, estimate), self.end_time
        return Linearization(scale * local.value, local.probes, scale * local.products, scale * local.estimates)

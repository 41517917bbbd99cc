"""A field on some of the coordinates: the others are held still."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp

from .._types import Condition, Point, Time
from ._base import AbstractVectorField, Linearization


class Masked(AbstractVectorField):
    """The field ``m v(t, m x, condition)``: coordinates where the mask `m` is 0 are neither seen nor moved.

    The mask comes first in the condition, so that the field inside is told which coordinates there are. The divergence
    is over the coordinates that move alone.

    Parameters
    ----------
    field
        The field `v`; its conditions are vectors that begin with a mask: as many numbers as a point has, each 0 or 1.

    Raises
    ------
    ValueError
        Where its conditions are shorter than a mask.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.vector_fields import ConcatSquash
    >>> field = Masked(ConcatSquash((2,), width=8, cond_shape=(2,), key=jax.random.key(0)))
    >>> print(abs(field(0.5, jnp.ones(2), jnp.array([1.0, 0.0]))[1]))
    0.0
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    field: AbstractVectorField

    def __init__(self, field: AbstractVectorField):
        self.field, self.shape, self.cond_shape = field, field.shape, field.cond_shape
        if len(field.shape) != 1 or field.cond_shape is None or field.cond_shape[0] < field.shape[0]:
            raise ValueError(
                f"Expected a field of vectors whose conditions begin with a mask of shape {field.shape}, got "
                f"cond_shape={field.cond_shape}; try a longer condition."
            )

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        mask = mask_of(condition, self.shape)
        return mask * self.field(t, mask * x, condition)

    def value_and_divergence(self, t: Time, x: Point, condition: Condition, estimate: Callable) -> Linearization:
        """Return the velocity and its divergence over the coordinates that move."""
        mask = mask_of(condition, self.shape)
        # Of probes without the others' entries the estimate is that of the smaller field.
        within = lambda fn, x: dataclasses.replace(estimate(lambda x: mask * fn(mask * x), x), is_trace=False)
        local = self.field.value_and_divergence(t, mask * x, condition, within)
        return Linearization(mask * local.value, local.probes, local.products, local.estimates)


def mask_of(condition: Condition, shape: tuple[int, ...]) -> Point:
    """Return the mask that a condition begins with."""
    return jnp.asarray(condition)[: shape[0]]

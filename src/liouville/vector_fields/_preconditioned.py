"""A field that starts from the exact answer for Gaussian data."""

import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp

from .._types import Condition, Point, Scalar, Time
from ._base import AbstractVectorField, Linearization


class Preconditioned(AbstractVectorField):
    """The Gaussian field in closed form, plus a learned rest.

    With base ``N(0, I)`` and the linear path ``x_t = (1 - t) z + t x``, data that are ``N(0, I)`` have
    the optimal field ``(2t - 1) / q x`` with ``q = (1 - t)^2 + t^2``. This field is that one plus
    ``rest(t, x / sqrt(q)) / sqrt(q)``: where the rest starts at zero, training starts at the Gaussian
    fit, not at noise. The division keeps the input and the target of the rest at unit scale.

    Parameters
    ----------
    rest
        The field to learn; times run from 0 (base) to 1 (data).

    Notes
    -----
    The divergence of the Gaussian part, ``d (2t - 1) / q``, is added in closed form, so a stochastic
    divergence estimates only the rest.
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    rest: AbstractVectorField

    def __init__(self, rest: AbstractVectorField):
        self.rest, self.shape, self.cond_shape = rest, rest.shape, rest.cond_shape

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        rate, scale = gaussian_rate(t)
        return rate * x + scale * self.rest(t, scale * x, condition)

    def value_and_divergence(self, t: Time, x: Point, condition: Condition, estimate: Callable) -> Linearization:
        """Return the velocity and its divergence, the Gaussian part in closed form."""
        rate, scale = gaussian_rate(t)
        rest = self.rest.value_and_divergence(t, scale * x, condition, estimate)
        # The chain rule gives the rest's Jacobian one more factor: its input is scaled, too.
        return Linearization(
            value=rate * x + scale * rest.value,
            probes=rest.probes,
            products=rate * rest.probes + scale**2 * rest.products,
            estimates=rate * math.prod(self.shape) + scale**2 * rest.estimates,
        )


def gaussian_rate(t: Time) -> tuple[Time, Scalar]:
    """Return the rate of the Gaussian field and one over the standard deviation of ``x_t``."""
    variance = (1 - t) ** 2 + t**2
    return (2 * t - 1) / variance, 1 / jnp.sqrt(variance)

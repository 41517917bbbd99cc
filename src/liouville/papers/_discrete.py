"""Pieces that the discrete layers share: a constraint that starts at zero, and what a numerical inverse reports."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from .._types import Point, Scalar
from ..integrate import SolveInfo

# Least slope of a layer along its steepest fold: below it rounding, not the formula, decides what is invertible.
LEAST_SLOPE = 1e-3
TOOK_TOO_LONG, NOT_FINITE = 1, 2


def above_minus_one(raw: Scalar) -> Scalar:
    """Return a smooth increasing function of `raw` above ``LEAST_SLOPE - 1`` that is 0 at 0.

    The papers take ``softplus(raw) - 1``, which is not 0 at 0: a layer of zeros would not be the identity.
    """
    top = 1 - LEAST_SLOPE
    return jax.nn.softplus(raw + math.log(math.expm1(top))) - top


def squared_length(x: Point) -> Scalar:
    """Return the sum of squares of all entries."""
    return jnp.sum(x**2)


def solver_info(start: Point, arrived: Bool[Array, ""], num_steps: Int[Array, ""]) -> SolveInfo:
    """Return what a numerical inverse from `start` took; its status is an index into ``STATUS``."""
    zero = jnp.zeros((), int)
    reason = jnp.where(jnp.all(jnp.isfinite(start)), TOOK_TOO_LONG, NOT_FINITE)
    steps = num_steps.astype(zero.dtype)
    return SolveInfo(jnp.where(arrived, zero, reason.astype(zero.dtype)), steps, zero, steps)

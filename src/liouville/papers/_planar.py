"""The planar layer, with a numerical inverse."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Bool, Float, Int

from .._draws import split
from .._types import Condition, Key, Point, Scalar
from ..bijections import AbstractBijection, Moved
from ._discrete import above_minus_one, solver_info, squared_length

MAX_STEPS = 128


class Planar(AbstractBijection):
    """``x = z + u tanh(w . z + b)`` (Rezende and Mohamed, Variational inference with normalizing flows, 2015).

    The log-determinant is ``log(1 + (w . u) tanh'(w . z + b))`` (equation 12), exact in any dimension. The map is
    invertible where ``w . u > -1``: `direction` is moved along `weight` until it is (appendix A.1; shifted here,
    so that a `direction` of zeros is the identity). There is no formula for the inverse, but only one number is
    unknown, ``w . z``, between bounds that are known: bisection finds it to rounding.

    Parameters
    ----------
    shape
        Shape of one point.
    key
        Key for the initial weights.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> planar = Planar((2,), key=jax.random.key(0))
    >>> x, log_det = planar.transform_and_log_det(jnp.ones(2))
    >>> print(jnp.allclose(planar.inverse(x), 1.0, atol=1e-5))
    True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    weight: Float[Array, "*shape"]
    direction: Float[Array, "*shape"]
    bias: Float[Array, ""]

    def __init__(self, shape: tuple[int, ...], *, key: Key):
        self.shape, self.cond_shape = tuple(shape), None
        weight_key, direction_key, bias_key = split(key, 3)
        # Layers fold along lines all over a standard normal base, each hardly at first.
        self.weight = jax.random.normal(weight_key, shape) * math.sqrt(2 / max(math.prod(shape), 1))
        self.direction = 0.1 * jax.random.normal(direction_key, shape)
        self.bias = jax.random.normal(bias_key)

    def constrained(self) -> tuple[Point, Scalar]:
        """Return the direction `u` that keeps the map invertible, and ``w . u``, above -1."""
        raw = jnp.sum(self.weight * self.direction)
        product = above_minus_one(raw)
        tiny = jnp.finfo(self.weight.dtype).tiny
        return self.direction + (product - raw) * self.weight / (squared_length(self.weight) + tiny), product

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return ``z + u tanh(w . z + b)`` and its log-determinant, exactly."""
        direction, product = self.constrained()
        bent = jnp.tanh(jnp.sum(self.weight * z) + self.bias)
        return Moved(z + direction * bent, jnp.log1p(product * (1 - bent**2)))

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return the preimage, to rounding, and minus its log-determinant; NaN where the search failed."""
        direction, product = self.constrained()
        across, arrived, num_steps = solve_across(jnp.sum(self.weight * x) + self.bias, product)
        bent = jnp.where(arrived, jnp.tanh(across), jnp.nan)
        log_det = -jnp.log1p(product * (1 - bent**2))
        return Moved(x - direction * bent, log_det, info=solver_info(x, arrived, num_steps))


def solve_across(target: Scalar, product: Scalar) -> tuple[Scalar, Bool[Array, ""], Int[Array, ""]]:
    """Return the root `s` of ``s + product tanh(s) = target``, whether it was found, and the number of steps.

    The left side increases in `s` and differs from it by at most ``|product|``: so the root lies that near.
    """
    # Rounding of the left side is of this size, so no search can do better.
    scale = 1 + jnp.abs(target) + jnp.abs(product)
    tolerance = 4 * jnp.finfo(scale.dtype).eps * jax.lax.stop_gradient(scale)
    half = jax.lax.stop_gradient(jnp.abs(product)) + tolerance
    middle = jax.lax.stop_gradient(target)
    solution = optimistix.root_find(
        lambda s, args: s + args[1] * jnp.tanh(s) - args[0],
        optimistix.Bisection(rtol=0.0, atol=tolerance, flip=False),  # pyright: ignore[reportArgumentType]
        middle,
        (target, product),
        options={"lower": middle - half, "upper": middle + half},
        max_steps=MAX_STEPS,
        throw=False,
    )
    return solution.value, solution.result == optimistix.RESULTS.successful, solution.stats["num_steps"]

"""The radial layer, with its inverse in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._draws import split
from .._types import Condition, Key, Point, Scalar
from ..bijections import AbstractBijection, Moved
from ._discrete import above_minus_one, squared_length


class Radial(AbstractBijection):
    """``x = z + beta (z - c) / (alpha + r)`` with ``r = |z - c|``: in or out around a centre.

    The log-determinant is ``(d - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2)``, exact in
    any dimension `d` (Rezende and Mohamed, Variational inference with normalizing flows, 2015, equation 14). The
    map is invertible where ``beta > -alpha`` (appendix A.2); the distance before it is then the positive
    root of a quadratic, so the inverse is exact too.

    Parameters
    ----------
    shape
        Shape of one point.
    key
        Key for the initial centre and strength.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> radial = Radial((3,), key=jax.random.key(0))
    >>> x, log_det = radial.transform_and_log_det(jnp.ones(3))
    >>> print(jnp.allclose(radial.inverse(x), 1.0, atol=1e-5))
    True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    centre: Float[Array, "*shape"]
    log_alpha: Float[Array, ""]
    strength: Float[Array, ""]

    def __init__(self, shape: tuple[int, ...], *, key: Key):
        self.shape, self.cond_shape = tuple(shape), None
        centre_key, strength_key = split(key)
        self.centre = jax.random.normal(centre_key, shape)
        self.log_alpha = jnp.zeros(())
        self.strength = 0.1 * jax.random.normal(strength_key)

    def constrained(self) -> tuple[Scalar, Scalar]:
        """Return `alpha`, positive, and `beta`, above ``-alpha``; a strength of 0 is the identity."""
        alpha = jnp.exp(self.log_alpha)
        return alpha, alpha * above_minus_one(self.strength)

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return ``z + beta (z - c) / (alpha + r)`` and its log-determinant, exactly."""
        alpha, beta = self.constrained()
        radius = length(z - self.centre)
        x = z + beta * (z - self.centre) / (alpha + radius)
        return Moved(x, log_det(radius, alpha, beta, z.size))

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return the preimage and minus its log-determinant, exactly."""
        alpha, beta = self.constrained()
        far = length(x - self.centre)
        # The image's distance is r (1 + beta / (alpha + r)), so r^2 + half r = alpha far; without cancellation.
        half = alpha + beta - far
        root = jnp.sqrt(half**2 + 4 * alpha * far)
        radius = jnp.where(half > 0, 2 * alpha * far / (half + root), (root - half) / 2)
        shrink = 1 / (1 + beta / (alpha + radius))
        return Moved(self.centre + shrink * (x - self.centre), -log_det(radius, alpha, beta, x.size))


def length(x: Point) -> Scalar:
    """Return the Euclidean length, with gradient 0, not NaN, at 0."""
    square = squared_length(x)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def log_det(radius: Scalar, alpha: Scalar, beta: Scalar, size: int) -> Scalar:
    """Return the log-determinant at a distance from the centre, in nats: one factor along, ``size - 1`` around."""
    share = beta / (alpha + radius)
    return (size - 1) * jnp.log1p(share) + jnp.log1p(share * alpha / (alpha + radius))

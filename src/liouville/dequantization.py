"""Densities of whole numbers, such as pixels: noise that fills the gaps between them, and what it costs.

A flow's density of `d` pixels in 0, 1, ..., levels - 1, each over `levels` and with noise `u` in [0, 1) added, bounds
the probability of the picture from below: ``log P(x) >= E[log p((x + u) / levels) - d log(levels) - log q(u | x)]``.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from ._types import Key, Point, Scalar
from .distributions import Transformed


class AbstractDequantization(eqx.Module):
    """Noise in [0, 1) for each entry of a point of whole numbers."""

    @abc.abstractmethod
    def draw(self, x: Point, key: Key) -> tuple[Point, Scalar]:
        """Return noise for the point `x`, its entries over the number of levels, and its log-density in nats."""


class UniformDequantization(AbstractDequantization):
    """Noise that is uniform (Theis and others, A note on the evaluation of generative models, 2016, section 3.1).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> noise, log_density = UniformDequantization().draw(jnp.zeros(3), jax.random.key(0))
    >>> print(log_density)
    0.0
    """

    def draw(self, x: Point, key: Key) -> tuple[Point, Scalar]:
        """Return uniform noise, whose log-density is 0."""
        return jax.random.uniform(key, x.shape, x.dtype), jnp.zeros((), x.dtype)


class MidPoints(AbstractDequantization):
    """No noise: each entry in the middle of its level.

    What comes of it is no bound of a probability, and not to be compared with one: a density may be as high as it likes
    at the middles. Some published curves are of this kind.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> noise, _ = MidPoints().draw(jnp.zeros(2), jax.random.key(0))
    >>> print(noise)
    [0.5 0.5]
    """

    def draw(self, x: Point, key: Key) -> tuple[Point, Scalar]:
        """Return a half for each entry, and 0."""
        return jnp.full(x.shape, 0.5, x.dtype), jnp.zeros((), x.dtype)


class VariationalDequantization(AbstractDequantization):
    """Noise from a small flow of its own, conditioned on the point (Ho and others, Flow++, 2019, section 3.1).

    Parameters
    ----------
    flow
        Distribution of the noise's logits, conditioned on the point.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.distributions import Normal
    >>> from liouville.vector_fields import MLP
    >>> field = MLP((3,), cond_shape=(3,), width=8, depth=1, key=jax.random.key(0))
    >>> noise = VariationalDequantization(Transformed(Normal.standard((3,)), CNF(field)))
    >>> noise.draw(jnp.zeros(3), jax.random.key(1))[0].shape
    (3,)
    """

    flow: Transformed

    def draw(self, x: Point, key: Key) -> tuple[Point, Scalar]:
        """Return the flow's noise, and its log-density between 0 and 1."""
        logits, log_prob = self.flow._sample_and_log_prob(key, x)
        slopes = jax.nn.log_sigmoid(logits) + jax.nn.log_sigmoid(-logits)
        return jax.nn.sigmoid(logits), log_prob - jnp.sum(slopes)

"""Densities of whole numbers, such as pixels: noise that fills the gaps between them, and what it costs.

A flow's density of `d` pixels in 0, 1, ..., levels - 1, each over `levels` and with noise `u` in [0, 1) added, bounds
the probability of the picture from below: ``log P(x) >= E[log p((x + u) / levels) - d log(levels) - log q(u | x)]``.
"""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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


class Quantized(eqx.Module):
    """The distribution of points of whole numbers whose dequantized density is a flow's.

    Parameters
    ----------
    density
        Density of the entries over `levels`, noise added: between 0 and 1.
    dequantization
        The noise.
    levels
        Number of values that an entry can have.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.bijections import Logit
    >>> from liouville.distributions import Normal
    >>> density = Transformed(Normal.standard((4,)), Logit((4,), alpha=0.05))
    >>> pictures = Quantized(density, UniformDequantization())
    >>> pictures.log_prob_bound(jnp.array([0, 100, 200, 255]), jax.random.key(0)).shape
    ()
    """

    density: Transformed
    dequantization: AbstractDequantization
    levels: int = eqx.field(default=256, static=True)

    def dequantize(self, x: Point, key: Key) -> tuple[Point, Scalar]:
        """Return the point between 0 and 1, and what is to be added to its log-density for the bound, in nats."""
        x = x.astype(jnp.result_type(float)) / self.levels
        noise, log_density = self.dequantization.draw(x, key)
        return x + noise / self.levels, -log_density - x.size * math.log(self.levels)

    def log_prob_bound(self, x: Point, key: Key, num_draws: int = 1) -> Scalar:
        """Return a stochastic lower bound of the log-probability of one point, in nats.

        Parameters
        ----------
        x
            The point, of whole numbers.
        key
            Key for the noise, and for a stochastic divergence.
        num_draws
            Draws of the noise; with several, the importance-weighted bound (Burda and others, 2016, equation 8),
            which in expectation is tighter the more there are.
        """
        terms = jax.vmap(lambda k: self._log_weight(x, k))(jax.random.split(key, num_draws))
        return jax.nn.logsumexp(terms) - math.log(num_draws)

    def _log_weight(self, x: Point, key: Key) -> Scalar:
        noise_key, key = jax.random.split(key)
        y, change = self.dequantize(x, noise_key)
        return self.density._log_prob(y, None, key) + change

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*batch_and_shape"]:
        """Draw points of whole numbers."""
        y = self.density.sample(key, sample_shape)
        return jnp.clip(jnp.floor(y * self.levels), 0, self.levels - 1)

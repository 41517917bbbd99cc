"""What is known of a row, as hidden units."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._draws import split
from .._types import Key, Point
from ..vector_fields import Perceptron, RowFeatures

# Of initial weights between silus, which shrink what varies: behind four layers of usual ones what a row is given would
# tell it from others by a thousandth, and the first thousand steps would learn the law of all rows alone.
GAIN = 2.0


class Known(eqx.Module):
    """A network on what is known of a row: zeros, and flags that say so, stand for the rest.

    Parameters
    ----------
    levels
        How many levels each code has.
    numbers
        How many numbers it is told, flags among them.
    width
        Units of its layers, and of what it returns.
    key
        Key for the initial weights.
    gain
        Enlarges these.
    """

    features: RowFeatures
    encoder: Perceptron

    def __init__(self, levels: list[int], numbers: int, width: int, *, key: Key, gain: float = 1.0):
        features_key, key = split(key)
        self.features = RowFeatures(levels, numbers, width, key=features_key, gain=gain)
        self.encoder = Perceptron([width, width, width], "silu", key=key, gain=gain)

    def __call__(self, codes: Point, are_known: Array, numbers: Point) -> Float[Array, " width"]:
        embedded = jnp.sum(are_known[:, None] * self.features.of_codes(codes), axis=0)
        return jax.nn.silu(self.encoder(jax.nn.silu(embedded + self.features.linear(numbers))))

    def of_row(self, row: Point) -> Float[Array, " width"]:
        """Return the hidden units of codes and the numbers behind them, NaN where they are not known."""
        num, are_known = len(self.features.levels), ~jnp.isnan(row)
        values, flags = jnp.where(are_known, row, 0.0), are_known.astype(row.dtype)
        return self(values[:num], flags[:num], jnp.concatenate([values[num:], flags[num:]]))

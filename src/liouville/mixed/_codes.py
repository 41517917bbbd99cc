"""Codes, such as categories: a softmax for each column, given those before it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._draws import split
from .._types import Condition, FixedMixin, Key, Point, Scalar, constant
from ..distributions import AbstractDistribution
from ..vector_fields import Perceptron, RowFeatures


class _Shares(FixedMixin, eqx.Module):
    """Logarithms of the levels' shares, column by column: where the softmaxes start."""

    logs: tuple[np.ndarray, ...]


class Codes(AbstractDistribution):
    """``log P(c) = sum_j log softmax(a_j + V_j h(c_1, ..., c_{j-1}))[c_j]``: exact, and it sums to 1.

    The shares of the levels are where the softmaxes start (`a`, fixed; `V` starts at zero), so that what a column's
    network has learned is how others change them. The network's first layer adds up an embedding of each code before
    (Larochelle and Murray, The neural autoregressive distribution estimator, 2011).

    Under conditions the probability is that of some of the codes: a mask comes first in the condition, 1 for each of
    these; what is known of others comes behind it, and is added to the first layer.

    Parameters
    ----------
    shares
        For each column the share of each of its levels, all above 0.
    width
        Units of the hidden layers.
    is_told
        True for codes under conditions, of a mask and `width` numbers.
    key
        Key for the initial weights.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> codes = Codes([[0.5, 0.3, 0.2], [0.1, 0.9]], width=8, key=jax.random.key(0))
    >>> print(jnp.exp(codes.log_prob(jnp.array([0.0, 1.0]))).round(4), codes.log_prob(jnp.array([3.0, 0.0])))
    0.45 -inf
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    shares: _Shares
    embedding: RowFeatures
    places: Float[Array, "columns width"]
    hidden: Perceptron
    outer: tuple[Float[Array, "levels width"], ...]

    def __init__(self, shares, *, width: int = 64, is_told: bool = False, key: Key):
        levels = [len(column) for column in shares]
        if not levels or min(levels) < 1 or min(np.min(column) for column in shares) <= 0:
            raise ValueError(f"Expected positive shares of one level or more for each column, got {shares}; try 1/2.")
        embed_key, place_key, key = split(key, 3)
        self.shape, self.cond_shape = (len(levels),), (len(levels) + width,) if is_told else None
        self.shares = _Shares(tuple(np.log(constant(column) / np.sum(column)) for column in shares))
        self.embedding = RowFeatures(levels, 0, width, key=embed_key)
        self.places = jax.random.normal(place_key, (len(levels), width))
        self.hidden = Perceptron([width, width, width], "silu", key=key)
        self.outer = tuple(jnp.zeros((num, width)) for num in levels)

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of levels of each column."""
        return tuple(len(logs) for logs in self.shares.logs)

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        mask, places = self._asked(condition)
        embedded = self.embedding.of_codes(x)
        before = jnp.cumsum(embedded if mask is None else mask[:, None] * embedded, axis=0)
        before = jnp.concatenate([jnp.zeros_like(before[:1]), before[:-1]])
        total = jnp.zeros((), x.dtype)
        for j, num in enumerate(self.levels):
            index = x[j].astype(int)
            log_prob = self._log_shares(j, before[j] + places[j])[jnp.clip(index, 0, num - 1)]
            log_prob = jnp.where((index >= 0) & (index < num), log_prob, -jnp.inf)
            total = total + (log_prob if mask is None else jnp.where(mask[j] > 0, log_prob, 0.0))
        return total

    def first(self, condition: Condition) -> Float[Array, " levels"]:
        """Return the log-probabilities of the first column's levels."""
        return self._log_shares(0, self._asked(condition)[1][0])

    def _asked(self, condition: Condition) -> tuple[Array | None, Array]:
        """Return which codes are asked for, None for all, and where the first layer of each starts."""
        if self.cond_shape is None:
            return None, self.places
        condition = jnp.asarray(condition)
        return condition[: self.shape[0]], self.places + condition[self.shape[0] :]

    def _log_shares(self, j: int, before: Float[Array, " width"]) -> Float[Array, " levels"]:
        """Return the log-probabilities of a column's levels, given what comes into its first layer."""
        hidden = jax.nn.silu(self.hidden(jax.nn.silu(before)))
        return jax.nn.log_softmax(jnp.asarray(self.shares.logs[j], hidden.dtype) + self.outer[j] @ hidden)

    def _sample(self, key: Key, condition: Condition) -> Point:
        return self._sample_and_log_prob(key, condition)[0]

    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]:
        mask, places = self._asked(condition)
        before, total, drawn = jnp.zeros_like(self.places[0]), jnp.zeros(()), jnp.zeros(self.shape)
        for j, column_key in enumerate(jax.random.split(key, len(self.levels))):
            log_shares = self._log_shares(j, before + places[j])
            index = jax.random.categorical(column_key, log_shares)
            drawn = drawn.at[j].set(index.astype(drawn.dtype))
            log_prob, embedded = log_shares[index], self.embedding.of_codes(drawn)[j]
            if mask is not None:
                drawn, log_prob, embedded = drawn.at[j].multiply(mask[j]), mask[j] * log_prob, mask[j] * embedded
            total, before = total + log_prob, before + embedded
        return drawn, total

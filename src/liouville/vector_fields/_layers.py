"""Pieces that several vector fields share."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activations import activate, check_activation
from .._draws import split, uniform
from .._types import AnyArray, Condition, Key, Time


class Linear(eqx.nn.Linear):
    """Equinox's layer with the product as ``x @ weight.T``.

    Mapped over rows that is one matrix product as it stands; ``weight @ x`` becomes one with transposes around it, and
    takes up to 1.8 times as long on a CPU.
    """

    def __call__(self, x: Float[Array, " n"], *, key: Key | None = None) -> Float[Array, " m"]:
        """Return ``x @ weight.T + bias``."""
        product = x @ self.weight.T
        return product if self.bias is None else product + self.bias


def draw_uniform(key: Key, size: int, fan_in: int) -> Float[AnyArray, " size"]:
    """Return weights between plus and minus ``1 / sqrt(fan_in)``, as one axis."""
    return uniform(key, size, 1 / math.sqrt(max(fan_in, 1)))


def zeros(*shape: int) -> Float[Array, "*shape"]:
    """Return weights that start at zero, without a program that makes them."""
    return jax.device_put(np.zeros(shape, jnp.result_type(float)))


def linear(fan_in: int, fan_out: int, *, key: Key, zero: bool = False, bias: bool = True, gain: float = 1.0) -> Linear:
    """Return a linear layer; `zero` starts it at zero, so that a field starts at rest, `gain` enlarges its weights."""
    # Equinox's own draws never come to be: of its layer only the shapes are kept.
    layer = eqx.filter_eval_shape(Linear, fan_in, fan_out, use_bias=bias, key=key)
    size = fan_in * fan_out
    drawn = np.zeros(size + fan_out, jnp.result_type(float)) if zero else draw_uniform(key, size + fan_out, fan_in)
    weight, shift = jax.device_put(gain * drawn[:size].reshape(fan_out, fan_in)), jax.device_put(drawn[size:])
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (weight, shift if bias else None))


def time_features(t: Time, num_frequencies: int) -> Float[Array, " features"]:
    """Return cosines and sines of `t` at the frequencies 1/4, 2/4, ... cycles per unit of time.

    Quarter frequencies make the features of t = 0 and t = 1 differ.
    """
    t = jnp.asarray(t)
    angles = t * np.pi / 2 * np.arange(1.0, num_frequencies + 1, dtype=t.dtype)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


def append_condition(features: Float[Array, " n"], condition: Condition) -> Float[Array, " m"]:
    """Return `features` with the flattened condition behind them, if there is one."""
    return features if condition is None else jnp.concatenate([features, jnp.ravel(condition)])


def condition_size(cond_shape: tuple[int, ...] | None) -> int:
    """Return the number of entries in a condition (0 for none)."""
    return 0 if cond_shape is None else int(np.prod(cond_shape))


def time_signal(t: Time, condition: Condition) -> Float[Array, " signal"]:
    """Return the time with the flattened condition behind it."""
    return append_condition(jnp.reshape(jnp.asarray(t, jnp.result_type(float)), (1,)), condition)


class Perceptron(eqx.Module):
    """Linear layers with an activation between them: a small network of the time and the condition.

    `zero` starts the last one at zero, `gain` enlarges the weights that all start with.
    """

    layers: tuple[eqx.nn.Linear, ...]
    activation: str = eqx.field(static=True)

    def __init__(self, sizes: list[int], activation: str = "tanh", *, key: Key, zero: bool = False, gain: float = 1.0):
        *keys, last = split(key, len(sizes) - 1)
        layers = [linear(*pair, key=k, gain=gain) for *pair, k in zip(sizes[:-2], sizes[1:-1], keys, strict=True)]
        self.layers = (*layers, linear(*sizes[-2:], key=last, zero=zero, gain=gain))
        self.activation = check_activation(activation)

    def __call__(self, signal: Float[Array, " n"]) -> Float[Array, " m"]:
        for layer in self.layers[:-1]:
            signal = activate(self.activation, layer(signal))
        return self.layers[-1](signal)


class RowFeatures(eqx.Module):
    """Hidden units of a row's codes and numbers: an embedding of each code, and a linear map of the numbers, added up.

    It is a linear layer of the codes one-hot and of the numbers, which takes no product of the zeros. `gain` enlarges
    the weights that the latter start with.
    """

    levels: tuple[int, ...] = eqx.field(static=True)
    table: Float[Array, "levels width"]
    linear: eqx.nn.Linear

    def __init__(self, levels: list[int], numbers: int, width: int, *, key: Key, gain: float = 1.0):
        table_key, key = split(key)
        self.levels = tuple(levels)
        scale = 1 / math.sqrt(max(len(levels), 1))
        self.table = scale * jax.random.normal(table_key, (sum(levels), width))
        self.linear = linear(numbers, width, key=key, gain=gain)

    def of_codes(self, codes: Float[Array, " columns"]) -> Float[Array, "columns width"]:
        """Return the embedding of each code; one that is none of the levels has that of the nearest."""
        sizes = np.asarray(self.levels, int)
        index = jnp.clip(codes.astype(int), 0, sizes - 1)
        return self.table[index + np.cumsum(sizes) - sizes]

    def __call__(self, codes: Float[Array, " columns"], numbers: Float[Array, " n"]) -> Float[Array, " width"]:
        return jax.nn.silu(jnp.sum(self.of_codes(codes), axis=0) + self.linear(numbers))


class ExpandedLinear(eqx.Module):
    """``sum_k c_k (W_k h + b_k)``: a linear layer whose weights are a combination of `terms` others.

    Whatever drives the weights gives the coefficients `c`, of which the first is 1, as a rule.
    """

    weight: Float[Array, "terms m n"]
    bias: Float[Array, "terms m"]

    def __init__(self, terms: int, fan_in: int, fan_out: int, *, key: Key, zero: bool = False):
        # The terms that vary are, together, as large as the one that does not.
        scale = np.where(np.arange(terms) == 0, 1.0, 1 / np.sqrt(max(terms - 1, 1)))
        scale = np.zeros(terms) if zero else scale
        shape = (terms, fan_out, fan_in + 1)
        draw = draw_uniform(key, math.prod(shape), fan_in).reshape(shape)
        draw = draw * np.asarray(scale, draw.dtype)[:, None, None]
        self.weight, self.bias = jax.device_put(draw[..., :-1]), jax.device_put(draw[..., -1])

    def __call__(self, h: Float[Array, " n"], coefficients: Float[Array, " terms"]) -> Float[Array, " m"]:
        # Each term's product first: at many times at once these share one matrix, sums of weights would not.
        return coefficients @ (self.weight @ h + self.bias)

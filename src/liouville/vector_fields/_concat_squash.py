"""FFJORD's field: linear layers whose gain and bias are driven by time."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activations import activate, check_activation
from .._draws import split
from .._types import Condition, Key, Point, Time
from ._base import AbstractVectorField
from ._layers import ExpandedLinear, append_condition, condition_size, linear


class ConcatSquashLayer(eqx.Module):
    """``(W x + b) * sigmoid(G s) + B s``, where `s` holds the time and the condition."""

    linear: eqx.nn.Linear
    gate: eqx.nn.Linear
    shift: eqx.nn.Linear

    def __init__(self, fan_in: int, fan_out: int, signal: int, *, key: Key):
        keys = split(key, 3)
        self.linear = linear(fan_in, fan_out, key=keys[0])
        self.gate = linear(signal, fan_out, key=keys[1])
        self.shift = linear(signal, fan_out, key=keys[2], bias=False)

    def __call__(self, x: Float[Array, " n"], signal: Float[Array, " s"]) -> Float[Array, " m"]:
        return self.linear(x) * jax.nn.sigmoid(self.gate(signal)) + self.shift(signal)


class ConcatLayer(eqx.Module):
    """``W (x, s) + b``: the time is one more input."""

    linear: eqx.nn.Linear

    def __init__(self, fan_in: int, fan_out: int, signal: int, *, key: Key):
        self.linear = linear(fan_in + signal, fan_out, key=key)

    def __call__(self, x: Float[Array, " n"], signal: Float[Array, " s"]) -> Float[Array, " m"]:
        return self.linear(jnp.concatenate([x, signal]))


class SquashLayer(eqx.Module):
    """``(W x + b) * sigmoid(G s)``: the time gates the outputs."""

    linear: eqx.nn.Linear
    gate: eqx.nn.Linear

    def __init__(self, fan_in: int, fan_out: int, signal: int, *, key: Key):
        keys = split(key)
        self.linear = linear(fan_in, fan_out, key=keys[0])
        self.gate = linear(signal, fan_out, key=keys[1])

    def __call__(self, x: Float[Array, " n"], signal: Float[Array, " s"]) -> Float[Array, " m"]:
        return self.linear(x) * jax.nn.sigmoid(self.gate(signal))


class PlainLayer(eqx.Module):
    """``W x + b``: the time is not told; a condition is one more input."""

    linear: eqx.nn.Linear

    def __init__(self, fan_in: int, fan_out: int, signal: int, *, key: Key):
        self.linear = linear(fan_in + signal - 1, fan_out, key=key)

    def __call__(self, x: Float[Array, " n"], signal: Float[Array, " s"]) -> Float[Array, " m"]:
        return self.linear(jnp.concatenate([x, signal[1:]]))


class BlendLayer(eqx.Module):
    """``(1 - t) (W_0 x + b_0) + t (W_1 x + b_1)``: from one layer to another; a condition is one more input."""

    layer: ExpandedLinear

    def __init__(self, fan_in: int, fan_out: int, signal: int, *, key: Key):
        self.layer = ExpandedLinear(2, fan_in + signal - 1, fan_out, key=key)

    def __call__(self, x: Float[Array, " n"], signal: Float[Array, " s"]) -> Float[Array, " m"]:
        return self.layer(jnp.concatenate([x, signal[1:]]), jnp.stack([1 - signal[0], signal[0]]))


class HyperLayer(eqx.Module):
    """``W(s) x + b(s)``: weights and biases are affine in the time and the condition."""

    layer: ExpandedLinear

    def __init__(self, fan_in: int, fan_out: int, signal: int, *, key: Key):
        self.layer = ExpandedLinear(1 + signal, fan_in, fan_out, key=key)

    def __call__(self, x: Float[Array, " n"], signal: Float[Array, " s"]) -> Float[Array, " m"]:
        return self.layer(x, jnp.concatenate([jnp.ones(1, signal.dtype), signal]))


CONDITIONINGS = {
    "blend": BlendLayer,
    "concat": ConcatLayer,
    "concat_squash": ConcatSquashLayer,
    "hyper": HyperLayer,
    "none": PlainLayer,
    "squash": SquashLayer,
}


class ConcatSquash(AbstractVectorField):
    """A multilayer perceptron of concat-squash layers (Grathwohl and others, FFJORD, 2019).

    Their code has other ways to tell a layer the time, too: `conditioning` chooses one, or is a layer of one's own.

    Parameters
    ----------
    shape
        Shape of one point.
    width, depth
        Units of the hidden layers, and number of hidden layers (0: one affine layer, gated by time).
    cond_shape
        Shape of the condition, or None.
    activation
        Name of the activation between layers.
    conditioning
        How each layer is told the time `t` and the condition, together `s`: ``"concat_squash"``,
        ``(W x + b) * sigmoid(G s) + B s``; ``"concat"``, ``W (x, s) + b``; ``"squash"``, ``(W x + b) * sigmoid(G s)``;
        ``"blend"``, from one layer at time 0 to another at time 1; ``"hyper"``, weights that are affine in `s`;
        ``"none"``, ``W x + b``, which is not told the time. Or a class of layers: ``layer(fan_in, fan_out, signal,
        key=key)``, where `signal` is the size of `s`, returns an Equinox module that is called as ``(x, s)``.
    key
        Key for the initial weights.

    Raises
    ------
    ValueError
        Where the activation or the conditioning is unknown.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> field = ConcatSquash((3,), width=8, depth=1, key=jax.random.key(0))
    >>> field(0.0, jnp.zeros(3)).shape
    (3,)
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    layers: tuple[Callable[[Array, Array], Array], ...]

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 3,
        cond_shape: tuple[int, ...] | None = None,
        activation: str = "tanh",
        conditioning: str | Callable[..., Callable] = "concat_squash",
        key: Key,
    ):
        layer = conditioning if callable(conditioning) else CONDITIONINGS.get(conditioning)
        if layer is None:
            raise ValueError(
                f"Expected a conditioning among {list(CONDITIONINGS)}, or a class of layers, got {conditioning!r}; try "
                "'concat_squash'."
            )
        self.shape, self.cond_shape = tuple(shape), cond_shape
        self.activation = check_activation(activation)
        size, signal = math.prod(shape), 1 + condition_size(cond_shape)
        sizes = [size, *[width] * depth, size]
        keys = split(key, depth + 1)
        self.layers = tuple(
            layer(fan_in, fan_out, signal, key=k)
            for fan_in, fan_out, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        )

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        signal = append_condition(jnp.reshape(jnp.asarray(t, x.dtype), (1,)), condition)
        h = jnp.ravel(x)
        for layer in self.layers[:-1]:
            h = activate(self.activation, layer(h, signal))
        return self.layers[-1](h, signal).reshape(self.shape)

"""Convolutional fields of pictures: FFJORD's and RNODE's."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activations import activate, check_activation
from .._draws import split
from .._types import Condition, Key, Point, Time
from ._base import AbstractVectorField
from ._layers import condition_size, draw_uniform, linear, time_signal, zeros

Picture = Float[Array, "height width channels"]


class Convolution(eqx.Module):
    """A convolution of one picture, its channels last: the layout of pictures in files, and of fast hardware.

    The edges are padded with zeros, so that with `stride` 1 the picture keeps its size.
    """

    weight: Float[Array, "rows columns fan_in fan_out"]
    bias: Float[Array, " fan_out"]
    stride: int = eqx.field(static=True)

    def __init__(self, fan_in: int, fan_out: int, *, size: int = 3, stride: int = 1, zero: bool = False, key: Key):
        shape = (size, size, fan_in, fan_out)
        num = math.prod(shape)
        self.weight = zeros(*shape) if zero else jax.device_put(draw_uniform(key, num, size**2 * fan_in).reshape(shape))
        self.bias = zeros(fan_out)
        self.stride = stride

    def __call__(self, x: Picture) -> Picture:
        # XLA's convolutions on a CPU are some twenty times as slow inside a loop, and training and ODEs are loops:
        # there the neighbours of each pixel are put side by side, and multiplied as one matrix.
        way = as_product if jax.default_backend() == "cpu" else as_convolution
        return way(x, self.weight, self.stride) + self.bias


def as_convolution(x: Picture, weight: Array, stride: int) -> Picture:
    """Return the convolution by the platform's own."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x[None], weight, (stride, stride), "SAME", dimension_numbers=layout)[0]


def as_product(x: Picture, weight: Array, stride: int) -> Picture:
    """Return the convolution as the product of all neighbourhoods with one matrix."""
    size, sides = weight.shape[0], x.shape[:2]
    spans = [(math.ceil(side / stride) - 1) * stride + 1 for side in sides]
    missing = [max(span + size - 1 - side, 0) for span, side in zip(spans, sides, strict=True)]
    padded = jnp.pad(x, [*((m // 2, m - m // 2) for m in missing), (0, 0)])
    beside = jnp.concatenate([padded[:, j : j + spans[1] : stride] for j in range(size)], axis=-1)
    neighbours = jnp.concatenate([beside[i : i + spans[0] : stride] for i in range(size)], axis=-1)
    return neighbours @ weight.reshape(-1, weight.shape[-1])


class ConcatConvolution(eqx.Module):
    """A convolution of the picture and, as further channels, of the time and the condition."""

    convolution: Convolution

    def __init__(self, fan_in: int, fan_out: int, signal: int, *, zero: bool, key: Key):
        self.convolution = Convolution(fan_in + signal, fan_out, zero=zero, key=key)

    def __call__(self, x: Picture, signal: Float[Array, " s"]) -> Picture:
        planes = jnp.broadcast_to(signal, (*x.shape[:2], signal.size))
        return self.convolution(jnp.concatenate([x, planes.astype(x.dtype)], axis=-1))


class ConcatSquashConvolution(eqx.Module):
    """``conv(x) * sigmoid(G s) + B s``, channel by channel, where `s` holds the time and the condition."""

    convolution: Convolution
    gate: eqx.nn.Linear
    shift: eqx.nn.Linear

    def __init__(self, fan_in: int, fan_out: int, signal: int, *, zero: bool, key: Key):
        keys = split(key, 3)
        self.convolution = Convolution(fan_in, fan_out, zero=zero, key=keys[0])
        self.gate = linear(signal, fan_out, key=keys[1])
        self.shift = linear(signal, fan_out, key=keys[2], bias=False, zero=zero)

    def __call__(self, x: Picture, signal: Float[Array, " s"]) -> Picture:
        gate, shift = jax.nn.sigmoid(self.gate(signal)), self.shift(signal)
        return self.convolution(x) * gate.astype(x.dtype) + shift.astype(x.dtype)


CONVOLUTIONS = {"concat": ConcatConvolution, "concat_squash": ConcatSquashConvolution}


class ConvNet(AbstractVectorField):
    """A stack of 3 x 3 convolutions that are told the time (Grathwohl and others, FFJORD, 2019; RNODE, 2020).

    Parameters
    ----------
    shape
        Shape of one picture: height, width, channels.
    width, depth
        Channels of the hidden layers, and number of hidden layers.
    cond_shape
        Shape of the condition, or None.
    activation
        Name of the activation between layers.
    conditioning
        How each layer is told the time and the condition: ``"concat"``, as further channels (the published nets);
        ``"concat_squash"``, as gate and shift of each channel.
    key
        Key for the initial weights.

    Raises
    ------
    ValueError
        Where the activation or the conditioning is unknown, or `shape` is not that of a picture.

    Notes
    -----
    The last layer starts at zero, as RNODE's does: the field starts at rest.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> field = ConvNet((8, 8, 1), width=4, depth=1, key=jax.random.key(0))
    >>> field(0.5, jnp.ones((8, 8, 1))).shape
    (8, 8, 1)
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    layers: tuple[ConcatConvolution | ConcatSquashConvolution, ...]

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 3,
        cond_shape: tuple[int, ...] | None = None,
        activation: str = "softplus",
        conditioning: str = "concat",
        key: Key,
    ):
        if conditioning not in CONVOLUTIONS:
            raise ValueError(f"Expected a conditioning among {list(CONVOLUTIONS)}, got {conditioning!r}; try 'concat'.")
        self.shape, self.cond_shape = check_picture(shape), cond_shape
        self.activation = check_activation(activation)
        channels = [shape[-1], *[width] * depth, shape[-1]]
        signal = 1 + condition_size(cond_shape)
        self.layers = tuple(
            CONVOLUTIONS[conditioning](fan_in, fan_out, signal, zero=i == depth, key=k)
            for i, (fan_in, fan_out, k) in enumerate(
                zip(channels[:-1], channels[1:], split(key, depth + 1), strict=True)
            )
        )

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        signal = time_signal(t, condition)
        for layer in self.layers[:-1]:
            x = activate(self.activation, layer(x, signal))
        return self.layers[-1](x, signal)


class BesidePicture(AbstractVectorField):
    """A field of pictures whose condition is a picture of the same shape: it is seen as further channels.

    Parameters
    ----------
    field
        A field of pictures with twice the channels: first the point's, then the condition's. Of its velocity the
        first half is taken.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> field = BesidePicture(ConvNet((4, 4, 2), width=4, depth=1, key=jax.random.key(0)))
    >>> field(0.5, jnp.ones((4, 4, 1)), jnp.zeros((4, 4, 1))).shape
    (4, 4, 1)
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    field: AbstractVectorField

    def __init__(self, field: AbstractVectorField):
        self.field, self.shape = field, (*field.shape[:-1], field.shape[-1] // 2)
        # What stands beside a picture is of its shape.
        self.cond_shape = self.shape

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        return self.field(t, jnp.concatenate([x, jnp.asarray(condition, x.dtype)], axis=-1))[..., : x.shape[-1]]


def check_picture(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a picture, or raise ``ValueError`` where it has not three axes."""
    if len(shape) != 3:
        raise ValueError(
            f"Expected the shape of a picture (height, width, channels), got {tuple(shape)}; try (28, 28, 1)."
        )
    return tuple(shape)

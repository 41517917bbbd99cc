"""A U-Net: convolutions at several resolutions, with attention at the coarsest."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._draws import split
from .._types import Condition, Key, Point, Time
from ._base import AbstractVectorField
from ._conv import Convolution, Picture, check_picture
from ._layers import append_condition, condition_size, linear, time_features

NUM_FREQUENCIES = 16
SMALLEST_GROUP = 4


class ChannelNorm(eqx.Module):
    """Group normalization (Wu and He, 2018) of one picture, its channels last."""

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]
    groups: int = eqx.field(static=True)

    def __init__(self, channels: int):
        self.scale, self.shift = jnp.ones(channels), jnp.zeros(channels)
        self.groups = math.gcd(channels, max(1, min(32, channels // SMALLEST_GROUP)))

    def __call__(self, x: Picture) -> Picture:
        # Means over many entries, in full precision whatever that of the picture.
        parts = x.astype(full_precision(x)).reshape(*x.shape[:2], self.groups, -1)
        centred = parts - parts.mean((0, 1, 3), keepdims=True)
        parts = centred * jax.lax.rsqrt(jnp.mean(centred**2, (0, 1, 3), keepdims=True) + 1e-5)
        return (parts.reshape(x.shape) * self.scale + self.shift).astype(x.dtype)


class PictureBlock(eqx.Module):
    """``skip(x) + conv(silu(norm(conv(silu(norm(x))) * (1 + a) + b)))``; time and condition drive `a` and `b`."""

    norms: tuple[ChannelNorm, ChannelNorm]
    first: Convolution
    second: Convolution
    drive: eqx.nn.Linear
    skip: Convolution | None

    def __init__(self, fan_in: int, fan_out: int, signal: int, *, key: Key):
        keys = split(key, 4)
        self.norms = (ChannelNorm(fan_in), ChannelNorm(fan_out))
        self.first = Convolution(fan_in, fan_out, key=keys[0])
        self.second = Convolution(fan_out, fan_out, zero=True, key=keys[1])
        self.drive = linear(signal, 2 * fan_out, key=keys[2])
        self.skip = None if fan_in == fan_out else Convolution(fan_in, fan_out, size=1, key=keys[3])

    def __call__(self, x: Picture, signal: Float[Array, " s"]) -> Picture:
        gain, shift = jnp.split(self.drive(signal).astype(x.dtype), 2)
        h = self.norms[1](self.first(jax.nn.silu(self.norms[0](x)))) * (1 + gain) + shift
        h = self.second(jax.nn.silu(h))
        return h + (x if self.skip is None else self.skip(x))


class Attention(eqx.Module):
    """``x + attention(norm(x))``: each place looks at all others."""

    norm: ChannelNorm
    attention: eqx.nn.MultiheadAttention

    def __init__(self, channels: int, *, key: Key):
        self.norm = ChannelNorm(channels)
        heads = max(1, channels // 64)
        self.attention = eqx.nn.MultiheadAttention(heads, channels, key=key)

    def __call__(self, x: Picture) -> Picture:
        # Softmax over all places: in full precision, as the norms.
        places = self.norm(x).astype(full_precision(x)).reshape(-1, x.shape[-1])
        return x + self.attention(places, places, places).reshape(x.shape).astype(x.dtype)


class UNet(AbstractVectorField):
    """A U-Net with group normalization, driven by the time (Ronneberger and others, 2015; Dhariwal and Nichol, 2021).

    Down through resolutions that halve as often as `multipliers` says and the sides allow, and up again, each level
    joined to its mate on the way down; attention at the coarsest.

    Parameters
    ----------
    shape
        Shape of one picture: height, width, channels.
    width
        Channels of the finest level.
    depth
        Blocks of each level.
    multipliers
        Channels of each level, in units of `width`; the number of levels is theirs.
    cond_shape
        Shape of the condition, for example of a class as one of so many; or None.
    key
        Key for the initial weights.

    Raises
    ------
    ValueError
        Where `shape` is not that of a picture.

    Notes
    -----
    The last layer starts at zero: the field starts at rest.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> field = UNet((8, 8, 1), width=8, depth=1, key=jax.random.key(0))
    >>> print(jnp.abs(eqx.filter_jit(field)(0.5, jnp.ones((8, 8, 1)))).max())
    0.0
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    embedding: tuple[eqx.nn.Linear, eqx.nn.Linear]
    entry: Convolution
    down: tuple[tuple[PictureBlock, ...], ...]
    shrink: tuple[Convolution, ...]
    middle: tuple[PictureBlock, Attention, PictureBlock]
    up: tuple[tuple[PictureBlock, ...], ...]
    grow: tuple[Convolution, ...]
    norm: ChannelNorm
    exit: Convolution

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 2,
        multipliers: tuple[int, ...] = (1, 2, 2),
        cond_shape: tuple[int, ...] | None = None,
        key: Key,
    ):
        self.shape, self.cond_shape = check_picture(shape), cond_shape
        levels = min(len(multipliers), 1 + halvings(shape[0], shape[1]))
        channels, signal = [width * m for m in multipliers[:levels]], 4 * width
        keys = iter(split(key, 8 + 2 * levels * (depth + 2)))
        block = lambda fan_in, fan_out: PictureBlock(fan_in, fan_out, signal, key=next(keys))
        fan_in = 2 * NUM_FREQUENCIES + condition_size(cond_shape)
        self.embedding = (linear(fan_in, signal, key=next(keys)), linear(signal, signal, key=next(keys)))
        self.entry = Convolution(shape[-1], channels[0], key=next(keys))
        before = [channels[0], *channels[:-1]]
        self.down = tuple(
            tuple(block(first if i == 0 else c, c) for i in range(depth))
            for first, c in zip(before, channels, strict=True)
        )
        self.shrink = tuple(Convolution(c, c, stride=2, key=next(keys)) for c in channels[:-1])
        self.middle = (
            block(channels[-1], channels[-1]),
            Attention(channels[-1], key=next(keys)),
            block(channels[-1], channels[-1]),
        )
        # From the coarsest on; each level's first block sees what comes from below and its mate on the way down.
        self.up = tuple(tuple(block(2 * c if i == 0 else c, c) for i in range(depth)) for c in channels[::-1])
        pairs = zip(channels[:0:-1], channels[-2::-1], strict=True)
        self.grow = tuple(Convolution(coarse, fine, key=next(keys)) for coarse, fine in pairs)
        self.norm = ChannelNorm(channels[0])
        self.exit = Convolution(channels[0], shape[-1], zero=True, key=next(keys))

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        features = append_condition(time_features(t, NUM_FREQUENCIES), condition)
        signal = jax.nn.silu(self.embedding[1](jax.nn.silu(self.embedding[0](features))))
        h, mates = self.entry(x), []
        for level, blocks in enumerate(self.down):
            for block in blocks:
                h = block(h, signal)
            mates.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        h = self.middle[2](self.middle[1](self.middle[0](h, signal)), signal)
        for level, blocks in enumerate(self.up):
            if level > 0:
                h = self.grow[level - 1](jnp.repeat(jnp.repeat(h, 2, axis=0), 2, axis=1))
            h = jnp.concatenate([h, mates[-1 - level]], axis=-1)
            for block in blocks:
                h = block(h, signal)
        return self.exit(jax.nn.silu(self.norm(h)))


def halvings(height: int, width: int) -> int:
    """Return how often both sides can be halved."""
    common = math.gcd(height, width)
    return (common & -common).bit_length() - 1


def full_precision(x: Picture):
    """Return float32, or the precision of the picture where that is higher."""
    return jnp.promote_types(x.dtype, jnp.float32)

"""Draws of initial weights, on the host.

They are JAX's own, but for the last bit where XLA rounds otherwise: compiling `jax.random` for each layer of a network
takes seconds, NumPy draws the same numbers at once. Under a transformation of JAX, and with generators other than its
default, JAX draws them.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from ._types import AnyArray, Key

# Salmon and others, Parallel random numbers: as easy as 1, 2, 3, 2011: Threefry of two words, in twenty rounds.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
# What JAX calls it.
_NAME = "threefry2x32"


def first_key(seed: int) -> Key:
    """Return ``jax.random.key(seed)`` of a seed of 32 bits, without the programs that make it."""
    if not _is_threefry(str(jax.config.jax_default_prng_impl)):  # pyright: ignore[reportAttributeAccessIssue]
        return jax.random.key(seed)
    return _of_words(np.asarray([0, seed], np.uint32))


def split(key: Key, num: int = 2) -> list[Key]:
    """Return ``jax.random.split(key, num)``, key by key."""
    words = _words(key)
    if words is None:
        return list(jax.random.split(key, num))
    return [_of_words(words) for words in np.stack(_threefry(words, num), axis=-1)]


def uniform(key: Key, size: int, bound: float) -> Float[AnyArray, " size"]:
    """Return ``jax.random.uniform(key, (size,), minval=-bound, maxval=bound)``."""
    words, dtype = _words(key), np.dtype(jnp.result_type(float))
    if words is None or dtype not in (np.float32, np.float64):
        return jax.random.uniform(key, (size,), minval=-bound, maxval=bound)
    first, second = _threefry(words, size)
    if dtype == np.float32:
        bits = (first ^ second) >> np.uint32(9)
    else:
        bits = (first.astype(np.uint64) << np.uint64(32) | second) >> np.uint64(12)
    # As many bits as a number holds are those of one between 1 and 2.
    drawn = (bits | np.ones((), dtype).view(bits.dtype)).view(dtype) - dtype.type(1)
    least, most = dtype.type(-bound), dtype.type(bound)
    # Rounded once, as XLA fuses it.
    drawn = (drawn.astype(np.float64) * (most - least) + least).astype(dtype)
    return np.maximum(least, drawn)


def _of_words(words: np.ndarray) -> Key:
    return jax.random.wrap_key_data(cast(Any, words), impl=_NAME)


def _words(key: Key) -> np.ndarray | None:
    """Return the two words of a key of JAX's default generator, or None where JAX must draw by itself."""
    if isinstance(key, Tracer) or not _is_threefry(str(jax.random.key_impl(key))):
        return None
    return np.asarray(jax.random.key_data(key))


def _is_threefry(name: str) -> bool:
    return name == _NAME and jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]


def _threefry(words: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two words for each of the first `num` counts."""
    keys = (words[0], words[1], words[0] ^ words[1] ^ _PARITY)
    count = np.arange(num, dtype=np.uint64)
    x, y = (count >> np.uint64(32)).astype(np.uint32) + keys[0], count.astype(np.uint32) + keys[1]
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x = x + y
            y = (y << np.uint32(turn) | y >> np.uint32(32 - turn)) ^ x
        x = x + keys[(block + 1) % 3]
        y = y + keys[(block + 2) % 3] + np.uint32(block + 1)
    return x, y

"""Pieces that several vector fields share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Condition, Key, Time


def linear(fan_in: int, fan_out: int, *, key: Key, zero: bool = False, bias: bool = True) -> eqx.nn.Linear:
    """Return a linear layer; `zero` starts it at zero, so that a field starts at rest."""
    layer = eqx.nn.Linear(fan_in, fan_out, use_bias=bias, key=key)
    return jax.tree.map(jnp.zeros_like, layer) if zero else layer


def time_features(t: Time, num_frequencies: int) -> Float[Array, " features"]:
    """Return cosines and sines of `t` at the frequencies 1/4, 2/4, ... cycles per unit of time.

    Quarter frequencies make the features of t = 0 and t = 1 differ.
    """
    angles = t * np.pi / 2 * np.arange(1, num_frequencies + 1)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


def append_condition(features: Float[Array, " n"], condition: Condition) -> Float[Array, " m"]:
    """Return `features` with the flattened condition behind them, if there is one."""
    return features if condition is None else jnp.concatenate([features, jnp.ravel(condition)])


def condition_size(cond_shape: tuple[int, ...] | None) -> int:
    """Return the number of entries in a condition (0 for none)."""
    return 0 if cond_shape is None else int(np.prod(cond_shape))

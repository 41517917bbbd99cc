"""Activations by name: modules store the name, since ``jax.nn`` functions do not pickle."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

ACTIVATIONS: dict[str, Callable] = {
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}


def check_activation(name: str) -> str:
    """Return `name` if it is the name of an activation, else raise ``ValueError``."""
    if name not in ACTIVATIONS:
        raise ValueError(f"Expected an activation among {sorted(ACTIVATIONS)}, got {name!r}; try 'silu'.")
    return name


def activate(name: str, x):
    """Apply the activation called `name` to `x`, element by element."""
    return ACTIVATIONS[name](x)

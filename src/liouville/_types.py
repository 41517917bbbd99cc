"""Shapes and types used in signatures, and the one rule that tells parameters from constants.

Arrays of JAX in a module are *parameters*: training moves them. Arrays of NumPy are *constants*:
training leaves them alone, and they keep float64 where JAX runs in float32. So
``eqx.partition(module, is_parameter)`` is the split, everywhere, with no wrapper classes.
(``eqx.is_inexact_array`` is not: it says yes to NumPy's arrays, too.)
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

Scalar: TypeAlias = Float[Array, ""]
Time: TypeAlias = Scalar | float
Point: TypeAlias = Float[Array, "*shape"]
Condition: TypeAlias = Float[Array, "*cond_shape"] | None
Key: TypeAlias = PRNGKeyArray
AnyArray: TypeAlias = Array | np.ndarray
Rows: TypeAlias = Shaped[np.ndarray, "rows columns"]


def is_parameter(leaf: Any) -> bool:
    """Return True for what training moves: a JAX array of floating numbers."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def in_default_precision(tree: Any) -> Any:
    """Return a tree with its parameters in JAX's present precision: one that was fitted in another is used in this."""
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if is_parameter(leaf) else leaf, tree)


def constant(value) -> np.ndarray:
    """Return `value` as a float64 NumPy array: a constant that training leaves alone."""
    return np.asarray(value, dtype=np.float64)

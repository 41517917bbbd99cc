"""Shapes and types used in signatures, and the one rule that tells parameters from constants.

What training moves is told *by place*: all arrays of floating numbers are parameters, but for those of a part that is
fixed (`FixedMixin`): closed forms, integrators, a base that is not trained. What library an array belongs
to says nothing, so compiling, copying to a device or laying out over several changes no number of parameters. Constants
are NumPy's arrays in float64 all the same, which they keep on the host where JAX runs in float32.
"""

from typing import Any, TypeAlias

import equinox as eqx
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


class FixedMixin:
    """A part of a flow whose arrays training leaves alone."""

    @property
    def is_fixed(self) -> bool:
        """Return True; a part that may be trained says here whether it is."""
        return True


def _is_fixed(node: Any) -> bool:
    return isinstance(node, FixedMixin) and node.is_fixed


def _is_number(leaf: Any) -> bool:
    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    return jnp.issubdtype(leaf.dtype, jnp.inexact) if is_shape else eqx.is_inexact_array(leaf)


def partition(tree: Any) -> tuple[Any, Any]:
    """Return what training moves, and the rest: each a tree with None in the place of the other's leaves.

    Of a tree of shapes, those of what training moves.
    """
    is_free = lambda node: not _is_fixed(node) and _is_number(node)
    return eqx.partition(tree, jax.tree.map(is_free, tree, is_leaf=_is_fixed))


def parameters(tree: Any) -> Any:
    """Return what training moves."""
    return partition(tree)[0]


def in_default_precision(tree: Any) -> Any:
    """Return a tree with its parameters in JAX's present precision: one that was fitted in another is used in this."""
    free, rest = partition(tree)
    return eqx.combine(jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), free), rest)


def constant(value) -> np.ndarray:
    """Return `value` as a float64 NumPy array, for a part that is fixed."""
    return np.asarray(value, dtype=np.float64)

"""A field in half as many bits."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Condition, Point, Time, partition
from ._base import AbstractVectorField


class LowPrecision(AbstractVectorField):
    """A field that is computed in another precision than its weights, its points and its values have.

    On hardware that multiplies short numbers faster, training takes less time and memory. Weights, the state of the ODE
    and its log-determinant keep their precision: only what the field computes is rounded.

    Parameters
    ----------
    field
        The field; pictures' fields keep time, norms and softmax in full precision.
    dtype
        The precision of its layers, for example ``"bfloat16"``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.vector_fields import ConvNet
    >>> field = LowPrecision(ConvNet((8, 8, 1), width=4, depth=1, key=jax.random.key(0)))
    >>> print(field(0.5, jnp.ones((8, 8, 1))).dtype)
    float32
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    field: AbstractVectorField
    dtype: str = eqx.field(static=True)

    def __init__(self, field: AbstractVectorField, dtype: str = "bfloat16"):
        self.field, self.dtype, self.shape, self.cond_shape = field, dtype, field.shape, field.cond_shape

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        params, static = partition(self.field)
        rounded = eqx.combine(jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(self.dtype)), params), static)
        # Time and condition are not rounded, and meet weights that are: strict promotion would refuse that.
        with jax.numpy_dtype_promotion("standard"):
            return rounded(t, x.astype(self.dtype), condition).astype(x.dtype)

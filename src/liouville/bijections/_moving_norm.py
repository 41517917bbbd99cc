"""Normalization between blocks, by statistics that move with training."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._types import Condition, Key, Point
from ._base import AbstractBijection, Moved

PACE = 0.1
LEAST_VARIANCE = 1e-6


class MovingNorm(AbstractBijection):
    """Moving batch normalization, as FFJORD and MAF have between their blocks: data to base, it standardizes.

    ``z = bias + gain * (x - mean) / sqrt(variance)`` with `gain` and `bias` trained, and `mean` and `variance` those of
    the points that come through, as moving averages: each training step by likelihood moves them a tenth of the way
    to its batch's. The papers normalize by the batch itself in training; by moving averages a row's log-density does
    not depend on the rows beside it, not even in training, and there is no other mode for evaluation.

    How they move: `to_base` reports a penalty ``moving_norm`` that is 0, but whose gradient is their distance from the
    point's mean and variance; the trainer takes it as a step (`mark_statistics`). Weights do not feel it.

    Parameters
    ----------
    shape
        Shape of one point.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> print(MovingNorm((2,)).inverse(jnp.array([3.0, 4.0])).round(4))
    [3. 4.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    mean: Float[Array, "*shape"]
    variance: Float[Array, "*shape"]
    log_gain: Float[Array, "*shape"]
    bias: Float[Array, "*shape"]

    def __init__(self, shape: tuple[int, ...]):
        self.shape, self.cond_shape = tuple(shape), None
        self.mean, self.log_gain, self.bias = (jnp.zeros(shape) for _ in range(3))
        self.variance = jnp.ones(shape)

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Undo the normalization; return ``mean + sqrt(variance) * (z - bias) / gain`` and its log-determinant."""
        mean, stretch = self._mean_and_log_stretch()
        return Moved(mean + jnp.exp(stretch) * (z - self.bias), jnp.sum(stretch))

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return ``bias + gain * (x - mean) / sqrt(variance)`` and its log-determinant.

        A penalty of value 0 has the gradient by which the statistics move.
        """
        mean, stretch = self._mean_and_log_stretch()
        seen = jax.lax.stop_gradient(x)
        lag = jnp.sum((self.mean - seen) ** 2 + (self.variance - (seen - mean) ** 2) ** 2) / 2
        penalties = {"moving_norm": lag - jax.lax.stop_gradient(lag)}
        return Moved(self.bias + jnp.exp(-stretch) * (x - mean), -jnp.sum(stretch), penalties=penalties)

    def _mean_and_log_stretch(self) -> tuple[Point, Point]:
        mean, variance = jax.lax.stop_gradient((self.mean, self.variance))
        # A column that does not vary would be divided by zero.
        return mean, jnp.log(variance + LEAST_VARIANCE) / 2 - self.log_gain


def mark_statistics(tree: PyTree) -> PyTree:
    """Return a tree of booleans like `tree`: True for the statistics of each `MovingNorm` in it.

    Training subtracts `PACE` times their gradient, whatever the learning rate; other leaves are the optimizer's.
    """
    is_norm = lambda node: isinstance(node, MovingNorm)

    def mark(node):
        if not is_norm(node):
            return False
        blank = jax.tree.map(lambda _: False, node)
        return eqx.tree_at(lambda n: (n.mean, n.variance), blank, (True, True))

    return jax.tree.map(mark, tree, is_leaf=is_norm)

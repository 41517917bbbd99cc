"""Couplings: which base point of a batch is sent to which data point."""

import abc

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ._types import Key

Batch = Float[Array, "batch *shape"]


class AbstractCoupling(eqx.Module):
    """A way to pair the base points of a batch with its data points."""

    @abc.abstractmethod
    def __call__(self, x0: Batch, x1: Batch, *, key: Key) -> tuple[Batch, Batch]:
        """Return both batches in an order in which equal places are pairs."""


class Independent(AbstractCoupling):
    """Pairs at random: the batches as they come.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> x0, x1 = Independent()(jnp.zeros((2, 1)), jnp.ones((2, 1)), key=jax.random.key(0))
    >>> print(x1.ravel())
    [1. 1.]
    """

    def __call__(self, x0: Batch, x1: Batch, *, key: Key) -> tuple[Batch, Batch]:
        """Return both batches as they are."""
        return x0, x1


class ExactOT(AbstractCoupling):
    """Pairs of least total squared distance (minibatch optimal transport; Tong and others, 2024).

    Straightens the paths, so that evaluation takes fewer steps. The assignment is exact, by the
    Hungarian algorithm of Optax, whose time grows with the cube of the batch.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> x0, x1 = jnp.array([[0.0], [5.0]]), jnp.array([[6.0], [1.0]])
    >>> print(ExactOT()(x0, x1, key=jax.random.key(0))[1].ravel())
    [1. 6.]
    """

    def __call__(self, x0: Batch, x1: Batch, *, key: Key) -> tuple[Batch, Batch]:
        """Return the base points as they are, and the data points in the order of least cost."""
        a, b = x0.reshape(x0.shape[0], -1), x1.reshape(x1.shape[0], -1)
        # Squared distances less what no assignment can change.
        rows, columns = optax.assignment.hungarian_algorithm(-2 * a @ b.T)
        order = jnp.zeros(x0.shape[0], columns.dtype).at[rows].set(columns)
        return x0, x1[order]

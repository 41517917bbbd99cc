"""Batches on many devices, and batches a part at a time.

Training is one program whatever the devices: rows of a batch are laid out over them, weights are on each, and the
compiler adds the gradients up.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ._types import Key


def rows_mesh() -> Mesh:
    """Return the mesh of all visible devices, along the rows of a batch."""
    return Mesh(np.asarray(jax.devices()), ("rows",))


def spread(batch: PyTree, mesh: Mesh) -> PyTree:
    """Lay the rows of a batch out over the devices of a mesh, as many of them as divide its length evenly.

    Parameters
    ----------
    batch
        Arrays that have the rows as their first axis, inside a compiled function.
    mesh
        The devices; of one alone the batch stays where it is.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> print(jax.jit(lambda rows: spread(rows, rows_mesh()))(jnp.arange(4)))
    [0 1 2 3]
    """
    devices = mesh.devices.ravel()
    num = math.gcd(len(devices), *(leaf.shape[0] for leaf in jax.tree.leaves(batch)))
    if num == 1:
        return batch
    some = Mesh(devices[:num], ("rows",))
    return jax.lax.with_sharding_constraint(batch, NamedSharding(some, PartitionSpec("rows")))


def in_parts(gradient: Callable, parts: int, mesh: Mesh) -> Callable:
    """Return a function ``(params, batch, key)`` that takes a batch in equal parts, and means over what they give.

    Parameters
    ----------
    gradient
        Function ``(params, batch, key)`` that returns a tree of arrays, each a mean over the batch.
    parts
        Number of parts; the rows of each are `spread` over the devices.
    mesh
        The devices.
    """
    if parts == 1:
        return lambda params, batch, key: gradient(params, spread(batch, mesh), key)

    def run(params: PyTree, batch: PyTree, key: Key) -> PyTree:
        divided = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batch)

        def add(total: PyTree, part: tuple[PyTree, Key]) -> tuple[PyTree, None]:
            found = gradient(params, spread(part[0], mesh), part[1])
            return jax.tree.map(lambda a, b: a + b / parts, total, found), None

        first = jax.tree.map(lambda leaf: leaf[0], divided)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(gradient, params, first, key))
        return jax.lax.scan(add, zeros, (divided, jax.random.split(key, parts)))[0]

    return run

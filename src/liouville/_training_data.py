"""Rows on the device to draw batches from: a whole table, or parts of a long one in turn."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt32

from ._types import Key, Rows

LAST_STEP = 2**31 - 1


class TrainingData(eqx.Module):
    """A table on the device, with the upper edges of its rows' shares of the weight.

    Rows are padded to a size that many tables share, so that their training compiles once; edges are
    32-bit integers, so that a uniform draw of 32 bits finds its row exactly at any number of rows. Bytes stay bytes.
    """

    rows: Shaped[Array, "padded *shape"]
    edges: UInt32[Array, " padded"]
    conditions: Float[Array, "padded *cond_shape"] | None = None

    @staticmethod
    def pad(rows: np.ndarray, weight: np.ndarray, conditions: np.ndarray | None = None) -> "TrainingData":
        """Return the table, and what each row is conditioned on, with padding rows that are never drawn."""
        missing = padded_size(len(rows)) - len(rows)
        edges = np.cumsum(weight, dtype=np.float64) / np.sum(weight, dtype=np.float64)
        edges = np.minimum(np.round(edges * 2.0**32), 2.0**32 - 1).astype(np.uint32)
        edges = np.concatenate([edges, np.full(missing, 2**32 - 1, np.uint32)])
        dtype = rows.dtype if rows.dtype == np.uint8 else jnp.result_type(float)
        padded = lambda x, dtype: jnp.asarray(np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]), dtype)
        given = None if conditions is None else padded(conditions, jnp.result_type(float))
        return TrainingData(padded(rows, dtype), jnp.asarray(edges), given)

    def at(self, step: int) -> tuple["TrainingData", int]:
        """Return itself, and the step from which on it is another: never."""
        return self, LAST_STEP

    def draw(self, key: Key, num: int) -> tuple[Shaped[Array, "num *shape"], Float[Array, "num *cond_shape"] | None]:
        """Draw rows with replacement, each with its share of the weight; return them and their conditions."""
        # The largest draw would lie beyond the last edge, on a padding row whatever its weight.
        bits = jnp.minimum(jax.random.bits(key, (num,), jnp.uint32), jnp.uint32(2**32 - 2))
        drawn = jnp.searchsorted(self.edges, bits, side="right")
        return self.rows[drawn], None if self.conditions is None else self.conditions[drawn]


def padded_size(num_rows: int) -> int:
    """Return the next of the sizes 1024, 1280, 1600, ...: at most a quarter more than `num_rows`."""
    size = 1024
    while size < num_rows:
        size = size * 5 // 4
    return size


class StreamedData:
    """A table that stays where it is, for example mapped from a file: a random part of it is on the device at a time.

    Which part, and in what order its rows are drawn, depends on the seed and on the step alone, so that a training
    that was interrupted goes on as if it had not been. Each part serves as many steps as draw about each row once.

    Parameters
    ----------
    rows
        The table, of shape ``(n, *shape)``.
    index, weight
        Numbers of the rows to draw from, and their weights: by them rows of a part are drawn.
    batch_size
        Rows per step.
    part_rows
        Rows of a part.
    seed
        Seed of the parts.
    conditions
        What each row is conditioned on, or None.

    Examples
    --------
    >>> import numpy as np
    >>> stream = StreamedData(np.arange(100.0)[:, None], np.arange(80), np.ones(80), batch_size=5, part_rows=20, seed=0)
    >>> part, until = stream.at(3)
    >>> print(until, len(np.unique(part.rows)), part.rows.max() < 80)
    4 20 True
    """

    def __init__(
        self,
        rows: Rows,
        index: np.ndarray,
        weight: np.ndarray,
        *,
        batch_size: int,
        part_rows: int,
        seed: int,
        conditions: np.ndarray | None = None,
    ):
        self.rows, self.index, self.weight, self.conditions, self.seed = rows, index, weight, conditions, seed
        self.part_rows = min(part_rows, len(index))
        self.steps = math.ceil(self.part_rows / batch_size)
        self._number, self._part = -1, None

    def at(self, step: int) -> tuple[TrainingData, int]:
        """Return the part that a step draws from, and the step from which on it is another."""
        number = step // self.steps
        if self._part is None or number != self._number:
            rng = np.random.default_rng([self.seed, number])
            # In the order of the file, which reads it forwards.
            chosen = np.sort(rng.choice(len(self.index), self.part_rows, replace=False))
            rows = self.index[chosen]
            conditions = None if self.conditions is None else self.conditions[rows]
            self._number, self._part = number, TrainingData.pad(self.rows[rows], self.weight[chosen], conditions)
        return self._part, (number + 1) * self.steps

"""Padded chunks of one shape: what is done to tables of any length is compiled once, and a chunk at a time.

A chunk is the only shape that is ever compiled, so a row's numbers depend neither on how many rows it came with nor on
their order.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

# Entries of a chunk with its products, and the logarithm of 2 of its fewest and most rows. An accelerator wants work to
# do at once.
CHUNKS = {"cpu": (2**13, 5, 7), "pictures on a cpu": (2**13, 3, 7), "accelerator": (2**19, 5, 13)}


def chunk_rows(shape: tuple[int, ...], products: int = 1) -> int:
    """Return the number of rows that are evaluated together, each with so many products at a time."""
    size = int(np.prod(shape))
    if jax.default_backend() == "cpu":
        # A convolution is as busy with few rows.
        entries, fewest, most = CHUNKS["pictures on a cpu" if len(shape) == 3 else "cpu"]
    else:
        (entries, fewest, most), size = CHUNKS["accelerator"], size * products
    # All rows of a chunk take as many steps as the slowest: small chunks waste less.
    return int(2 ** np.clip(np.floor(np.log2(entries / (size + 1))), fewest, most))


def float_dtype():
    """Return JAX's present precision."""
    return jnp.result_type(float)


def on_device(rows: np.ndarray) -> np.ndarray:
    """Return rows in JAX's present precision."""
    # Beyond float32 is infinity, whose solve fails and says so: that is warning enough.
    with np.errstate(over="ignore"):
        return rows.astype(float_dtype())


def in_chunks(one_chunk: Callable, rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Call ``one_chunk(rows, index)`` on padded chunks; return its results, row by row.

    Two chunks are in flight at a time: the host prepares one while the device computes the other.
    """
    # A precision that is set for this thread alone would not hold in the threads of the pool.
    x64 = float_dtype() == np.float64

    def run(start: int) -> list[np.ndarray]:
        chunk = rows[start : start + size]
        padding = size - len(chunk)
        # Padding repeats a row that is there: it takes no longer than that row.
        padded = np.concatenate([chunk, np.broadcast_to(chunk[-1:], (padding, *chunk.shape[1:]))])
        index = np.arange(start, start + size, dtype=np.uint32)
        with jax.enable_x64(x64):  # pyright: ignore[reportPrivateImportUsage]
            return [np.asarray(part)[: len(chunk)] for part in one_chunk(padded, index)]

    starts = range(0, len(rows), size)
    first = run(0)
    results = [np.empty((len(rows), *part.shape[1:]), part.dtype) for part in first]

    def store(start: int, parts: list[np.ndarray]) -> None:
        for result, part in zip(results, parts, strict=True):
            result[start : start + size] = part

    store(0, first)
    with ThreadPoolExecutor(max_workers=2) as pool:
        for start, parts in zip(starts[1:], pool.map(run, starts[1:]), strict=True):
            store(start, parts)
    return results

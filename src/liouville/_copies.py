"""Rows that are there more than once: whatever is learned from one of them is known of the others."""

import numpy as np

from ._types import Rows

BLOCK_WORDS = 2**22
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIXERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def first_copies(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows that are there more than once.

    Parameters
    ----------
    rows
        The table, or pictures: an array whose first axis counts rows.

    Returns
    -------
    first : ndarray of int
        Numbers of the distinct rows, each where it stands first, in the table's order.
    copy_of : ndarray of shape (n,), int
        For each row, which of those it equals.
    """
    hashes = row_hashes(rows)
    if len(np.unique(hashes)) == len(hashes):
        return np.arange(len(hashes)), np.arange(len(hashes))
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[inverse]


def row_hashes(rows: np.ndarray) -> np.ndarray:
    """Return a 64-bit number for each row, the same for equal rows (0.0 equals -0.0), whatever else is in the table."""
    size = max(1, rows[0].nbytes // 8)
    block = max(1, BLOCK_WORDS // size)
    return np.concatenate([_hash_block(rows[start : start + block]) for start in range(0, len(rows), block)])


def _hash_block(rows: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(rows).reshape(len(rows), -1)
    rows = rows + rows.dtype.type(0) if rows.dtype.kind == "f" else rows
    raw = rows.view(np.uint8)
    raw = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 8)))
    words = np.ascontiguousarray(raw).view(np.uint64) + GOLDEN * np.arange(1, raw.shape[1] // 8 + 1, dtype=np.uint64)
    # The finalizer of SplitMix64 (Steele and others, 2014): each bit of a word turns half of the others.
    words = (words ^ (words >> np.uint64(30))) * MIXERS[0]
    words = (words ^ (words >> np.uint64(27))) * MIXERS[1]
    return (words ^ (words >> np.uint64(31))).sum(axis=1, dtype=np.uint64)


def merge_copies(rows: Rows, weight: np.ndarray, are_masses: np.ndarray | None = None) -> tuple[Rows, np.ndarray]:
    """Return the distinct rows of a table, each with the weight of all its copies.

    Equal rows of masses alone, which have no density, are no copies: they are what a probability is learned of, and
    stay.
    """
    first, copy_of = first_copies(rows)
    if len(first) == len(rows):
        return rows, weight
    own = np.zeros(len(rows), bool) if are_masses is None else are_masses
    kept = own.copy()
    kept[first] = True
    return rows[kept], np.where(own, weight, np.bincount(copy_of, weight)[copy_of])[kept]


def in_random_order(rows: Rows, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of all rows in a random order in which copies follow each other.

    Parameters
    ----------
    rows
        The table.
    seed
        Seed of the order.

    Returns
    -------
    index : ndarray of shape (n,), int
        The numbers of the rows.
    distinct : ndarray of shape (n,), int
        For each of them, how many distinct rows stand before it: a cut between two of these cuts no copies apart.
    """
    first, copy_of = first_copies(rows)
    place = np.empty(len(first), int)
    place[np.random.default_rng(seed).permutation(len(first))] = np.arange(len(first))
    index = np.argsort(place[copy_of], kind="stable")
    return index, place[copy_of][index]

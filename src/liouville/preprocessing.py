"""What is done to tables and pictures before the flow: closed forms, fitted in float64, part of the flow."""

from typing import Any

import numpy as np

from ._types import Rows
from .bijections import (
    AbstractBijection,
    GaussianMargins,
    GaussianRadius,
    Logit,
    PixelMargins,
    Standardize,
    Whiten,
)

PREPROCESSORS: dict[str, tuple] = {
    # From the data towards the base: each is fitted to what the one before it makes of the data.
    # The first is the one that another must clearly beat.
    "whiten": (Standardize, Whiten),
    "standardize": (Standardize,),
    "gaussian_margins": (Standardize, GaussianMargins, Whiten),
    "gaussian_radius": (Standardize, Whiten, GaussianRadius),
}


_BLOCK_ROWS = 4096
_MOST_CENTERED = 10_000


def candidates(size: int) -> list[str]:
    """Return the kinds that are worth trying on `size` columns: on one, whitening says nothing new."""
    return list(PREPROCESSORS) if size > 1 else ["standardize", "gaussian_margins"]


def fit_links(kind: str, rows: Rows, weight: np.ndarray) -> tuple[list[AbstractBijection], Rows, np.ndarray]:
    """Fit the closed forms of a kind to a table.

    Parameters
    ----------
    kind
        A key of `PREPROCESSORS`.
    rows, weight
        The table and the weight of its rows.

    Returns
    -------
    links : list of bijections
        In the order of a `Chain`: the nearest to the base first.
    rows : ndarray
        The table in the coordinates of the flow's core.
    log_det : ndarray
        Log-determinant of the map of each row, in nats.
    """
    links, log_det = [], np.zeros(len(rows))
    for bijection in PREPROCESSORS[kind]:
        link = bijection.fit(rows, weight)
        rows, change = _in_blocks(link, rows)
        links.insert(0, link)
        log_det = log_det + change
    return links, rows, log_det


def _in_blocks(link: AbstractBijection, rows: Rows) -> tuple[Rows, np.ndarray]:
    """Map a table a block of rows at a time: what lies between stays in the processor's cache."""
    mapped, log_det = [], []
    for start in range(0, len(rows), _BLOCK_ROWS):
        block: Any = rows[start : start + _BLOCK_ROWS]
        points, change = link.inverse_and_log_det(block)
        mapped.append(points)
        log_det.append(change)
    return np.concatenate(mapped), np.concatenate(log_det)


# How pixels, noise added and between 0 and 1, become the numbers that a flow sees.
PIXELS = ("margins", "logit", "center")


def blank_pixels(kind: str, shape: tuple[int, ...], levels: int) -> list[AbstractBijection]:
    """Return the closed forms of a kind, not fitted: frames that a file's arrays fit into."""
    if kind == "margins":
        return [PixelMargins.blank(shape, levels)]
    # As FFJORD and RNODE have it: for grey pictures, and for coloured ones.
    return [Logit(shape, 1e-5 if shape[-1] == 1 else 0.05)] if kind == "logit" else [Standardize.blank(shape)]


def fit_pixels(kind: str, pixels: np.ndarray, levels: int) -> list[AbstractBijection]:
    """Fit the closed forms of a kind to pictures of whole numbers.

    Parameters
    ----------
    kind
        ``"margins"``, each pixel through its distribution function; ``"logit"``, the same curve for all; or
        ``"center"``, the mean picture taken away and one scale for all.
    pixels
        Pictures of shape ``(n, height, width, channels)``.
    levels
        Number of values that a pixel can have.

    Returns
    -------
    list of bijections
        In the order of a `Chain`: the nearest to the base first.
    """
    if kind == "margins":
        return [PixelMargins.fit(pixels, levels)]
    if kind == "logit":
        return blank_pixels(kind, pixels.shape[1:], levels)
    few = pixels[:: 1 + len(pixels) // _MOST_CENTERED].astype(np.float64)
    mean, spread = (few.mean(axis=0) + 0.5) / levels, few.std() / levels
    return [Standardize(mean, np.full(mean.shape, spread or 1.0))]

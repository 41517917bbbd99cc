"""Frames: how data become the points on which the core of a density is a distribution, and back."""

import abc
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ._types import Key, Point, Rows, Scalar
from .bijections import (
    AbstractBijection,
    Bounded,
    GaussianMargins,
    GaussianRadius,
    Logit,
    PixelMargins,
    Standardize,
    Whiten,
    namespace,
)
from .dequantization import AbstractDequantization, UniformDequantization

PREPROCESSORS: dict[str, tuple] = {
    # From the data towards the base: each is fitted to what the one before it makes of the data.
    # The first is the one that another must clearly beat.
    "whiten": (Standardize, Whiten),
    "standardize": (Standardize,),
    "gaussian_margins": (Standardize, GaussianMargins, Whiten),
    "gaussian_radius": (Standardize, Whiten, GaussianRadius),
}
# How pixels, noise added and between 0 and 1, become the numbers that a flow sees.
PIXELS = ("margins", "logit", "center")

_BLOCK_ROWS = 4096
_MOST_CENTERED = 10_000
_ANY_ROWS = 500


class AbstractFrame(eqx.Module):
    """How data become the points on which the core of a density is a distribution, and back.

    Attributes
    ----------
    shape
        Shape of one row of data.
    noise
        What fills the gaps between whole numbers, or None.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]
    noise: eqx.AbstractVar[AbstractDequantization | None]

    @property
    @abc.abstractmethod
    def has_masses(self) -> bool:
        """Return True where a number of a row has a mass, as levels, whole numbers and atoms have, and no density."""

    @property
    @abc.abstractmethod
    def core_shape(self) -> tuple[int, ...]:
        """Shape of one point of the core."""

    @abc.abstractmethod
    def encode(self, x: Any, drawn: Any = None) -> tuple[Any, Any]:
        """Map data to points of the core; return them, and what is to be added to the core's log-density, in nats."""

    @abc.abstractmethod
    def decode(self, points: Any) -> Any:
        """Map points of the core to data."""

    @abc.abstractmethod
    def decode_and_log_det(self, points: Any) -> tuple[Any, Any]:
        """Map points of the core to data, and return the log-determinants."""


class Frame(AbstractFrame):
    """What is done to data before a flow, and undone behind it: nothing in it is learned by gradients but noise.

    Closed forms are fitted in float64 and, given NumPy's arrays, run in it on the host: that is how a table keeps its
    digits. Whole numbers are filled up with noise first; the log-density of what comes of them is then a bound.

    Parameters
    ----------
    shape
        Shape of one point.
    links
        Closed forms, from the data towards the core: each maps by its inverse.
    levels
        Number of values of each entry, where the data are whole numbers from 0 on; None where they are no such numbers.
    noise
        Noise in [0, 1) that is added to whole numbers; with `levels`.

    Examples
    --------
    >>> import numpy as np
    >>> frame = Frame((1,), (Standardize([10.0], [2.0]),))
    >>> points, log_det = frame.encode(np.array([[14.0]]))
    >>> print(points, log_det.round(4), frame.decode(points))
    [[2.]] [-0.6931] [[14.]]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    links: tuple[AbstractBijection, ...]
    levels: int | None = eqx.field(static=True)
    noise: AbstractDequantization | None

    def __init__(
        self,
        shape: tuple[int, ...],
        links: tuple[AbstractBijection, ...] = (),
        levels: int | None = None,
        noise: AbstractDequantization | None = None,
    ):
        self.shape, self.links, self.levels, self.noise = shape, links, levels, noise
        shapes = {link.shape for link in self.links} - {self.shape}
        if shapes:
            raise ValueError(f"Expected links of shape {self.shape}, got {sorted(shapes)}; try links of one shape.")
        if (self.levels is None) != (self.noise is None):
            raise ValueError(
                f"Expected noise and levels together, got levels={self.levels} and noise={self.noise}; try both."
            )

    @property
    def has_masses(self) -> bool:
        """Return True of whole numbers."""
        return self.levels is not None

    @property
    def core_shape(self) -> tuple[int, ...]:
        """Shape of one point of the core, that of the data."""
        return self.shape

    def draw(self, x: Point, key: Key) -> tuple[Point, Scalar] | None:
        """Draw the noise of one point, between 0 and 1, and its log-density in nats; None where there is no noise."""
        return None if self.noise is None else self.noise.draw(self._shares(x), key)

    def encode(self, x: Any, drawn: Any = None) -> tuple[Any, Any]:
        """Map data to points of the core, on any leading axes.

        Parameters
        ----------
        x
            Data, of shape ``(..., *shape)``: NumPy's arrays, which are mapped in float64, or JAX's.
        drawn
            The noise of each point and its log-density (`draw`), where the frame has noise.

        Returns
        -------
        points
            Of shape ``(..., *shape)``.
        log_det
            What is to be added to the core's log-density, in nats: the log-determinant, and minus that of the noise.
        """
        change = 0.0
        if self.levels is not None:
            noise, log_density = drawn
            x = self._shares(x) + noise / self.levels
            change = -log_density - math.prod(self.shape) * math.log(self.levels)
        for link in self.links:
            x, log_det = link.inverse_and_log_det(x)
            change = change + log_det
        return x, change

    def decode(self, points: Any) -> Any:
        """Map points of the core to data, on any leading axes; whole numbers are bytes where points are NumPy's."""
        points, _ = self.decode_and_log_det(points)
        if self.levels is None:
            return points
        xp = namespace(points)
        whole = xp.clip(xp.floor(points * self.levels), 0, self.levels - 1)
        # Bytes have no NaN: who wants to know which solves failed asks the status.
        return np.nan_to_num(whole).astype(np.uint8) if xp is np else whole

    def decode_and_log_det(self, points: Any) -> tuple[Any, Any]:
        """Map points of the core to data, whole numbers with their noise; return them and the log-determinants."""
        change = 0.0
        for link in self.links[::-1]:
            points, log_det = link.transform_and_log_det(points)
            change = change + log_det
        return points, change

    def _shares(self, x: Any) -> Any:
        """Return whole numbers as shares of their range."""
        return (x if namespace(x) is np else x.astype(jnp.result_type(float))) / self.levels


def candidates(size: int) -> list[str]:
    """Return the kinds that are worth trying on `size` columns: on one, whitening says nothing new."""
    return list(PREPROCESSORS) if size > 1 else ["standardize", "gaussian_margins"]


def fit_table(
    preprocess: str, rows: Rows, weight: np.ndarray, edges: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[Frame, Rows]:
    """Fit the frame of a table.

    Parameters
    ----------
    preprocess
        A key of `PREPROCESSORS`.
    rows, weight
        The table and the weight of its rows.
    edges
        The lowest and the highest number that there can be in each column, -inf and inf where there is no end; None
        where no column ends.

    Returns
    -------
    frame : Frame
        The closed forms.
    points : ndarray
        The table in the coordinates of the flow's core.
    """
    shape, links = rows.shape[1:], []
    bounds = [] if edges is None else [lambda rows, weight: Bounded(*edges)]
    for fit in [*bounds, *(bijection.fit for bijection in PREPROCESSORS[preprocess])]:
        link = fit(rows, weight)
        links.append(link)
        # A block at a time: what lies between stays in the processor's cache.
        blocks = [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]
        rows = np.concatenate([link.inverse_and_log_det(block)[0] for block in blocks])
    return Frame(shape, tuple(links)), rows


def fit_pictures(
    preprocess: str, pixels: np.ndarray, weight: np.ndarray, levels: int, noise: AbstractDequantization
) -> Frame:
    """Fit the frame of pictures of whole numbers.

    Parameters
    ----------
    preprocess
        ``"margins"``, each pixel through its distribution function; ``"logit"``, the same curve for all; or
        ``"center"``, the mean picture taken away and one scale for all.
    pixels, weight
        Pictures of shape ``(n, height, width, channels)``, and the weight of each.
    levels
        Number of values that a pixel can have.
    noise
        What fills the gaps between them.
    """
    shape = pixels.shape[1:]
    if preprocess == "margins":
        link = PixelMargins.fit(pixels, levels, weight)
    elif preprocess == "logit":
        # As FFJORD and RNODE have it: for grey pictures, and for coloured ones.
        link = Logit(shape, 1e-5 if shape[-1] == 1 else 0.05)
    else:
        step = 1 + len(pixels) // _MOST_CENTERED
        few, weight = pixels[::step].astype(np.float64), weight[::step]
        mean = np.average(few, axis=0, weights=weight)
        of_each = ((few - mean.mean()) ** 2).reshape(len(few), -1).mean(axis=1)
        spread = np.sqrt(np.average(of_each, weights=weight)) / levels
        link = Standardize((mean + 0.5) / levels, np.full(mean.shape, spread or 1.0))
    return Frame(shape, (link,), levels, noise)


def any_frame(
    preprocess: str,
    shape: tuple[int, ...],
    levels: int | None,
    edges: tuple[np.ndarray, np.ndarray] | None = None,
) -> Frame:
    """Return a frame of a kind that is fitted to any data: the numbers of one from a file take the place of its own."""
    if levels is not None:
        return fit_pictures(preprocess, np.zeros((1, *shape), np.uint8), np.ones(1), levels, UniformDequantization())
    low, high = (np.full(shape, end) for end in (-np.inf, np.inf)) if edges is None else edges
    rows = any_rows(low, high)
    return fit_table(preprocess, rows, np.ones(len(rows)), edges)[0]


def any_rows(low: np.ndarray, high: np.ndarray) -> Rows:
    """Return rows between edges, that any closed form can be fitted to."""
    unit = np.random.default_rng(0).uniform(0.25, 0.75, size=(_ANY_ROWS, *low.shape))
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    length = np.where(has_low & has_high, np.where(has_high, high, 1.0) - np.where(has_low, low, 0.0), 1.0)
    start = np.where(has_low, low, np.where(has_high, high - length, 0.0))
    return start + length * unit

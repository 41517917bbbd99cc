"""The law of one number given rows: its distribution function, its quantiles, its mean and its CRPS.

In one dimension a flow is increasing: ``F(y | x) = Phi(z(y; x))``, and quantiles are where it takes those of the base.
Masses of atoms and levels come beside it.
"""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtr, ndtri

from . import evaluation
from ._conditions import Told
from ._types import Condition, Point, Scalar
from .density import Density
from .flows import with_tolerance
from .mixed import Mixed, MixedFrame

# Where the base has the nodes that are solved for, and how many there are between the outermost for sums.
_NODES = np.linspace(-5.0, 5.0, 41)
_FINE = np.linspace(-5.0, 5.0, 1001)
# Beyond this floats do not tell the base's probabilities.
_FARTHEST = 8.0
# Laws are solved at so much of the flow's tolerance.
_TIGHTER = 0.03
# So many points are solved for, or summed over, at a time.
_BLOCK = 2**20


def _levels(mixed: Mixed, _: Point, condition: Condition) -> Any:
    """Return the probabilities of the levels of the code, or 1 where there is none."""
    if mixed.codes is None:
        return jnp.ones(1)
    return jnp.exp(mixed.codes.first(mixed.of_codes_condition(mixed.hidden(condition))))


def _to_base(mixed: Mixed, x: Point, condition: Condition) -> Scalar:
    """Return where the base has a continuous number, or the upper edge of a whole one."""
    codes, hidden = jnp.zeros(0 if mixed.codes is None else 1), mixed.hidden(condition)
    if mixed.cells is not None:
        return mixed.cells.upper(x, mixed.told(codes, hidden))[0]
    return mixed.core.bijection.to_base(x, mixed.context(codes, jnp.zeros(0), hidden), density=False).x[0]  # pyright: ignore


def _from_base(mixed: Mixed, z: Point, condition: Condition) -> Scalar:
    """Return where the flow takes a point of the base: a number, or the place of a whole one."""
    codes, hidden = jnp.zeros(0 if mixed.codes is None else 1), mixed.hidden(condition)
    if mixed.cells is not None:
        return mixed.cells.place(z, mixed.told(codes, hidden))[0]
    return mixed.core.bijection.to_data(z, mixed.context(codes, jnp.zeros(0), hidden), density=False).x[0]  # pyright: ignore


class NumberLaw:
    """The law of one number given each of some rows.

    Parameters
    ----------
    density
        Of one column, under conditions: its core is a `liouville.mixed.Mixed`.
    told
        What the rows say.
    levels
        The numbers that the levels of a category are, in order; None of other columns.
    """

    def __init__(self, density: Density, told: Told, levels: np.ndarray | None = None):
        # Solved without a log-determinant, which has its say in the steps: by tighter tolerances it is as exact.
        self.core, self.told = with_tolerance(density.core, _TIGHTER), told
        self.frame: MixedFrame = density.frame
        self.column = self.frame.columns[0]
        self.levels = levels
        atoms = np.asarray(self.column.atoms) if levels is None else levels
        shares = evaluation.in_core(_levels, self.core, np.zeros((len(told.condition), 1)), told.condition)
        # The first level of a number stands for what is no atom; a category is nothing but levels.
        order = np.argsort(atoms)
        masses = shares[:, 1:] if levels is None else shares
        self.atoms, self.masses = atoms[order], masses[:, order]
        self.rest = shares[:, 0] if levels is None else np.zeros(len(shares))

    @property
    def _is_whole(self) -> bool:
        return self.column.kind == "whole"

    def cdf(self, y: np.ndarray) -> np.ndarray:
        """Return ``F(y | x)``, the probability of no more than `y`, of shape ``(n,)``."""
        found = (self.masses * (self.atoms <= y[:, None] + 1e-9 * np.abs(y[:, None]))).sum(1)
        return found if self.levels is not None else found + self.rest * self._of_rest(y)

    def _of_rest(self, y: np.ndarray) -> np.ndarray:
        """Return the distribution function of what is no atom."""
        if not self._is_whole:
            y = self.told.inwards(y[:, None])[0][:, 0]
            low, high = self.column.edges
            inside = (y > low) & (y < high)
            point = self.frame.point_of(np.where(inside, y, np.nan))
            found = ndtr(self._solved(_to_base, np.where(inside, point, 0.0)))
            return np.where(inside, found, y >= high)
        steps = np.floor(y / self.column.step + 1e-6)
        # The last of the numbers that are no more, and no atoms.
        number = self.column.counted(steps) - self.column.on_atoms(steps * self.column.step).any(-1)
        low, high = self.column.ends()
        found = ndtr(self._solved(_to_base, np.clip(number, max(low, -1e15), min(high, 1e15))))
        return np.where(number < low, 0.0, np.where(number >= high, 1.0, found))

    def quantiles(self, p: np.ndarray) -> np.ndarray:
        """Return where the distribution function reaches probabilities, of shape ``(n, len(p))``."""
        p = np.broadcast_to(p, (len(self.rest), len(p)))
        reached, found = np.zeros(p.shape), np.full(p.shape, np.nan)
        for atom, mass in zip(self.atoms, self.masses.T, strict=True):
            below = np.zeros(len(self.rest))
            if self.levels is None:
                below = self.rest * self._of_rest(np.full(len(self.rest), atom))
            # The mass of lower atoms is in `reached` of those probabilities alone that lie above them.
            is_open = np.isnan(found)
            start = reached + below[:, None]
            is_here = is_open & (p > start) & (p <= start + mass[:, None])
            found = np.where(is_here, atom, found)
            reached = np.where(is_open & (p > start), reached + mass[:, None], reached)
        is_open = np.isnan(found)
        if self.levels is not None:
            return np.where(is_open, self.atoms[-1], found)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.clip(ndtri(np.clip((p - reached) / self.rest[:, None], 0.0, 1.0)), -_FARTHEST, _FARTHEST)
        return np.where(is_open, self._of_places(self._places(z, slice(None)), slice(None)), found)

    def mean(self) -> np.ndarray:
        """Return the means, of shape ``(n,)``."""
        found = self.masses @ self.atoms
        for rows, values, weights in self._sums():
            found[rows] += self.rest[rows] * (values @ weights)
        return found

    def crps(self, y: np.ndarray) -> np.ndarray:
        """Return the continuous ranked probability score ``E|Y - y| - E|Y - Y'| / 2`` of each row."""
        found = np.zeros(len(y))
        of_atoms = lambda rows: np.broadcast_to(self.atoms, (len(self.rest[rows]), len(self.atoms)))
        for rows, values, weights in self._sums():
            points = np.concatenate([of_atoms(rows), values], axis=1)
            mass = np.concatenate([self.masses[rows], self.rest[rows, None] * weights], axis=1)
            order = np.argsort(points, axis=1)
            points, mass = (np.take_along_axis(part, order, 1) for part in (points, mass))
            spread = (mass * points * (2 * np.cumsum(mass, 1) - mass - 1)).sum(1)
            found[rows] = (mass * np.abs(points - y[rows, None])).sum(1) - spread
        return found

    def _sums(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yield, for some rows after others, values of what is no atom and how likely each is."""
        edges = np.concatenate([[-np.inf], (_FINE[1:] + _FINE[:-1]) / 2, [np.inf]])
        weights = np.diff(ndtr(edges))
        num = max(1, _BLOCK // len(_FINE))
        for first in range(0, len(self.rest), num):
            rows = slice(first, min(first + num, len(self.rest)))
            if self.levels is not None:
                yield rows, np.zeros((len(self.rest[rows]), 0)), np.zeros(0)
                continue
            # Between the nodes the flow is increasing and smooth, and so is this.
            places = self._places(np.broadcast_to(_NODES, (len(self.rest[rows]), len(_NODES))), rows)
            yield rows, self._of_places(PchipInterpolator(_NODES, places, axis=1)(_FINE), rows), weights

    def _places(self, z: np.ndarray, rows: slice) -> np.ndarray:
        """Return where the flow takes points of the base, of shape ``(rows, k)``."""
        condition = self.told.condition[rows]
        num = max(1, _BLOCK // max(1, condition.shape[1]) // z.shape[1])
        parts = [
            evaluation.in_core(
                _from_base, self.core, z[i : i + num].reshape(-1, 1), np.repeat(condition[i : i + num], z.shape[1], 0)
            ).reshape(-1, z.shape[1])
            for i in range(0, len(z), num)
        ]
        return np.concatenate(parts)

    def _of_places(self, places: np.ndarray, rows: slice) -> np.ndarray:
        """Return the values that are at places."""
        if self._is_whole:
            grid = self.core.cells.grid
            low, high = self.column.ends()
            numbers = np.clip(grid.numbers(places[..., None])[..., 0], low, high)
        else:
            numbers = places
        return self.told.some(rows).outwards(self.frame.values_of(numbers))

    def _solved(self, fn, points: np.ndarray) -> np.ndarray:
        return evaluation.in_core(fn, self.core, points[:, None], self.told.condition)

"""Columns of mixed tables alone: the laws that rivals of liouville on such tables are built of.

Rows are numbers here: codes, whole numbers counted in steps, and the others as they are. What a column is, liouville
has found, and its law has the same measure: masses of codes, of whole numbers and of atoms, and densities else. Each
law sums and integrates to 1 over all that there can be, not only over what was seen.
"""

import math

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from liouville.mixed import Column

# Bandwidths beside Scott's, and how much of a law of whole numbers are shares of single values.
_WIDTHS, _SPIKES = np.geomspace(0.03, 2.0, 9), (0.0, 0.5, 0.8, 0.95, 0.99)
_MOST_CHOOSING, _PART = 3000, 500


def encode(columns: tuple[Column, ...], rows: np.ndarray) -> np.ndarray:
    """Return rows with whole numbers in steps, and with values that are atoms but for rounding as these."""
    rows = np.array(rows, np.float64)
    for j, column in enumerate(columns):
        if column.kind == "whole":
            rows[:, j] = np.round(rows[:, j] / column.step)
        elif column.atoms:
            atom = column.on_atoms(rows[:, j])
            rows[:, j] = np.where(atom.any(-1), np.array(column.atoms)[atom.argmax(-1)], rows[:, j])
    return rows


def log_between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the logarithm of a standard normal variable's probability between two numbers, in the tails as well."""
    flip = low > 0
    low, high = np.where(flip, -high, low), np.where(flip, -low, high)
    top = log_ndtr(high)
    with np.errstate(divide="ignore", invalid="ignore"):
        return top + np.log(-np.expm1(np.minimum(log_ndtr(low) - top, 0.0)))


def sum_between(low, high, of: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the sum of the shares of those of some values that are above `low`, up to `high`."""
    below = np.append(0.0, np.cumsum(shares))
    return below[np.searchsorted(of, high, side="right")] - below[np.searchsorted(of, low, side="right")]


class Axis:
    """A column alone: shares of single values, and kernels, on a logarithmic scale where that does better.

    Bandwidth, scale and how much of it are shares of values are those that do best on a third of the rows; equal
    values of a density are on one side. A normal variable as wide as the column twice has half a row more, so that
    there is mass everywhere.
    """

    def __init__(self, column: Column, values: np.ndarray):
        self.is_code, self.is_whole = column.kind == "code", column.kind != "continuous"
        self.atoms = np.sort(np.round(np.array(column.atoms) / column.step) if self.is_whole else column.atoms)
        self.low = np.round(column.lowest / column.step) - 0.5 if self.is_whole else column.edges[0]
        self.values, count = np.unique(values, return_counts=True)
        if self.is_code:
            self.values = np.arange(column.levels)
            count = np.bincount(values.astype(int), minlength=column.levels) + 0.5
            self.shares, self.of_kernels, self.is_log, self.floor = count / count.sum(), 0.0, False, 1.0
            return
        self.is_log, width, spikes = self._choose(values)
        self._fit(values, width, spikes)

    def _choose(self, values: np.ndarray) -> tuple[bool, float, float]:
        rng = np.random.default_rng(0)
        few = rng.permutation(values)[:_MOST_CHOOSING]
        is_held = rng.random(len(few)) < 1 / 3
        if not self.is_whole:
            found, place = np.unique(few, return_inverse=True)
            is_held = (rng.random(len(found)) < 1 / 3)[place]
        is_held &= ~np.isin(few, self.atoms) | self.is_whole
        best, choice = -math.inf, (False, 1.0, 0.95)
        if not is_held.any() or is_held.all():
            return choice
        held = few[is_held]
        for is_log in (False, True) if self.low in (0.0, -0.5) else (False,):
            self.is_log = is_log
            for width in _WIDTHS:
                self._fit(few[~is_held], width, 1.0)
                share, kernels = self.share(held, self.values, self.shares), self._kernels(held)
                for spikes in _SPIKES if self.is_whole else (0.0,):
                    score = np.log(np.maximum(spikes * share + (1 - spikes) * kernels, 1e-300)).mean()
                    if score > best:
                        best, choice = score, (is_log, width, spikes)
        return choice

    def _fit(self, values: np.ndarray, width: float, spikes: float) -> None:
        found, count = np.unique(values, return_counts=True)
        share = count / len(values)
        is_atom = np.isin(found, self.atoms)
        if self.is_whole:
            self.values, self.shares, self.of_kernels = found, spikes * share, 1 - spikes
        else:
            self.values, self.shares, self.of_kernels = found[is_atom], share[is_atom], 1 - share[is_atom].sum()
            if not is_atom.all():
                found, count = found[~is_atom], count[~is_atom]
            # Nothing is said of other values than atoms where there are none: the wide variable has them all.
            self.of_kernels = max(self.of_kernels, 0.5 / len(values))
            self.shares = self.shares / max(self.shares.sum(), 1e-300) * (1 - self.of_kernels)
        points, total = self.scaled(found), count.sum()
        loc = np.average(points, weights=count)
        spread = max(math.sqrt(np.average((points - loc) ** 2, weights=count)), 1e-9 * abs(loc), 1e-12)
        self.floor = spread * width * total**-0.2
        self.points = np.append(points, loc)
        self.widths = np.append(np.full(len(points), self.floor), 2 * spread)
        self.weights = np.append(count, 0.5) / (total + 0.5)
        self.weights = self.weights / ndtr((self.points - self.scaled(self.low)) / self.widths)

    def scaled(self, x):
        """Return values on the scale of kernels and normals."""
        with np.errstate(divide="ignore"):
            return np.log(x + self.is_whole) if self.is_log else np.asarray(x, np.float64)

    def unscaled(self, z: np.ndarray) -> np.ndarray:
        """Return the values, or the whole numbers whose cells they are in."""
        x = np.exp(z) - self.is_whole if self.is_log else z
        return np.maximum(np.floor(x + 0.5), self.low + 0.5) if self.is_whole else x

    def log_law(self, x, loc, scale, low=-math.inf, high=math.inf) -> np.ndarray:
        """Return the log-probability of a normal variable between two values, whose cells are whole numbers."""
        low, high = self.cut(low, high)
        inside = log_between((self.scaled(low) - loc) / scale, (self.scaled(high) - loc) / scale)
        if self.is_whole:
            ends = [(self.scaled(np.maximum(x + half, self.low)) - loc) / scale for half in (-0.5, 0.5)]
            return log_between(*ends) - inside
        z = self.scaled(x)
        return -0.5 * ((z - loc) / scale) ** 2 - np.log(scale * math.sqrt(2 * math.pi)) - self.is_log * z - inside

    def cut(self, low, high):
        """Return the ends of what there is above one value, up to another."""
        if self.is_whole:
            low, high = np.floor(low) + 0.5, np.floor(high) + 0.5
        return np.maximum(low, self.low), high

    def share(self, x: np.ndarray, of: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Return for each value what stands beside it among others, or 0."""
        if not len(of):
            return np.zeros((*x.shape, *shares.shape[1:]))
        place = np.minimum(np.searchsorted(of, x), len(of) - 1)
        found = of[place] == x
        return shares[place] * found.reshape(*x.shape, *[1] * (shares.ndim - 1))

    def prob(self, x: np.ndarray) -> np.ndarray:
        """Return the probability of each value, or its density."""
        found, place = np.unique(x, return_inverse=True)
        prob = self.share(found, self.values, self.shares)
        if self.of_kernels:
            is_on = self.is_whole | ~np.isin(found, self.atoms)
            parts = np.array_split(found[is_on], len(found) // _PART + 1)
            prob[is_on] += self.of_kernels * np.concatenate([self._kernels(part) for part in parts])
        return prob[place]

    def _kernels(self, x: np.ndarray) -> np.ndarray:
        if not self.is_whole:
            z = (self.scaled(x)[:, None] - self.points) / self.widths
            density = np.exp(-0.5 * z**2) / self.widths @ self.weights / math.sqrt(2 * math.pi)
            return density / x if self.is_log else density
        cells = [self.scaled(np.maximum(x + half, self.low))[:, None] for half in (-0.5, 0.5)]
        low, high = (ndtr((end - self.points) / self.widths) for end in cells)
        return (high - low) @ self.weights

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Return the log-probability of each value."""
        return np.log(np.maximum(self.prob(x), 1e-300))

    def between(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Return the probability of what is above some values, up to others."""
        total = sum_between(low, high, self.values, self.shares)
        if self.is_code:
            return total
        start, end = (self._below(np.asarray(edge)) for edge in self.cut(low, high))
        return total + self.of_kernels * (end - start)

    def _below(self, edge: np.ndarray) -> np.ndarray:
        found, place = np.unique(edge, return_inverse=True)
        start = ndtr((self.scaled(self.low) - self.points) / self.widths)
        below = []
        for part in np.array_split(found, len(found) // _PART + 1):
            z = (self.scaled(np.maximum(part, self.low))[:, None] - self.points) / self.widths
            below.append((ndtr(z) - start) @ self.weights)
        return np.concatenate(below)[place].reshape(np.shape(edge))

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draw values."""
        kernel = rng.random(num) < self.of_kernels
        x = np.zeros(num)
        if len(self.shares) and not kernel.all():
            x[~kernel] = rng.choice(self.values, (~kernel).sum(), p=self.shares / self.shares.sum())
        if kernel.any():
            mass = self.weights * ndtr((self.points - self.scaled(self.low)) / self.widths)
            which = rng.choice(len(self.points), kernel.sum(), p=mass / mass.sum())
            x[kernel] = self.draw_law(rng, self.points[which], self.widths[which])
        return x

    def draw_law(self, rng, loc, scale, low=-math.inf, high=math.inf) -> np.ndarray:
        """Draw what `log_law` is the law of."""
        low, high = ((self.scaled(end) - loc) / scale for end in self.cut(low, high))
        z = ndtri(ndtr(low) + (ndtr(high) - ndtr(low)) * rng.random(len(loc)))
        z = np.clip(z, np.maximum(low, -8.0), np.maximum(np.minimum(high, 8.0), low))
        return self.unscaled(loc + scale * z)

"""What densities are learned from: toys, whose truth is known, and tables from files, split in three."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.datasets import make_moons

from liouville.data import mixture, six_gaussians

TRAIN, VALIDATION, TEST = 16_384, 4096, 10_000
TABLES = ("power_plant", "magic_gamma", "protein", "bsds_patches")


def eight_gaussians():
    """Return eight narrow Gaussians on a circle (FFJORD's)."""
    angles = np.arange(8) * np.pi / 4
    centres = 4 * np.stack([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(2)
    return mixture("eight Gaussians", centres, np.full(8, 0.5 / np.sqrt(2)))


def three_modes():
    """Return a mixture on a line: a narrow, a broad and a middling mode."""
    return mixture("1-D mixture", np.array([[-3.0], [0.0], [2.5]]), np.array([0.3, 1.0, 0.5]))


class Checkerboard:
    """Eight squares of side 2, like the black ones of a board of 4 x 4."""

    def sample(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draw points."""
        column, row = rng.integers(0, 4, num), rng.integers(0, 2, num)
        corner = np.stack([column, 2 * row + column % 2], axis=1)
        return 2 * (corner + rng.random((num, 2))) - 4

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Return the log-density: the squares' area is 32."""
        cell = np.floor((x + 4) / 2).astype(int)
        inside = np.all((cell >= 0) & (cell < 4), axis=1) & ((cell.sum(1)) % 2 == 0)
        return np.where(inside, -np.log(32.0), -np.inf)


class Moons:
    """Two moons: half circles, blurred."""

    noise = 0.1

    def sample(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draw points."""
        return make_moons(num, noise=self.noise, random_state=int(rng.integers(2**31)))[0]

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Return the log-density: the mean, along both half circles, of the noise's."""
        angles = np.linspace(0, np.pi, 1001)
        upper = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        arcs = np.concatenate([upper, [1.0, 0.5] - upper])
        # Half a step counts at each end of an arc.
        weights = np.tile(np.where((angles == 0) | (angles == np.pi), 0.5, 1.0), 2) / 2000
        density = np.exp(-cdist(x, arcs, "sqeuclidean") / (2 * self.noise**2)) @ weights
        return np.log(density / (2 * np.pi * self.noise**2))


class Pinwheel:
    """Five arms: Gaussians, long along the radius, turned the further the more."""

    arms, along, across = 5, 0.3, 0.1

    def turn(self, radius: np.ndarray) -> np.ndarray:
        """Return the angle by which an arm is turned at a point's own radius, along the arm."""
        return 0.25 * np.exp(radius)

    def sample(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draw points."""
        radius = 1 + self.along * rng.normal(size=num)
        across = self.across * rng.normal(size=num)
        turn = 2 * np.pi / self.arms * rng.integers(0, self.arms, num) + self.turn(radius)
        cos, sin = np.cos(turn), np.sin(turn)
        return 2 * np.stack([radius * cos - across * sin, radius * sin + across * cos], axis=1)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Return the log-density: the sum over all arms and places along them that are turned to a point."""
        return np.concatenate([self._log_prob(part) for part in np.array_split(x, len(x) // 500 + 1)])

    def _log_prob(self, x: np.ndarray) -> np.ndarray:
        length, angle = np.hypot(*x.T) / 2, np.arctan2(x[:, 1], x[:, 0])
        # A point of this length, seen under some angle from its arm, is turned to where x is: for which angles?
        before = np.linspace(-np.pi, np.pi, 4001)
        step = before[1] - before[0]
        turns = (before + self.turn(length[:, None] * np.cos(before)) - angle[:, None]) / (2 * np.pi / self.arms)
        crossed = np.floor(turns[:, 1:]) != np.floor(turns[:, :-1])
        row, at = np.nonzero(crossed)
        low, high = turns[row, at], turns[row, at + 1]
        found = before[at] + step * (np.maximum(np.floor(low), np.floor(high)) - low) / (high - low)
        radius, across = length[row] * np.cos(found), length[row] * np.sin(found)
        density = np.exp(-0.5 * ((radius - 1) / self.along) ** 2 - 0.5 * (across / self.across) ** 2)
        density /= 2 * np.pi * self.along * self.across * np.abs(1 - self.turn(radius) * across)
        # One arm of five, and areas four times as large.
        return np.log(np.bincount(row, density, minlength=len(x)) / (4 * self.arms))


KNOWN: dict[str, Callable] = {
    "six_gaussians": six_gaussians,
    "eight_gaussians": eight_gaussians,
    "one_dimension": three_modes,
    "checkerboard": Checkerboard,
    "two_moons": Moons,
    "pinwheel": Pinwheel,
}
NAMES = (*KNOWN, *TABLES)


def make(name: str, seed: int, folder: Path) -> dict[str, np.ndarray]:
    """Return ``train``, ``validation`` and ``test``, and ``truth``, the true NLL of the test rows, of toys.

    The seed draws toy rows; a table's splits are its file's.
    """
    if name in TABLES:
        with np.load(folder / f"{name}.npz") as found:
            parts = {key: found[key].astype(np.float64) for key in ("train", "validation", "test")}
        return (
            {key: dequantized(rows, i) for i, (key, rows) in enumerate(parts.items())} if "patches" in name else parts
        )
    rng = np.random.default_rng(seed)
    target = KNOWN[name]()
    sizes = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    parts = {key: target.sample(rng, num) for key, num in sizes.items()}
    parts["truth"] = -np.mean(target.log_prob(parts["test"]))
    return parts


def dequantized(patches: np.ndarray, seed: int) -> np.ndarray:
    """Return grey patches as the literature has them: uniform noise, the mean taken out, one column dropped."""
    x = (patches + np.random.default_rng(seed).random(patches.shape)) / 256
    return (x - x.mean(axis=1, keepdims=True))[:, :-1]

"""What densities are learned from: toy targets whose truth is known, and tables from files, split in three."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
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


def moons(rng: np.random.Generator, num: int) -> np.ndarray:
    """Draw from two moons, blurred."""
    return make_moons(num, noise=0.1, random_state=int(rng.integers(2**31)))[0]


def pinwheel(rng: np.random.Generator, num: int) -> np.ndarray:
    """Draw from five arms: Gaussians, long along the radius, turned the further the more."""
    radius = 1 + 0.3 * rng.normal(size=num)
    across = 0.1 * rng.normal(size=num)
    turn = 2 * np.pi / 5 * rng.integers(0, 5, num) + 0.25 * np.exp(radius)
    cos, sin = np.cos(turn), np.sin(turn)
    return 2 * np.stack([radius * cos - across * sin, radius * sin + across * cos], axis=1)


KNOWN: dict[str, Callable] = {
    "six_gaussians": six_gaussians,
    "eight_gaussians": eight_gaussians,
    "one_dimension": three_modes,
    "checkerboard": Checkerboard,
}
DRAWN: dict[str, Callable] = {"two_moons": moons, "pinwheel": pinwheel}
NAMES = (*KNOWN, *DRAWN, *TABLES)


def make(name: str, seed: int, folder: Path) -> dict[str, np.ndarray]:
    """Return ``train``, ``validation`` and ``test``, and ``truth``, the true NLL of the test rows, where it is known.

    The seed draws toy rows; a table's splits are its file's.
    """
    if name in TABLES:
        with np.load(folder / f"{name}.npz") as found:
            parts = {key: found[key].astype(np.float64) for key in ("train", "validation", "test")}
        return (
            {key: dequantized(rows, i) for i, (key, rows) in enumerate(parts.items())} if "patches" in name else parts
        )
    rng = np.random.default_rng(seed)
    target = KNOWN[name]() if name in KNOWN else None
    draw = target.sample if target is not None else DRAWN[name]
    sizes = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    parts = {key: draw(rng, num) for key, num in sizes.items()}
    if target is not None:
        parts["truth"] = -np.mean(target.log_prob(parts["test"]))
    return parts


def dequantized(patches: np.ndarray, seed: int) -> np.ndarray:
    """Return grey patches as the literature has them: uniform noise, the mean taken out, one column dropped."""
    x = (patches + np.random.default_rng(seed).random(patches.shape)) / 256
    return (x - x.mean(axis=1, keepdims=True))[:, :-1]

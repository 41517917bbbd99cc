"""What liouville is measured beside on missing cells: imputers, a mixture under missing values, and columns alone.

Each is called with what the columns are, training rows (numbers, NaN where a cell is missing), whole test rows, which
cells of these are removed, how many draws, and a seed. It returns the log-probability of the removed cells of each row
given the others, or None, draws of shape ``(draws, rows, columns)``, and its settings in words.
"""

import math
import os
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mixed_columns import Axis, encode
from scipy.special import logsumexp
from sklearn.cluster import KMeans

from liouville.mixed import Column

# Added to variances of columns whose own is 1: as scikit-learn's mixtures do, and more, where far rows ask for it.
_LEAST_VARIANCES, _COMPONENTS = (1e-6, 1e-4), (1, 2, 4, 8, 16, 32)
_MOST_STEPS, _SMALLEST_GAIN, _HELD_OUT = 100, 1e-3, 0.1
# Points in the cell of a whole number, whose mean density is its mass.
_CELL_POINTS = 64
_MICE = Path(__file__).parent / "peers" / "mice_forest.py"


def independent(columns, train, test, removed, num_draws, seed):
    """Columns that know nothing of each other: what observed cells say nothing of."""
    rng, log_prob = np.random.default_rng(seed), np.zeros(len(test))
    encoded, drawn = encode(columns, test), np.repeat(test[None], num_draws, axis=0)
    for j, (column, values) in enumerate(zip(columns, encode(columns, train).T, strict=True)):
        axis, asked = Axis(column, values[~np.isnan(values)]), removed[:, j]
        log_prob[asked] += axis.log_prob(encoded[asked, j])
        step = column.step if column.kind == "whole" else 1.0
        drawn[:, asked, j] = step * axis.draw(rng, num_draws * asked.sum()).reshape(num_draws, -1)
    return log_prob, drawn, "kernels and shares, bandwidths by held-out rows"


def iterative_imputer(columns, train, test, removed, num_draws, seed):
    """scikit-learn's iterative imputer with posterior draws; levels are columns of zeros and ones to it."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    levels = [np.arange(column.levels) if column.kind == "code" else None for column in columns]

    def spread(rows):
        parts = [
            values[:, None] if level is None else np.where(np.isnan(values)[:, None], np.nan, values[:, None] == level)
            for values, level in zip(rows.T, levels, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    model = IterativeImputer(sample_posterior=True, random_state=seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(spread(train))
        gappy = spread(np.where(removed, np.nan, test))
        tables = [model.transform(gappy) for _ in range(num_draws)]
    drawn, start = np.repeat(test[None], num_draws, axis=0), 0
    for j, (column, level) in enumerate(zip(columns, levels, strict=True)):
        size = 1 if level is None else len(level)
        found = np.stack([table[:, start : start + size] for table in tables])
        values = found[..., 0] if level is None else found.argmax(-1)
        values = np.round(values / column.step) * column.step if column.kind == "whole" else values
        drawn[:, removed[:, j], j] = values[:, removed[:, j]]
        start += size
    kinds = sorted({warning.category.__name__ for warning in caught})
    return None, drawn, f"Bayesian ridge, {model.n_iter_} rounds; warnings: {', '.join(kinds) or 'none'}"


def forest(columns, train, test, removed, num_draws, seed, python):
    """Random forests by chained equations: miceforest with mean matching, in an environment of its own."""
    if python is None or not Path(python).exists():
        raise ImportError("no environment with miceforest; name its Python by --mice")
    is_code = np.array([column.kind == "code" for column in columns])
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "asked.npz"), Path(folder, "drawn.npz")
        gappy = np.where(removed, np.nan, test)
        np.savez(asked, train=train, test=gappy, is_code=is_code, num_draws=num_draws, seed=seed)
        command, env = [str(python), str(_MICE), str(asked), str(answer)], {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        if run.returncode:
            raise RuntimeError((run.stderr.strip().splitlines() or ["without a word"])[-1])
        with np.load(answer) as found:
            return None, np.where(removed, found["drawn"], test), str(found["said"])


class Cells(NamedTuple):
    """Rows as a mixture sees them: codes, and numbers on one scale; NaN where there is none."""

    codes: np.ndarray
    numbers: np.ndarray

    def take(self, index) -> "Cells":
        """Return some of the rows."""
        return Cells(self.codes[index], self.numbers[index])


class Scale:
    """How rows become cells: levels and atoms are codes, whole numbers are counted in steps, numbers standardized."""

    def __init__(self, columns: tuple[Column, ...], train: np.ndarray):
        self.columns = columns
        self.levels = [column.num_levels for column in columns if column.num_levels]
        self.of_numbers = [j for j, column in enumerate(columns) if column.kind != "code"]
        self.whole = np.array([columns[j].kind == "whole" for j in self.of_numbers], bool)
        self.loc, self.scale = np.zeros(len(self.of_numbers)), np.ones(len(self.of_numbers))
        numbers = self(train).numbers
        self.loc, self.scale = np.nanmean(numbers, axis=0), np.nanstd(numbers, axis=0)

    def __call__(self, rows: np.ndarray) -> Cells:
        codes, numbers = [], []
        for column, values in zip(self.columns, rows.T, strict=True):
            is_gap = np.isnan(values)
            if column.kind == "code":
                codes.append(values)
                continue
            if column.is_switched:
                atom = column.on_atoms(values)
                codes.append(np.where(is_gap, np.nan, np.where(atom.any(-1), 1 + atom.argmax(-1), 0)))
                is_gap = is_gap | atom.any(-1)
            if column.kind == "whole":
                values = column.counted(np.round(np.where(is_gap, 0.0, values) / column.step))
            numbers.append(np.where(is_gap, np.nan, values))
        stack = lambda parts: np.stack(parts, 1) if parts else np.zeros((len(rows), 0))
        return Cells(stack(codes), (stack(numbers) - self.loc) / self.scale)

    def spread(self, cells: Cells, rng: np.random.Generator) -> Cells:
        """Return rows whose whole numbers are anywhere in their cells."""
        noise = rng.uniform(-0.5, 0.5, cells.numbers.shape) / self.scale
        return cells._replace(numbers=cells.numbers + noise * self.whole)

    def rows(self, cells: Cells) -> np.ndarray:
        """Return the rows that cells without gaps are of."""
        numbers, codes = iter((cells.numbers * self.scale + self.loc).T), iter(cells.codes.T)
        found = []
        for column in self.columns:
            code = next(codes).astype(int) if column.num_levels else None
            if column.kind == "code":
                found.append(code)
                continue
            values = next(numbers)
            values = column.uncounted(np.round(values)) * column.step if column.kind == "whole" else values
            found.append(values if code is None else np.where(code == 0, values, np.append(0, column.atoms)[code]))
        return np.stack(found, 1)


class Pattern(NamedTuple):
    """Rows that have the same numbers, and for each component what these say of the others.

    Attributes
    ----------
    rows
        Which rows.
    log_joint
        Log-density of what is known and the component, of shape ``(components, rows)``.
    filled
        The numbers, those that are missing at their conditional means, ``(components, rows, numbers)``.
    left
        Conditional covariances of those that are missing, 0 elsewhere, ``(components, numbers, numbers)``.
    """

    rows: np.ndarray
    log_joint: np.ndarray
    filled: np.ndarray
    left: np.ndarray


class Mixture:
    """A mixture of Gaussians of all numbers times shares of codes, fitted by EM to the cells that there are.

    The numbers that a row lacks are integrated out of its likelihood, and expected, with their conditional covariance,
    in the next step's means and covariances (Ghahramani and Jordan, Supervised learning from incomplete data via an EM
    approach, 1994).
    """

    def __init__(self, levels: list[int], cells: Cells, size: int, least: float, seed: int):
        num, self.least = cells.numbers.shape[1], least
        count = [np.array([(cells.codes[:, j] == k).sum() for k in range(most)]) for j, most in enumerate(levels)]
        self.alone = [(each + 0.5) / (each + 0.5).sum() for each in count]
        self.log_weight, self.shares = np.zeros(1), [each[None] for each in self.alone]
        mean, variance = np.nanmean(cells.numbers, axis=0), np.nanvar(cells.numbers, axis=0)
        self.mean, self.cov = mean[None], (np.diag(variance) + self.least * np.eye(num))[None]
        self.improve(cells)
        if size > 1:
            filled = np.empty(cells.numbers.shape)
            for pattern in self.patterns(cells):
                filled[pattern.rows] = pattern.filled[0]
            label = KMeans(size, n_init=1, random_state=seed).fit(filled).labels_
            self._maximize(cells, np.eye(size)[label].T)
            self.improve(cells)

    def improve(self, cells: Cells) -> None:
        """Do steps of EM until they gain next to nothing."""
        before = -math.inf
        for _ in range(_MOST_STEPS):
            score = self._maximize(cells)
            if score - before < _SMALLEST_GAIN:
                return
            before = score

    def _maximize(self, cells: Cells, label: np.ndarray | None = None) -> float:
        """Do one step, by the posterior of components or by labels; return the mean log-likelihood before it."""
        size = len(self.log_weight) if label is None else len(label)
        num = cells.numbers.shape[1]
        weight, total = np.empty((size, len(cells.numbers))), 0.0
        first, second = np.zeros((size, num)), np.zeros((size, num, num))
        for pattern in self.patterns(cells):
            row_log = logsumexp(pattern.log_joint, axis=0)
            total += row_log.sum()
            now = np.exp(pattern.log_joint - row_log) if label is None else label[:, pattern.rows]
            weight[:, pattern.rows] = now
            weighed = now[..., None] * pattern.filled
            first += weighed.sum(1)
            second += np.swapaxes(weighed, 1, 2) @ np.broadcast_to(pattern.filled, weighed.shape)
            second += now.sum(1)[:, None, None] * pattern.left
        rows = weight.sum(1) + 1e-9
        self.log_weight = np.log(rows / rows.sum())
        self.mean = first / rows[:, None]
        outer = self.mean[:, :, None] * self.mean[:, None, :]
        self.cov = second / rows[:, None, None] - outer + self.least * np.eye(num)
        self.shares = []
        for codes, alone in zip(cells.codes.T, self.alone, strict=True):
            # One row more, laid out like the column alone.
            count = weight @ (codes[:, None] == np.arange(len(alone))) + alone
            self.shares.append(count / count.sum(1, keepdims=True))
        return total / len(cells.numbers)

    def patterns(self, cells: Cells):
        """Return rows by which numbers they have, with the log-densities of what is known."""
        num = cells.numbers.shape[1]
        known, place = np.unique(~np.isnan(cells.numbers), axis=0, return_inverse=True)
        order = np.argsort(place.ravel(), kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(place.ravel()))[:-1])
        of_codes = self.log_weight[:, None] + np.zeros(len(cells.numbers))
        for codes, shares in zip(cells.codes.T, self.shares, strict=True):
            is_there = ~np.isnan(codes)
            of_codes[:, is_there] += np.log(shares[:, codes[is_there].astype(int)])
        for mask, rows in zip(known, parts, strict=True):
            both = mask[:, None] & mask
            # Of numbers that are missing, the identity: it changes neither determinant nor distance.
            among = np.where(both, self.cov, np.eye(num))
            precision = np.where(both, np.linalg.inv(among), 0.0)
            gain = self.cov @ precision
            off = np.where(mask, np.nan_to_num(cells.numbers[rows]) - self.mean[:, None], 0.0)
            distance = np.sum(off @ precision * off, axis=-1)
            const = np.linalg.slogdet(among)[1] + mask.sum() * math.log(2 * math.pi)
            log_joint = of_codes[:, rows] - 0.5 * (distance + const[:, None])
            filled = np.where(mask, cells.numbers[rows], self.mean[:, None] + off @ np.swapaxes(gain, 1, 2))
            left = np.where(~mask[:, None] & ~mask, self.cov - gain @ self.cov, 0.0)
            yield Pattern(rows, log_joint, filled, left)

    def log_prob(self, cells: Cells) -> np.ndarray:
        """Return the log-density of what is known of each row."""
        found = np.empty(len(cells.numbers))
        for pattern in self.patterns(cells):
            found[pattern.rows] = logsumexp(pattern.log_joint, axis=0)
        return found

    def draw(self, cells: Cells, rng: np.random.Generator) -> Cells:
        """Return rows whose gaps are drawn given the rest."""
        codes, numbers = cells.codes.copy(), cells.numbers.copy()
        for pattern in self.patterns(cells):
            rows, num = pattern.rows, numbers.shape[1]
            component = np.argmax(pattern.log_joint + rng.gumbel(size=pattern.log_joint.shape), axis=0)
            root = np.linalg.cholesky(pattern.left + 1e-12 * np.eye(num))
            noise = (root[component] @ rng.normal(size=(len(rows), num, 1)))[..., 0]
            drawn = pattern.filled[component, np.arange(len(rows))] + noise
            numbers[rows] = np.where(np.isnan(cells.numbers[rows]), drawn, cells.numbers[rows])
            for j, shares in enumerate(self.shares):
                level = np.argmax(np.log(shares[component]) + rng.gumbel(size=(len(rows), shares.shape[1])), axis=1)
                codes[rows, j] = np.where(np.isnan(codes[rows, j]), level, codes[rows, j])
        return Cells(codes, numbers)


def mixture(columns, train, test, removed, num_draws, seed):
    """A Gaussian mixture's conditionals; how many components, the observed cells of a tenth of the rows say."""
    rng, scale = np.random.default_rng(seed), Scale(columns, train)
    cells = scale.spread(scale(train), rng)
    held = rng.random(len(train)) < _HELD_OUT
    best, chosen = -math.inf, None
    for least in _LEAST_VARIANCES:
        before = -math.inf
        for size in _COMPONENTS:
            model = Mixture(scale.levels, cells.take(~held), size, least, seed)
            score = model.log_prob(cells.take(held)).mean()
            if score > best:
                best, chosen = score, model
            if score < before:
                break
            before = score
    assert chosen is not None
    chosen.improve(cells)
    said = f"{len(chosen.log_weight)} components, variances + {chosen.least:g}, best on held-out cells"
    return (*_conditionals(chosen, scale, test, removed, num_draws, rng), said)


def _conditionals(model: Mixture, scale: Scale, test, removed, num_draws: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities of what is removed given the rest, and draws of it."""
    whole, given = scale(test), scale(np.where(removed, np.nan, test))
    points = _CELL_POINTS if scale.whole.any() else 1
    repeated = np.repeat(np.arange(len(test)), points)
    # The same points in the cells of both: what is given is a cell, too, where it is a whole number.
    spread = scale.spread(whole.take(repeated), rng)
    kept = Cells(given.codes[repeated], np.where(np.isnan(given.numbers[repeated]), np.nan, spread.numbers))
    both, below = (logsumexp(model.log_prob(cells).reshape(-1, points), axis=1) for cells in (spread, kept))
    asked = np.isnan(given.numbers) & ~np.isnan(whole.numbers)
    log_prob = both - below - asked @ np.log(scale.scale)
    repeated = np.tile(np.arange(len(test)), num_draws)
    drawn = scale.rows(_on_atoms(model, scale.spread(given.take(repeated), rng), given.take(repeated), rng))
    return log_prob, np.where(removed, drawn.reshape(num_draws, *test.shape), test)


def _on_atoms(model: Mixture, spread: Cells, given: Cells, rng: np.random.Generator) -> Cells:
    """Return draws of cells: the noise of whole numbers that are given says nothing of them."""
    drawn = model.draw(spread, rng)
    return drawn._replace(numbers=np.where(np.isnan(given.numbers), drawn.numbers, given.numbers))

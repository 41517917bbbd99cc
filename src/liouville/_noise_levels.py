"""How odd rows are to flows: how badly these predict the velocity of the paths to them, level of noise by level.

Between a draw ``x0`` of the base and a row ``x`` the point ``(1 - t) x0 + t x`` is the row behind noise of standard
deviation ``(1 - t) / t``. The mean squared error of the velocity there is, but for a factor of `t`, how fast the
divergence grows from the ball of such noise around the row to all rows behind it. No ODE is solved.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np

from ._types import Key, Rows
from .bijections import CNF, Standardize
from .distributions import Transformed
from .divergences import Exact
from .evaluation import path_errors
from .flows import FlowSpec, integrator_of
from .frames import Frame
from .mixed import MaskedNormal
from .objectives import FlowMatching
from .training import Budget, Options, Trainer, TrainingData
from .vector_fields import Masked

# Times of the paths that rows are judged at, in so many parts: noise of five to a quarter of a standard deviation.
EARLIEST, LATEST, LEVELS = 0.16, 0.8, 4
# Draws of noise of each row, for few columns and for many; pairs of a draw and its opposite.
DRAWS = (320, 80)
MANY_COLUMNS = 24
# Of fewer rows each is judged by a flow that has not seen it, of as many flows; of more, a part is held out.
FEWEST_HELD = 2000
FEW_ROWS, FOLDS_OF_FEW, FOLDS = 500, 5, 3
HELD, MOST_HELD = 0.1, 1000
# A column that repeats one value this often is no wider than so many units, however rare the others are.
REPEATED, WIDEST = 0.3, 6.0
# A value further out says no more than this.
FURTHEST = 1e4
# Beside its location, a column that varies less than this is constant.
_CONSTANT = 1e-9
# Squares of numbers beyond these are none.
_TINY, _HUGE = 1e-150, 1e150
# Errors and quartiles that are less are as good as none.
_LEAST_ERROR, _LEAST_SPREAD = 1e-12, 1e-6
# Quartiles of a normal variable are so many standard deviations apart.
_QUARTILES = 1.35
# Rows are learned from so many times more without cells; together these copies count as much as rows as they are.
_MASKED_COPIES = 4
# Rows with gaps are judged beside so many others without these cells, and beside no fewer, though some lack more.
_MOST_BESIDE, _FEWEST_BESIDE = 200, 50
_PATTERNS_AT_ONCE = 64


def steps_of(rows: int, columns: int) -> int:
    """Return how many steps a flow of so many rows and columns takes."""
    if rows < FEWEST_HELD:
        return 1500
    return 3000 if columns >= MANY_COLUMNS else 2500


def spec_of(columns: int, has_gaps: bool) -> FlowSpec:
    """Return the flow of so many columns, which is told a mask of what is known where there are gaps."""
    width, depth = (256, 2) if columns >= MANY_COLUMNS else (64, 3)
    return FlowSpec(columns, width=width, depth=depth, cond_shape=columns if has_gaps else None)


class Build(eqx.Module):
    """A flow of rows, or of rows with gaps under a mask of what is known: call it with a key to build it.

    Parameters
    ----------
    spec
        The flow by numbers.
    """

    spec: FlowSpec

    def __call__(self, key: Key) -> Transformed:
        """Build the flow, with weights drawn from `key`."""
        spec = self.spec
        if spec.cond_shape is None:
            return spec(key)
        integrator = integrator_of(spec.solver, spec.rtol, spec.atol)
        field = Masked(spec.make_field(spec.shape, key))
        return Transformed(MaskedNormal(spec.shape, spec.cond_shape), CNF(field, Exact(), integrator))


def parts_of(index: np.ndarray, distinct: np.ndarray) -> list[np.ndarray]:
    """Return the numbers of the rows that each of several flows does not see: one part, or all rows in several.

    Parameters
    ----------
    index, distinct
        Numbers of the rows in a random order, and how many distinct ones stand before each (`in_random_order`).
    """
    num = int(distinct[-1]) + 1
    if num >= FEWEST_HELD:
        return [index[distinct < min(int(HELD * num), MOST_HELD)]]
    folds = min(FOLDS_OF_FEW if num < FEW_ROWS else FOLDS, num)
    return [index[distinct % folds == fold] for fold in range(folds)]


def fit_frame(rows: Rows, weight: np.ndarray) -> tuple[Frame, np.ndarray]:
    """Return the frame of standardized columns, and which are constant: these stay in their own unit."""
    loc, scale = np.transpose([_scale_of(column[~np.isnan(column)], weight[~np.isnan(column)]) for column in rows.T])
    is_constant = ~(scale > _CONSTANT * np.abs(loc))
    return Frame((rows.shape[1],), (Standardize(loc, np.where(is_constant, 1.0, scale)),)), is_constant


def _scale_of(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return location and scale of a column: its deviation, or, where it repeats a value, no less than of its range."""
    most = float(np.max(np.abs(values)))
    unit = most if most and not _TINY < most < _HUGE else 1.0
    values = values / unit
    loc = float(np.average(values, weights=weight))
    scale = math.sqrt(np.average((values - loc) ** 2, weights=weight))
    counts = np.bincount(np.unique(values, return_inverse=True)[1], weight)
    if counts.max() > REPEATED * weight.sum():
        scale = max(scale, float(np.ptp(values)) / WIDEST)
    return loc * unit, scale * unit


def train(
    points: Rows, weight: np.ndarray, build: Build, budget: Budget, seed: int, watch: Callable = lambda trainer, n: None
) -> tuple[Transformed, int]:
    """Return a flow of points, NaN for what is not known, and its steps.

    It is trained by flow matching, and has the average of the weights at its end.
    """
    options = Options(2e-3 if points.shape[1] >= MANY_COLUMNS else 5e-3, batch_size=256)
    if build.spec.cond_shape is None:
        data = TrainingData.pad(points, weight)
    else:
        known, weight = _with_masks(~np.isnan(points), weight, seed)
        copies = np.tile(np.nan_to_num(points), (1 + _MASKED_COPIES, 1))
        data = TrainingData.pad(copies * known, weight, known.astype(float))
    # Nothing is chosen by a validation.
    none = lambda flow: np.zeros(1)
    trainer = Trainer(build, FlowMatching(), data, none, options=options, budget=budget, seed=seed, watch=watch)
    trainer.train_to(1.0)
    return trainer.flow(trainer.state.average), int(trainer.state.step)


def _with_masks(known: np.ndarray, weight: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what is known of rows as they are and of copies, and their weights.

    Copies lack what another row lacks, too, and every other one any share of what is left.
    """
    rng, masks = np.random.default_rng(seed), [known]
    for copy in range(_MASKED_COPIES):
        share = rng.random((len(known), 1)) if copy % 2 else 1.0
        masks.append(known & known[rng.permutation(len(known))] & (rng.random(known.shape) <= share))
    return np.concatenate(masks), np.concatenate([weight, *[weight / _MASKED_COPIES] * _MASKED_COPIES])


class NoiseLevels(eqx.Module):
    """Flows, and rows that they have not seen, by which others are judged.

    Parameters
    ----------
    frame
        What is done to rows first.
    is_constant
        Which columns do not vary: they need no network, since their field is known, ``-x / (1 - t)``.
    flows
        Flows of the other columns; none where there are none.
    center, spread
        Medians and quartiles of the rows that were not trained on, at each level.
    calibration
        What `score` is of these rows.
    rows, fold
        These rows as points, and which flow has not seen each, where flows are told what is known; else none.
    """

    frame: Frame
    is_constant: np.ndarray
    flows: tuple[Transformed, ...]
    center: np.ndarray
    spread: np.ndarray
    calibration: np.ndarray
    rows: np.ndarray
    fold: np.ndarray

    @staticmethod
    def fit(rows: Rows, weight: np.ndarray, parts: list[np.ndarray], learn: Callable) -> "NoiseLevels":
        """Return what is learned of rows outside of each part, and by the rows in it.

        Parameters
        ----------
        rows, weight
            The table, NaN for gaps, and how much each row counts.
        parts
            Numbers of the rows that each flow does not see.
        learn
            ``learn(points, weight, k)`` returns a flow of the points outside of part `k`.
        """
        frame, is_constant = fit_frame(rows, weight)
        start = NoiseLevels(frame, is_constant, (), *[np.zeros(0)] * 5)
        whole = start._encode(rows)
        points, off = start._split(whole)
        flows, levels = [], []
        for k, part in enumerate(parts):
            flow = learn(np.delete(points, part, axis=0), np.delete(weight, part), k) if points.shape[1] else None
            flows.append(flow)
            levels.append(_log_errors(flow, points[part], off[part]))
        levels, unseen = np.concatenate(levels), np.concatenate(parts)
        units = _units_of(levels)
        learned = tuple(flow for flow in flows if flow is not None)
        found = NoiseLevels(frame, is_constant, learned, *units, _judge(levels, *units), *[np.zeros(0)] * 2)
        if not learned or learned[0].cond_shape is None:
            return found
        # In the order of the table: some of them are rows of all parts.
        fold, order = np.repeat(np.arange(len(parts)), [len(part) for part in parts]), np.argsort(unseen)
        levels_of_rows = (found.calibration[order], whole[unseen][order], fold[order])
        return NoiseLevels(frame, is_constant, learned, *units, *levels_of_rows)

    @staticmethod
    def any(spec: FlowSpec | None, columns: int, num: int, rows: int) -> "NoiseLevels":
        """Return one of `num` flows that is fitted to any rows: the numbers of one from a file take its own's place."""
        frame = Frame((columns,), (Standardize(np.zeros(columns), np.ones(columns)),))
        flows = () if spec is None else (eqx.filter_eval_shape(Build(spec), jax.random.key(0)),) * num
        has_gaps = spec is not None and spec.cond_shape is not None
        of_gaps = (np.zeros((rows, columns)), np.zeros(rows, int)) if has_gaps else (np.zeros(0), np.zeros(0))
        units = np.zeros(LEVELS), np.ones(LEVELS), np.zeros(rows)
        return NoiseLevels(frame, np.zeros(columns, bool), flows, *units, *of_gaps)

    @property
    def knows_gaps(self) -> bool:
        """Return True where rows may have gaps."""
        return len(self.fold) > 0 or not self.flows

    def score(self, rows: Rows) -> np.ndarray:
        """Return minus how many quartiles' spreads rows are beyond the median, where they are oddest.

        Where there are gaps, a row is judged beside rows without the cells that it lacks, and its score is the one that
        has, among all rows, the rank that it has among these.
        """
        whole = self._encode(rows)
        points, off = self._split(whole)
        levels = np.mean([_log_errors(flow, points, off) for flow in self.flows or (None,)], axis=0)
        if len(self.fold):
            return self._by_pattern(levels, whole)
        return _judge(levels, self.center, self.spread)

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """Return the share, with the row itself, of rows not trained on that are no less odd."""
        no_better = np.searchsorted(np.sort(self.calibration), scores, side="right")
        return (1 + no_better) / (len(self.calibration) + 1)

    def _encode(self, rows: Rows) -> np.ndarray:
        # What overflows is far out, however far.
        with np.errstate(over="ignore"):
            return np.clip(self.frame.encode(np.asarray(rows, np.float64))[0], -FURTHEST, FURTHEST)

    def _split(self, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns that vary, and how far, squared, rows are off the others."""
        return whole[:, ~self.is_constant], np.nansum(whole[:, self.is_constant] ** 2, axis=1)

    def _by_pattern(self, levels: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Return the scores of rows, NaN where cells are not known."""
        patterns, pattern_of = np.unique(~np.isnan(whole), axis=0, return_inverse=True)
        pattern_of, scores = pattern_of.reshape(-1), np.empty(len(levels))
        for start in range(0, len(patterns), _PATTERNS_AT_ONCE):
            some = patterns[start : start + _PATTERNS_AT_ONCE]
            chosen = [self._beside(pattern) for pattern in some]
            beside = self._levels_without(np.concatenate(chosen), np.repeat(some, list(map(len, chosen)), axis=0))
            parts = np.split(beside, np.cumsum(list(map(len, chosen)))[:-1])
            for pattern, numbers, part, number in zip(some, chosen, parts, range(start, len(patterns)), strict=False):
                own, units = pattern_of == number, _units_of(part)
                judged, beside = _judge(levels[own], *units), _judge(part, *units)
                # Several flows judge a row, one of them each beside it: of equal rows, as of levels, none is better.
                judged = np.maximum(
                    judged, _best_of_equal(whole[own][:, pattern], self.rows[numbers][:, pattern], beside)
                )
                scores[own] = _same_rank(judged, beside, self.calibration)
        return scores

    def _beside(self, pattern: np.ndarray) -> np.ndarray:
        """Return the numbers of the rows that know these cells, or, where they are few, of those that lack fewest."""
        lacks = np.count_nonzero(pattern & np.isnan(self.rows), axis=1)
        # Some of all rows, not the first of a table that may be sorted.
        order = np.random.default_rng(0).permutation(len(lacks))
        order = order[np.argsort(lacks[order], kind="stable")]
        return order[: min(_MOST_BESIDE, max(_FEWEST_BESIDE, np.count_nonzero(lacks == 0)))]

    def _levels_without(self, numbers: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return the log-errors of rows that were not trained on, where at most these cells are known."""
        points, off = self._split(np.where(known, self.rows[numbers], np.nan))
        levels, fold = np.empty((len(numbers), LEVELS)), self.fold[numbers]
        for k, flow in enumerate(self.flows):
            if (own := fold == k).any():
                levels[own] = _log_errors(flow, points[own], off[own])
        return levels


def _log_errors(flow: Transformed | None, points: Rows, off: np.ndarray) -> np.ndarray:
    """Return logs of the mean squared error at each level, (n, LEVELS), over the cells that are there.

    `off` is how far, squared, a row is off the constant columns: their error is ``off / (1 - t)^2``. All rows share
    their draws.
    """
    columns = points.shape[1]
    num = DRAWS[columns >= MANY_COLUMNS]
    times = (EARLIEST + (np.arange(num) + 0.5) / num * (LATEST - EARLIEST)).astype(np.float32)
    errors = off[:, None] * (1 / (1 - times.astype(np.float64)) ** 2).reshape(LEVELS, -1).mean(axis=1)
    if flow is not None:
        x0 = np.random.default_rng(0).normal(size=(num // 2, columns))
        x0 = np.stack([x0, -x0], axis=1).reshape(num, columns)
        condition = None if flow.cond_shape is None else (~np.isnan(points)).astype(float)
        errors = errors + path_errors(flow, np.nan_to_num(points), x0, times, LEVELS, condition)
    return np.log(np.maximum(errors, _LEAST_ERROR))


def _units_of(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return medians, and spreads by quartiles: among few rows a single odd one would widen a deviation."""
    low, center, high = np.quantile(levels, [0.25, 0.5, 0.75], axis=0)
    return center, np.maximum((high - low) / _QUARTILES, _LEAST_SPREAD)


def _judge(levels: np.ndarray, center: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return -np.max((levels - center) / spread, axis=1)


def _best_of_equal(rows: np.ndarray, others: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the highest of the scores of those others that are equal to each row, -inf where none is."""
    place = np.unique(np.concatenate([rows, others]), axis=0, return_inverse=True)[1].reshape(-1)
    best = np.full(len(place), -np.inf)
    np.maximum.at(best, place[len(rows) :], scores)
    return best[place[: len(rows)]]


def _same_rank(scores: np.ndarray, beside: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Return the scores that have among `calibration` the ranks that these have `beside` others; beyond, as far out."""
    beside = np.sort(beside)
    ranked = np.quantile(calibration, np.linspace(0, 1, len(beside)))
    # Of equal ones the last: a row is as odd as those that are no better.
    different = np.unique(beside)
    within = np.interp(scores, different, ranked[np.searchsorted(beside, different, side="right") - 1])
    return within + np.minimum(scores - beside[0], 0) + np.maximum(scores - beside[-1], 0)

"""Rows to train on and rows to choose by: equal rows go to one side, and near copies are told."""

import dataclasses
import os
import time
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias, cast

import numpy as np
from sklearn.neighbors import NearestNeighbors

from ._conditions import Conditions
from ._copies import first_copies
from ._training_data import StreamedData, TrainingData
from ._types import Key, Rows
from .dequantization import UniformDequantization
from .flows import FramedFlow, MixedSpec
from .frames import AbstractFrame, fit_pictures, fit_table
from .front import fit_front
from .mixed import (
    Column,
    Questions,
    SubsetsObjective,
    are_densities,
    draw_validation,
    edges_of,
    fit_mixed,
    mixture_of,
)

Build: TypeAlias = Callable[[Key], Any]
# On fewer rows nothing can be held out, and a flow would learn the rows by heart.
FEWEST_ROWS = 8
# Near copies are looked for among so many rows, each beside so many neighbours.
MOST_HELD_OUT, MOST_TRAINED, NEIGHBOURS = 256, 100_000, 64
# A row has a near copy where the gap behind its nearest neighbours is so wide, which is so for one row in a hundred of
# an even table of one column, and for fewer in more columns. So large a share of the rows is no chance.
GAP, SHARE, FEWEST_COPIES = 100, 0.1, 5
# Pictures of more bytes than this stay in their file, and are on the device a part at a time.
MOST_ON_DEVICE = 2**30
# Closed forms are fitted to no more pictures than this.
MOST_FITTED = 60_000
# Of the time until a deadline.
FITTING_SHARE = 0.05
# Of the time until a deadline, for trees in front of a target.
FRONT_SHARE = 0.2
# So many rows choose between kinds of targets' laws, where there are few: a quarter of them.
_LEAST_CHOSEN = 300
# What stands before the kind of preprocessing of a number behind trees.
TREES = "trees"


class Prepared(NamedTuple):
    """What a training needs of a kind of preprocessing.

    Attributes
    ----------
    frame
        What is done to data.
    data
        What is trained on, in its coordinates.
    build
        What builds the core.
    questions
        What choices are made by: points, what they are conditioned on, and what their log-probabilities are changed by.
        None are the rows that are held out.
    weighed_by
        Questions by which a flow, and what stands beside it, are weighed; None where nothing does.
    conditions
        What rows are to targets that are conditioned on them, or None.
    given
        What the rows that are held out are conditioned on, or None.
    """

    frame: AbstractFrame
    data: TrainingData | StreamedData
    build: Build
    questions: Questions | None = None
    weighed_by: Questions | None = None
    conditions: Conditions | None = None
    given: np.ndarray | None = None


@dataclasses.dataclass
class Split:
    """A table in two parts: rows to train on, and rows to choose by; weights are shares of the table's."""

    rows: Rows
    weight: np.ndarray
    validation_rows: Rows
    validation_weight: np.ndarray
    columns: tuple[Column, ...] = ()

    @property
    def is_small(self) -> bool:
        """Return True where a flow would learn the rows by heart."""
        return len(self.rows) < FEWEST_ROWS

    def fit_frame(self, preprocess: str, plan: Any, seed: int, deadline: float | None) -> Prepared:
        """Fit the frame of a kind; a small share of the time until a deadline may go into that."""
        if are_densities(self.columns) and not plan.of_subsets:
            frame, points = fit_table(preprocess, self.rows, self.weight, edges_of(self.columns))
            return Prepared(frame, TrainingData.pad(points, self.weight), plan.flow)
        frame, points = fit_mixed(preprocess, self.rows, self.weight, self.columns, by_column=plan.of_subsets)
        if not plan.of_subsets:
            build = MixedSpec.fit(plan.flow, frame, points, self.weight)
            return Prepared(frame, TrainingData.pad(points, self.weight), build)
        # Copies of a row, whose gaps are filled, are of one fold.
        folds = np.arange(len(points)) % (len(points) // max(plan.num_fills, 1)) % 2
        now = time.perf_counter()
        until = None if deadline is None else now + FITTING_SHARE * (deadline - now)
        mixture = mixture_of(frame, points, self.weight, folds, until)
        build = MixedSpec.fit(plan.flow, frame, points, self.weight, True, mixture)
        asked = lambda share: draw_validation(frame, self.validation_rows, seed, share)
        weighed_by = asked(cast(SubsetsObjective, plan.objective).share)
        # What is never asked for all of a row at once is chosen by what it is asked for; in one program, all of them.
        questions = weighed_by if plan.of_questions else asked(1.0)
        return Prepared(frame, TrainingData.pad(points, self.weight, folds[:, None]), build, questions, weighed_by)


@dataclasses.dataclass
class ConditionalSplit:
    """Rows with targets behind them: those to train on, and those to choose by, by their numbers.

    `given_columns` are the rows', `columns` the targets'; weights are shares of all rows'. Where it `drops`, as many
    rows as there are, without cells that are drawn at random, are learned from, too: any cell may then be missing.
    """

    table: Rows
    mass: np.ndarray
    train: np.ndarray
    chosen: np.ndarray
    columns: tuple[Column, ...]
    given_columns: tuple[Column, ...]
    drops: bool = False

    @property
    def is_small(self) -> bool:
        """Return True where a flow would learn the rows by heart."""
        return len(self.train) < FEWEST_ROWS

    @property
    def validation_rows(self) -> Rows:
        """The rows to choose by."""
        return self.table[self.chosen]

    @property
    def validation_weight(self) -> np.ndarray:
        """Their weights."""
        return scaled(self.mass[self.chosen])

    def fit_frame(self, preprocess: str, plan: Any, seed: int, deadline: float | None) -> Prepared:
        """Fit the frame of the targets, of one number behind trees where the kind says so.

        Trees are fitted to all rows: each is described by those that have not seen it.
        """
        *fronts, preprocess = preprocess.split()
        x, y = np.split(self.table, [len(self.given_columns)], axis=1)
        mass, train = self.mass, self.train
        if self.drops:
            x, y, mass = np.concatenate([x, without_some(x, seed)]), np.tile(y, (2, 1)), np.tile(mass, 2)
            train = np.concatenate([train, len(self.table) + train])
        fitting: dict[str, Any] = {"threads": threads_of_machine(), "copies": 1 + self.drops}
        if deadline is not None:
            now = time.perf_counter()
            fitting["until"] = now + FRONT_SHARE * (deadline - now)
        found = fit_front(x, y[:, 0], mass, seed, **fitting) if fronts else None
        conditions, told = Conditions.fit(x, mass, self.given_columns, self.columns, plan.has_fronts, found)
        (learned, of_front), weight = told.inwards(y), scaled(mass[train])
        frame, points = fit_mixed(preprocess, learned[train], weight, self.columns)
        build = MixedSpec.fit(plan.flow, frame, points, weight, given=conditions.given.sizes)
        held_out, change = frame.encode(learned[self.chosen])
        questions = Questions(held_out, told.condition[self.chosen], change + of_front[self.chosen])
        data = TrainingData.pad(points, weight, told.condition[train])
        return Prepared(frame, data, build, questions, conditions=conditions)


def without_some(rows: Rows, seed: int) -> Rows:
    """Return rows without some of their cells, of each another share."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(rows.shape) < rng.random((len(rows), 1)), np.nan, rows)


def threads_of_machine() -> int:
    """Return how many threads this process may run at a time."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@dataclasses.dataclass
class PictureSplit:
    """Pictures in two parts, by their numbers; those to train on in random order, so that they may stay in their file.

    `mass` is that of the pictures to choose by, `condition` what each picture is conditioned on, or None.
    """

    pixels: np.ndarray
    weight: np.ndarray
    train: np.ndarray
    chosen: np.ndarray
    mass: np.ndarray
    levels: int
    condition: np.ndarray | None = None
    # Noise makes of each picture many: few are not learned by heart.
    is_small: ClassVar[bool] = False

    @property
    def validation_rows(self) -> np.ndarray:
        """The pictures to choose by."""
        return self.pixels[self.chosen]

    @property
    def validation_weight(self) -> np.ndarray:
        """Their weights."""
        return scaled(self.mass)

    def fit_frame(self, preprocess: str, plan: Any, seed: int, deadline: float | None) -> Prepared:
        """Fit the frame of a kind; pictures are all on the device, or a part at a time."""
        train, size = np.sort(self.train), self.pixels[0].size
        some = np.sort(self.train[:MOST_FITTED])
        frame = fit_pictures(preprocess, self.pixels[some], self.weight[some], self.levels, UniformDequantization())
        build = FramedFlow(plan.flow, frame, plan.noise)
        given = None if self.condition is None else self.condition[self.chosen]
        if len(train) * size <= MOST_ON_DEVICE:
            condition = None if self.condition is None else self.condition[train]
            return Prepared(
                frame, TrainingData.pad(self.pixels[train], self.weight[train], condition), build, given=given
            )
        stream = {"batch_size": plan.options.batch_size, "part_rows": MOST_ON_DEVICE // size // 2, "seed": seed}
        data = StreamedData(self.pixels, train, self.weight[train], **stream, conditions=self.condition)
        return Prepared(frame, data, build, given=given)


AnySplit: TypeAlias = Split | ConditionalSplit | PictureSplit


def split_rows(
    rows: Rows, weight: np.ndarray, fraction: float, most: int, seed: int, columns: tuple[Column, ...] = ()
) -> Split:
    """Split distinct rows at random into those to train on and at most `most` to choose by (`hold_out`)."""
    train, chosen = hold_out(weight, fraction, most, seed, rows.shape[1])
    _look_for_copies(rows, train, chosen, columns)
    return Split(rows[train], scaled(weight[train]), rows[chosen], scaled(weight[chosen]), columns)


def split_conditional(
    rows: Rows,
    weight: np.ndarray,
    fraction: float,
    most: int,
    seed: int,
    columns: tuple[Column, ...],
    targets: tuple[Column, ...],
    drops: bool,
) -> ConditionalSplit:
    """Split rows of some columns, with targets behind them, likewise."""
    train, chosen = hold_out(weight, fraction, most, seed, len(targets), _LEAST_CHOSEN)
    _look_for_copies(rows, train, chosen, columns + targets)
    return ConditionalSplit(rows, weight / weight.mean(), train, chosen, targets, columns, drops)


def hold_out(
    weight: np.ndarray, fraction: float, most: int, seed: int, fewest: int, least: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of rows to train on and of at most `most` rows to choose by, drawn at random.

    Of few rows `least` are held out, or a quarter. Rows of weight 0 are left out. Without a fraction, on fewer than
    `FEWEST_ROWS`, and where no more than `fewest` would be left to train on, choices are made by the rows that are
    trained on.
    """
    kept = np.flatnonzero(weight)
    order = kept[np.random.default_rng(seed).permutation(len(kept))]
    num = min(most, max(int(fraction * len(order)), min(least, len(order) // 4)))
    if fraction == 0 or len(order) < FEWEST_ROWS or len(order) - num <= fewest:
        return order, order[:most]
    return order[num:], order[:num]


def scaled(weight: np.ndarray) -> np.ndarray:
    """Return weights with a mean of 1."""
    return weight / weight.mean()


def _look_for_copies(rows: Rows, train: np.ndarray, chosen: np.ndarray, columns: tuple[Column, ...]) -> None:
    """Warn of near copies among others; how near rows are says nothing where columns hold few values, or none."""
    if not np.isin(chosen[:1], train).any() and are_densities(columns) and not np.isnan(rows).any():
        warn_of_near_copies(rows[train], rows[chosen])


def split_pictures(
    pixels: np.ndarray, weight: np.ndarray, size: int, levels: int, seed: int, condition: np.ndarray | None = None
) -> PictureSplit:
    """Hold out at random `size` distinct pictures, at most a tenth, to choose by.

    Pictures of weight 0 are left out. Of very few none is held out: choices are made by those that are trained on. A
    picture that is held out has no copy among the others, which come in random order, their further copies last. Copies
    under several conditions are held out together, each under its own.
    """
    first, copy_of = first_copies(pixels)
    mass = np.bincount(copy_of, weight)
    order = np.flatnonzero(mass)
    order = order[np.random.default_rng(seed).permutation(len(order))]
    held = min(size, len(order) // 10)
    trained = np.zeros(len(first), bool)
    trained[order[held:]] = True
    further = trained[copy_of] & (weight > 0)
    further[first] = False
    train = np.concatenate([first[order[held:]], np.flatnonzero(further)])
    chosen = np.sort(order[: held or size])
    if condition is None:
        return PictureSplit(pixels, weight, train, first[chosen], mass[chosen], levels)
    told = np.flatnonzero(np.isin(copy_of, chosen) & (weight > 0))
    one, copy_of = first_copies(np.column_stack([copy_of[told], condition[told]]))
    return PictureSplit(pixels, weight, train, told[one], np.bincount(copy_of, weight[told]), levels, condition)


def warn_of_near_copies(train: Rows, held_out: Rows) -> None:
    """Warn where many held-out rows lie far nearer to training rows than rows lie to each other."""
    share = near_copies(train[:MOST_TRAINED], held_out[:MOST_HELD_OUT])
    if share > 0:
        warnings.warn(
            f"Expected rows that are no copies of each other, got near copies: {share:.0%} of the rows that are held "
            "out all but equal rows that are trained on. The likelihood by which choices are made is then too good; "
            "try leaving out near copies, or weights of rows instead.",
            UserWarning,
            stacklevel=8,
        )


def near_copies(train: Rows, held_out: Rows) -> float:
    """Return the share of held-out rows with near copies among the others; 0 where they are no more than chance."""
    if len(train) < 3:
        return 0.0
    loc, scale = train.mean(axis=0), train.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train))).fit((train - loc) / scale)
    distance, _ = neighbours.kneighbors((held_out - loc) / scale)
    # A distance of 0 is kept above it, so that the gap behind it is a ratio.
    distance = np.maximum(distance, 1e-300)
    has_copy = np.any(distance[:, 1:] > GAP * distance[:, :-1], axis=1)
    enough = has_copy.sum() >= FEWEST_COPIES and has_copy.mean() > SHARE
    return float(has_copy.mean()) if enough else 0.0

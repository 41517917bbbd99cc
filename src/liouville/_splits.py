"""Rows to train on and rows to choose by: equal rows go to one side, and near copies are told."""

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy as np
from sklearn.neighbors import NearestNeighbors

from ._copies import first_copies
from ._training_data import StreamedData, TrainingData
from ._types import Key, Rows
from .dequantization import UniformDequantization
from .flows import FramedFlow, MixedSpec
from .frames import AbstractFrame, Frame, fit_pictures, fit_table
from .mixed import Column, are_densities, edges_of, fit_mixed, mixture_of

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

    def fit_frame(
        self, preprocess: str, plan: Any, seed: int, deadline: float | None
    ) -> tuple[AbstractFrame, TrainingData, Build]:
        """Fit the frame of a kind; return it, what is trained on in its coordinates, and what builds the core.

        A small share of the time until a deadline may go into that.
        """
        if are_densities(self.columns) and not plan.of_subsets:
            frame, points = fit_table(preprocess, self.rows, self.weight, edges_of(self.columns))
            return frame, TrainingData.pad(points, self.weight), plan.flow
        frame, points = fit_mixed(preprocess, self.rows, self.weight, self.columns, by_column=plan.of_subsets)
        if not plan.of_subsets:
            return frame, TrainingData.pad(points, self.weight), MixedSpec.fit(plan.flow, frame, points, self.weight)
        # Copies of a row, whose gaps are filled, are of one fold.
        folds = np.arange(len(points)) % (len(points) // max(plan.num_fills, 1)) % 2
        now = time.perf_counter()
        until = None if deadline is None else now + FITTING_SHARE * (deadline - now)
        mixture = mixture_of(frame, points, self.weight, folds, until)
        build = MixedSpec.fit(plan.flow, frame, points, self.weight, True, mixture)
        return frame, TrainingData.pad(points, self.weight, folds[:, None]), build


@dataclasses.dataclass
class PictureSplit:
    """Pictures in two parts; those to train on are numbers in a random order, so that they may stay in their file."""

    pixels: np.ndarray
    weight: np.ndarray
    train: np.ndarray
    validation_rows: np.ndarray
    validation_weight: np.ndarray
    levels: int
    # Noise makes of each picture many: few are not learned by heart.
    is_small: ClassVar[bool] = False

    def fit_frame(
        self, preprocess: str, plan: Any, seed: int, deadline: float | None
    ) -> tuple[Frame, TrainingData | StreamedData, Build]:
        """Fit the frame of a kind; return it, pictures to draw from, and what builds the density.

        Pictures are all on the device, or a part at a time.
        """
        train, size = np.sort(self.train), self.pixels[0].size
        some = np.sort(self.train[:MOST_FITTED])
        frame = fit_pictures(preprocess, self.pixels[some], self.weight[some], self.levels, UniformDequantization())
        build = FramedFlow(plan.flow, frame, plan.noise)
        if len(train) * size <= MOST_ON_DEVICE:
            return frame, TrainingData.pad(self.pixels[train], self.weight[train]), build
        stream = {"batch_size": plan.options.batch_size, "part_rows": MOST_ON_DEVICE // size // 2, "seed": seed}
        return frame, StreamedData(self.pixels, train, self.weight[train], **stream), build


def split_rows(
    rows: Rows,
    weight: np.ndarray,
    fraction: float,
    most: int,
    seed: int,
    columns: tuple[Column, ...] = (),
) -> Split:
    """Split distinct rows at random into those to train on and at most `most` to choose by.

    Rows of weight 0 are left out; weights are scaled to a mean of 1 in each part. Without a fraction,
    and on fewer than `FEWEST_ROWS`, choices are made by the rows that are trained on.
    """
    kept = np.flatnonzero(weight)
    order = kept[np.random.default_rng(seed).permutation(len(kept))]
    num = min(most, max(int(fraction * len(order)), min(100, len(order) // 4)))
    if fraction == 0 or len(order) < FEWEST_ROWS or len(order) - num <= rows.shape[1]:
        train, chosen = order, order[:most]
    else:
        train, chosen = order[num:], order[:num]
        # How near rows are says nothing where columns hold few values, or none.
        if are_densities(columns) and not np.isnan(rows).any():
            warn_of_near_copies(rows[train], rows[chosen])
    scaled = lambda index: weight[index] / weight[index].mean()
    return Split(rows[train], scaled(train), rows[chosen], scaled(chosen), columns)


def split_pictures(pixels: np.ndarray, weight: np.ndarray, size: int, levels: int, seed: int) -> PictureSplit:
    """Hold out at random `size` distinct pictures, at most a tenth, to choose by.

    Pictures of weight 0 are left out. Of very few none is held out: choices are made by those that are trained on. A
    picture that is held out has no copy among the others, which come in random order, their further copies last.
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
    return PictureSplit(pixels, weight, train, pixels[first[chosen]], mass[chosen] / mass[chosen].mean(), levels)


def warn_of_near_copies(train: Rows, held_out: Rows) -> None:
    """Warn where many held-out rows lie far nearer to training rows than rows lie to each other."""
    share = near_copies(train[:MOST_TRAINED], held_out[:MOST_HELD_OUT])
    if share > 0:
        warnings.warn(
            f"Expected rows that are no copies of each other, got near copies: {share:.0%} of the rows that are held "
            "out all but equal rows that are trained on. The likelihood by which choices are made is then too good; "
            "try leaving out near copies, or weights of rows instead.",
            UserWarning,
            stacklevel=7,
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

"""What rows are to targets that are conditioned on them."""

from typing import NamedTuple

import equinox as eqx
import numpy as np

from ._types import FixedMixin, Rows
from .front import FittedFront, Front, from_normal, to_normal
from .mixed import Column, GivenRows


class Told(NamedTuple):
    """What rows say of their targets.

    Attributes
    ----------
    condition
        What a `liouville.mixed.Mixed` is conditioned on, of shape ``(n, *cond_shape)``.
    location, scale
        Of a target, by trees; 0 and 1 where there are none.
    tail
        Degrees of freedom of the law of distances in these units, or None.
    """

    condition: np.ndarray
    location: np.ndarray
    scale: np.ndarray
    tail: np.ndarray | None = None

    def inwards(self, targets: Rows) -> tuple[Rows, np.ndarray]:
        """Return targets as they are learned, and what is to be added to their log-density, in nats."""
        if self.tail is None:
            return targets, np.zeros(len(targets))
        learned, change = to_normal((targets - self.location[:, None]) / self.scale[:, None], self.tail)
        return learned, change[:, 0] - np.log(self.scale)

    def outwards(self, learned: np.ndarray) -> np.ndarray:
        """Return what is learned in the units of the data, of shape ``(..., n, k)``: the inverse of `inwards`."""
        if self.tail is None:
            return learned
        return self.location[:, None] + self.scale[:, None] * from_normal(learned, self.tail)

    def some(self, chosen) -> "Told":
        """Return what some of the rows say."""
        return Told(self.condition[chosen], self.location[chosen], self.scale[chosen], self.tail)


class Conditions(FixedMixin, eqx.Module):
    """Rows as conditions, and trees in front of one number.

    Parameters
    ----------
    given
        What the rows are, and behind them, where trees might be, what trees say of them.
    front
        The trees, or None.
    """

    given: GivenRows
    front: Front | None

    @staticmethod
    def fit(
        rows: Rows, weight: np.ndarray, columns: tuple[Column, ...], has_fronts: bool, found: FittedFront | None
    ) -> tuple["Conditions", Told]:
        """Return what rows of a fit are, and what these say: of trees, of those that have not seen them."""
        told = _plain(rows) if found is None else Told(rows, found.location, found.scale, found.front.tail)
        # Where trees might stand, conditions are of one shape with and without them: one program for both.
        beside = _beside(told) if has_fronts else rows
        given = GivenRows.fit(beside, weight, _with_trees(columns, has_fronts))
        conditions = Conditions(given, None if found is None else found.front)
        return conditions, told._replace(condition=given.encode(beside))

    @staticmethod
    def any(columns: tuple[Column, ...], has_fronts: bool, trees: list | None) -> "Conditions":
        """Return conditions that are fitted to any rows: the numbers of a file take the place of their own."""
        given = GivenRows.any(_with_trees(columns, has_fronts))
        return Conditions(given, None if trees is None else Front.of_sizes(trees))

    def __call__(self, rows: Rows) -> Told:
        """Return what rows say, of numbers, codes as numbers, NaN where there are gaps."""
        told = _plain(rows)
        if self.front is not None:
            location, scale = self.front(rows)
            told = Told(rows, location, scale, self.front.tail)
        is_wider = len(self.given.columns) > rows.shape[1]
        beside = _beside(told) if is_wider else rows
        return told._replace(condition=self.given.encode(beside))


def _plain(rows: Rows) -> Told:
    return Told(rows, np.zeros(len(rows)), np.ones(len(rows)))


def _with_trees(columns: tuple[Column, ...], has_fronts: bool) -> tuple[Column, ...]:
    return columns + (Column("continuous"),) * (2 * has_fronts)


def _beside(told: Told) -> Rows:
    """Return rows with location and scale behind them, NaN where no trees say them."""
    is_known = told.tail is not None
    more = [told.location, np.log(told.scale)] if is_known else np.full((2, len(told.location)), np.nan)
    return np.column_stack([told.condition, *more])

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
        Of a target, by trees; NaN where there are none.
    tail
        Degrees of freedom of the law of distances in these units, or None where the target is not learned in them.
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
    has_units
        True where the number is learned in units of what trees say, too, as one that has a density everywhere is.
    """

    given: GivenRows
    front: Front | None
    has_units: bool = eqx.field(static=True)

    @staticmethod
    def fit(
        rows: Rows,
        weight: np.ndarray,
        columns: tuple[Column, ...],
        targets: tuple[Column, ...],
        has_fronts: bool,
        found: FittedFront | None,
    ) -> tuple["Conditions", Told]:
        """Return what rows of a fit are, and what these say: of trees, of those that have not seen them."""
        says = _unknown(rows) if found is None else (found.location, found.scale)
        # Where trees might stand, conditions are of one shape with and without them: one program for both.
        given = GivenRows.fit(_beside(rows, *says) if has_fronts else rows, weight, _with_trees(columns, has_fronts))
        conditions = Conditions(given, None if found is None else found.front, _has_units(targets))
        return conditions, conditions._told(rows, *says)

    @staticmethod
    def any(
        columns: tuple[Column, ...], targets: tuple[Column, ...], has_fronts: bool, trees: list | None
    ) -> "Conditions":
        """Return conditions that are fitted to any rows: the numbers of a file take the place of their own."""
        given = GivenRows.any(_with_trees(columns, has_fronts))
        return Conditions(given, None if trees is None else Front.of_sizes(trees), _has_units(targets))

    def __call__(self, rows: Rows) -> Told:
        """Return what rows say, of numbers, codes as numbers, NaN where there are gaps."""
        return self._told(rows, *(_unknown(rows) if self.front is None else self.front(rows)))

    def _told(self, rows: Rows, location: np.ndarray, scale: np.ndarray) -> Told:
        is_wider = len(self.given.columns) > rows.shape[1]
        condition = self.given.encode(_beside(rows, location, scale) if is_wider else rows)
        return Told(condition, location, scale, self.front.tail if self.front is not None and self.has_units else None)


def _unknown(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return location and scale where no trees say them."""
    return np.full(len(rows), np.nan), np.full(len(rows), np.nan)


def _has_units(targets: tuple[Column, ...]) -> bool:
    """Return True where there is one target that is a number without bounds and masses."""
    return len(targets) == 1 and targets[0].is_density and not targets[0].is_bounded


def _with_trees(columns: tuple[Column, ...], has_fronts: bool) -> tuple[Column, ...]:
    return columns + (Column("continuous"),) * (2 * has_fronts)


def _beside(rows: Rows, location: np.ndarray, scale: np.ndarray) -> Rows:
    """Return rows with location and scale behind them, NaN where no trees say them."""
    return np.column_stack([rows, location, np.log(scale)])

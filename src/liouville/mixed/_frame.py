"""How a table's columns become rows of a `Mixed`: codes, whole numbers, and continuous ones on a scale of their own."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np

from .._types import Rows
from ..bijections import AbstractBijection, Bounded, GaussianMargins, Standardize
from ..dequantization import AbstractDequantization
from ..frames import PREPROCESSORS, AbstractFrame, any_rows

# Closed forms that go column by column, as single ones.
_BY_COLUMN = (Standardize, GaussianMargins)
_ANY_ROWS = 500
# Beyond so many steps JAX's floats do not tell neighbours; beyond so many more, nothing is told.
_TOLD_APART, _FARTHEST = 2.0**24, 1e15


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of numbers, and what kind of numbers they are.

    Attributes
    ----------
    kind
        ``"code"``: 0, 1, ... as many as there are `levels`; ``"whole"``: multiples of `step`; or ``"continuous"``.
    levels
        Number of levels of a code.
    atoms
        Values that hold a share of the rows each, of the other kinds: their probability is a mass.
    step
        Distance of whole numbers.
    lowest, highest
        The lowest and the highest whole number that there can be, or -inf and inf.
    origin
        Whole numbers are counted from here, in steps: far from zero JAX's precision would not tell neighbours.
    seen, unseen
        Of whole numbers of which few are ever there, those, as they are counted, and how wide the cell of another
        between them is beside theirs; none, and 1, where all are alike.
    edges
        Bounds of continuous numbers.
    gaps
        True where a missing cell is a value like others: of a code the last level, of numbers one more atom.
    """

    kind: str
    levels: int = 0
    atoms: tuple[float, ...] = ()
    step: float = 1.0
    lowest: float = -math.inf
    highest: float = math.inf
    origin: float = 0.0
    seen: tuple[float, ...] = ()
    unseen: float = 1.0
    edges: tuple[float, float] = (-math.inf, math.inf)
    gaps: bool = False

    def __post_init__(self):
        if self.kind not in ("code", "whole", "continuous") or (self.kind == "code") != (self.levels > 0):
            raise ValueError(
                f"Expected a code with levels, whole or continuous numbers, got {self}; try Column('continuous')."
            )
        if self.kind == "code" and self.atoms:
            raise ValueError(f"Expected no atoms of codes, got {self.atoms}; try levels.")

    @property
    def is_bounded(self) -> bool:
        """Return True for continuous numbers that end somewhere."""
        return self.kind == "continuous" and self.edges != (-math.inf, math.inf)

    @property
    def is_density(self) -> bool:
        """Return True where each row has a density in this column, and no mass."""
        return self.kind == "continuous" and not self.is_switched

    @property
    def is_switched(self) -> bool:
        """Return True where a code says which numbers are none of the others: atoms, and gaps that are values."""
        return self.kind != "code" and bool(self.atoms or self.gaps)

    @property
    def num_levels(self) -> int:
        """Number of levels of the column's code; 0 where it has none."""
        return self.levels or (1 + len(self.atoms) + self.gaps if self.is_switched else 0)

    def on_atoms(self, values: np.ndarray) -> np.ndarray:
        """Return of each value which atom it is, one axis more; equal but for rounding is equal.

        A gap that is a value is the last of them.
        """
        atoms = np.asarray(self.atoms, np.float64)
        if self.kind == "whole":
            found = np.round(values / self.step)[..., None] == np.round(atoms / self.step)
        else:
            found = np.abs(values[..., None] - atoms) <= 1e-9 * np.abs(atoms)
        return np.concatenate([found, np.isnan(values)[..., None]], -1) if self.gaps else found

    def counted(self, numbers: np.ndarray) -> np.ndarray:
        """Return whole numbers, in steps, as they are counted: from the origin, leaving out those that are atoms.

        So no cell is left for an atom, and the masses of the others sum to 1.
        """
        return numbers - self.origin - np.searchsorted(self._atoms_in_steps, numbers, side="left")

    def uncounted(self, numbers: np.ndarray) -> np.ndarray:
        """Return whole numbers, in steps, that are counted as `counted` does."""
        numbers = numbers + self.origin
        for atom in self._atoms_in_steps:
            numbers = numbers + (numbers >= atom)
        return numbers

    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest whole number that is no atom, as they are counted."""
        low, high = self.ends_in_steps
        low, high = self.counted(low), high - self.origin - np.searchsorted(self._atoms_in_steps, high, side="right")
        # Where floats do not tell neighbours, an end is one to the host alone: there is next to nothing beyond.
        return (-math.inf if low < -_TOLD_APART else float(low)), (math.inf if high > _TOLD_APART else float(high))

    @property
    def ends_in_steps(self) -> np.ndarray:
        """The lowest and the highest whole number, in steps."""
        return np.round(np.array([self.lowest, self.highest]) / self.step)

    @property
    def _atoms_in_steps(self) -> np.ndarray:
        return np.sort(np.round(np.asarray(self.atoms, np.float64) / self.step))


def are_densities(columns: Sequence[Column]) -> bool:
    """Return True where no column has masses: all are continuous, without atoms."""
    return all(column.is_density for column in columns)


class MixedFrame(AbstractFrame):
    """What is done to a table before a `Mixed`: atoms are told from other numbers, and each column is brought to scale.

    Closed forms go column by column; behind that they may mix those columns that have no atoms, since a row on an atom
    has no other number there. All of it is NumPy's, in float64 (`fit_mixed`).

    Parameters
    ----------
    columns
        What the columns are.
    margins
        For each continuous column its closed forms, from the data towards the core.
    joint
        Closed forms of the continuous columns without atoms together, behind them.
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    noise: AbstractDequantization | None = eqx.field(init=False)
    columns: tuple[Column, ...] = eqx.field(static=True)
    margins: tuple[tuple[AbstractBijection, ...], ...]
    joint: tuple[AbstractBijection, ...]

    def __init__(
        self,
        columns: tuple[Column, ...],
        margins: tuple[tuple[AbstractBijection, ...], ...],
        joint: tuple[AbstractBijection, ...] = (),
    ):
        self.columns, self.margins, self.joint = columns, margins, joint
        self.shape, self.noise = (len(columns),), None

    @property
    def has_masses(self) -> bool:
        """Return True where some column is not continuous, or has atoms."""
        return not are_densities(self.columns)

    @property
    def core_shape(self) -> tuple[int, ...]:
        """Shape of a row of the `Mixed`."""
        return (len(self.columns) + sum(column.is_switched for column in self.columns),)

    @property
    def always(self) -> list[int]:
        """Numbers, among the continuous columns, of those without atoms: every row has them."""
        continuous = [column for column in self.columns if column.kind == "continuous"]
        return [j for j, column in enumerate(continuous) if column.is_density]

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of levels of each code; that of a column with atoms is 0 for what is no atom."""
        return tuple(column.num_levels for column in self.columns if column.num_levels)

    @property
    def gaps(self) -> tuple[int, ...]:
        """Numbers of the codes whose last level stands for a gap."""
        coded = [column for column in self.columns if column.num_levels]
        return tuple(j for j, column in enumerate(coded) if column.gaps)

    @property
    def owners(self) -> tuple[int, ...]:
        """Number of the column that each number of a row of the `Mixed` belongs to."""
        kinds = ("whole", "continuous")
        of_codes = [j for j, column in enumerate(self.columns) if column.num_levels]
        return (*of_codes, *(j for kind in kinds for j, column in enumerate(self.columns) if column.kind == kind))

    @property
    def switches(self) -> tuple[int | None, ...]:
        """Number of the code that switches each whole number, then each continuous one off, or None."""
        found: dict[str, list[int | None]] = {"whole": [], "continuous": []}
        code = 0
        for column in self.columns:
            if column.kind != "code":
                found[column.kind].append(code if column.is_switched else None)
            code += column.num_levels > 0
        return (*found["whole"], *found["continuous"])

    def are_on(self, codes: np.ndarray) -> np.ndarray:
        """Return which whole and continuous numbers rows have by their codes: none that one switches that is NaN."""
        is_on = np.ones((len(codes), len(self.switches)), bool)
        for j, i in enumerate(self.switches):
            if i is not None:
                is_on[:, j] = codes[:, i] == 0
        return is_on

    def encode(self, x: Any, drawn: Any = None) -> tuple[Any, Any]:
        """Map rows of the table to rows of the `Mixed`, on any leading axes.

        Parameters
        ----------
        x
            NumPy's array of shape ``(..., columns)``; a cell that is missing is NaN.
        drawn
            Nothing: there is no noise.

        Returns
        -------
        rows
            Codes, whole numbers, continuous numbers; of shape ``(..., *core_shape)``. What belongs to a missing cell is
            NaN.
        change
            What is to be added to the log-probability, in nats: the log-determinant over the numbers that there are,
            and -inf for a value that cannot be: beyond its column's edges, or between whole numbers.
        """
        parts: dict[str, list[np.ndarray]] = {"code": [], "whole": [], "continuous": []}
        change, margins = np.zeros(x.shape[:-1]), iter(self.margins)
        for column, values in zip(self.columns, np.moveaxis(np.asarray(x, np.float64), -1, 0), strict=True):
            is_on: Any = np.ones(values.shape, bool)
            is_gap = np.isnan(values) & (not column.gaps)
            if column.is_switched:
                atom = column.on_atoms(values)
                is_on = ~atom.any(-1)
                parts["code"].append(np.where(is_gap, np.nan, np.where(is_on, 0, 1 + atom.argmax(-1))))
            is_there = is_on & ~is_gap
            found, more = values, 0.0
            if column.kind == "whole":
                found, more = whole_numbers(np.where(is_there, values, 0.0), column)
            elif column.kind == "continuous":
                found, more = _inwards(next(margins), values, is_there)
            parts[column.kind].append(np.where(is_gap, np.nan, np.where(is_on, found, 0.0)))
            change = change + np.where(is_there, more, 0.0)
        points: Any = np.stack(parts["continuous"], -1) if parts["continuous"] else np.zeros((*x.shape[:-1], 0))
        for link in self.joint:
            points[..., self.always], log_det = link.inverse_and_log_det(points[..., self.always])
            change = change + log_det
        columns = [part[..., None] for part in (*parts["code"], *parts["whole"])]
        return np.concatenate([*columns, points], -1), change

    def encode_some(self, x: Rows, columns: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Map some columns of rows of the table, and leave the others out: they are NaN, and change nothing."""
        is_chosen = np.isin(np.arange(len(self.columns)), columns)
        points, change = self.encode(np.where(is_chosen, x, np.nan))
        points[..., ~is_chosen[list(self.owners)]] = np.nan
        return points, change

    def point_of(self, values: np.ndarray) -> np.ndarray:
        """Return values of the first column, a continuous one, on the scale of the core, be they atoms or not."""
        return _inwards(self.margins[0], values, ~np.isnan(values))[0]

    def values_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the values of the first column that are numbers of the core, none of them an atom."""
        column = self.columns[0]
        return _from_counted(numbers, column) if column.kind == "whole" else _outwards(self.margins[0], numbers)

    def decode(self, points: Any) -> Any:
        """Map rows of the `Mixed` to rows of the table, on any leading axes."""
        num_codes, num_whole = len(self.levels), sum(column.kind == "whole" for column in self.columns)
        codes = iter(np.moveaxis(points[..., :num_codes], -1, 0))
        whole = iter(np.moveaxis(points[..., num_codes : num_codes + num_whole], -1, 0))
        inner: Any = np.array(points[..., num_codes + num_whole :])
        for link in self.joint[::-1]:
            inner[..., self.always] = link.transform_and_log_det(inner[..., self.always])[0]
        rest, margins, rows = iter(np.moveaxis(inner, -1, 0)), iter(self.margins), []
        for column in self.columns:
            atom = next(codes).astype(int) if column.num_levels else None
            if column.kind == "code":
                rows.append(atom)
                continue
            is_whole = column.kind == "whole"
            values = _from_counted(next(whole), column) if is_whole else _outwards(next(margins), next(rest))
            of_atoms = np.asarray([0.0, *column.atoms, *([np.nan] if column.gaps else [])])
            rows.append(values if atom is None else np.where(atom == 0, values, of_atoms[atom]))
        return np.stack(rows, -1)

    def decode_and_log_det(self, points: Any) -> tuple[Any, Any]:
        """Map rows back, and return the log-determinants over the numbers that there are."""
        rows = self.decode(points)
        return rows, -self.encode(rows)[1]


def whole_numbers(values: np.ndarray, column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Return values as they are counted on their grid, and 0; -inf for those that lie between."""
    steps, (low, high) = values / column.step, column.ends_in_steps
    found = np.round(steps)
    is_there = np.abs(steps - found) <= np.minimum(1e-6 * np.maximum(1.0, np.abs(steps)), 1e-3)
    is_there &= (found >= low) & (found <= high)
    # So far out that all is one.
    counted = np.clip(column.counted(found), -_FARTHEST, _FARTHEST)
    return np.where(is_there, counted, 0.0), np.where(is_there, 0.0, -np.inf)


def _from_counted(numbers: np.ndarray, column: Column) -> np.ndarray:
    """Return the values of whole numbers, as they are counted; what lies beyond the ends is in the last cells."""
    return np.clip(column.uncounted(numbers), *column.ends_in_steps) * column.step


def _inwards(
    links: tuple[AbstractBijection, ...], values: np.ndarray, is_on: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers on the scale of the core and their log-determinants; -inf beyond the edges (`Bounded`)."""
    # What is not there stands in the middle: its numbers are not used.
    z: Any = np.where(is_on, values, _outwards(links, np.zeros(())))[..., None]
    change = np.zeros(values.shape)
    for link in links:
        z, log_det = link.inverse_and_log_det(z)
        change = change + log_det
    return z[..., 0], change


def _outwards(links: tuple[AbstractBijection, ...], z: np.ndarray) -> np.ndarray:
    x: Any = z[..., None]
    for link in links[::-1]:
        x = link.transform_and_log_det(x)[0]
    return x[..., 0]


def any_mixed_frame(preprocess: str, columns: tuple[Column, ...], by_column: bool = False) -> MixedFrame:
    """Return a frame that is fitted to any data: the numbers of one from a file take the place of its own."""
    rows = any_rows(*np.array([column.edges for column in columns]).T)
    rows[:, [column.kind != "continuous" for column in columns]] = 0.0
    return fit_mixed(preprocess, rows, np.ones(len(rows)), columns, by_column)[0]


def edges_of(columns: tuple[Column, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the edges of all columns, low and high, or None where none is bounded."""
    if not any(column.is_bounded for column in columns):
        return None
    low, high = np.array([column.edges for column in columns]).T
    return low, high


def fit_mixed(
    preprocess: str, rows: Rows, weight: np.ndarray, columns: tuple[Column, ...], by_column: bool = False
) -> tuple[MixedFrame, np.ndarray]:
    """Fit the frame of a table of several kinds of columns.

    Parameters
    ----------
    preprocess
        A key of `liouville.frames.PREPROCESSORS`; its closed forms that mix columns are of those without atoms.
    rows, weight
        The table, its codes as numbers, and the weight of its rows.
    columns
        What its columns are.
    by_column
        True leaves closed forms out that mix columns.

    Returns
    -------
    frame : MixedFrame
        The closed forms.
    points : ndarray
        The table as rows of a `Mixed`.
    """
    kinds = PREPROCESSORS[preprocess]
    continuous = [(j, column) for j, column in enumerate(columns) if column.kind == "continuous"]
    alone = [kind for kind in kinds if kind in _BY_COLUMN]
    margins: list[tuple[AbstractBijection, ...]] = []
    for j, column in continuous:
        is_on = ~column.on_atoms(rows[:, j]).any(-1) & ~np.isnan(rows[:, j])
        values: Any = rows[is_on, j, None]
        of_rows = weight[is_on]
        links: list[AbstractBijection] = [Bounded([column.edges[0]], [column.edges[1]])] if column.is_bounded else []
        values = links[0].inverse_and_log_det(values)[0] if links else values
        if not len(values) or not np.ptp(values):
            # A column that is always on its atoms, or has one value beside them: a closed form of any numbers nearby.
            values = (values[0] if len(values) else 0.0) + np.linspace(-0.5, 0.5, _ANY_ROWS)[:, None]
            of_rows = np.ones(_ANY_ROWS)
        for kind in alone:
            link = kind.fit(values, of_rows)
            values = link.inverse_and_log_det(values)[0]
            links.append(link)
        margins.append(tuple(links))
    frame = MixedFrame(columns, tuple(margins))
    points, joint = frame.encode(rows)[0], []
    start = frame.core_shape[0] - len(continuous)
    always = [start + j for j in frame.always]
    for kind in kinds[len(alone) :] if len(always) > 1 and not by_column else []:
        link = kind.fit(points[:, always], weight)
        points[:, always] = link.inverse_and_log_det(points[:, always])[0]
        joint.append(link)
    return MixedFrame(columns, tuple(margins), tuple(joint)), points

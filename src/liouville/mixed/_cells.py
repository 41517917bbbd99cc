"""Whole numbers: the mass that a flow of one dimension has on a cell."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Condition, FixedMixin, Key, Point, Scalar, constant
from ..bijections import CNF, namespace
from ..distributions import AbstractDistribution, Normal, Transformed
from ..integrate import Integrator, SolveInfo, integrate_flow
from ..vector_fields import MLP, AbstractVectorField, Perceptron, Preconditioned
from ._frame import Column

_LEAST_SPREAD = 0.5
# What codes of more levels than these say of numbers is not looked for; of long tables so many rows say it.
_MOST_LEVELS, _MOST_ROWS = 64, 20_000
# Cells that are narrower than this, in standard deviations, are taken as wide: of less, rounding would be seen.
_NARROWEST = 2e-2


class Grid(FixedMixin, eqx.Module):
    """Where the whole numbers of columns have their cells, on an axis each, and how wide these are.

    Where few numbers are ever there, as of a measurement that is written with more digits than it has, the cells of
    those between them are narrow: a flow need not learn thousands of gaps.

    Parameters
    ----------
    lowest, highest
        The lowest and the highest number that each column can have, or -inf and inf.
    seen
        For each column the numbers that are there, in order, or none; None is none for all.
    unseen
        How wide the cell of another number between them is beside theirs, which is 1; None is 1 for all.

    Examples
    --------
    >>> grid = Grid([-np.inf], [np.inf], [(0.0, 10.0)], [0.1])
    >>> numbers = np.array([[0.0], [1.0], [10.0]])
    >>> print(grid.widths(numbers).ravel(), grid.numbers(grid.places(numbers)).ravel())
    [1.  0.1 1. ] [ 0.  1. 10.]
    """

    lowest: np.ndarray
    highest: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray
    ends: np.ndarray

    def __init__(self, lowest, highest, seen=None, unseen=None):
        self.lowest, self.highest = constant(lowest), constant(highest)
        lists: Any = [()] * len(self.lowest) if seen is None else seen
        # Shorter ones are filled up with numbers that never come.
        table = np.full((len(lists), max(map(len, lists), default=0)), np.inf)
        for row, column in zip(table, lists, strict=True):
            row[: len(column)] = column
        self.seen, self.unseen = constant(table), constant(np.ones(len(lists)) if unseen is None else unseen)
        # Where the cells of the first one begins, and that of the last one ends.
        self.ends = constant([(c[0] - 0.5, c[-1] + 0.5) if len(c) else (0.0, 0.0) for c in lists]).T

    @staticmethod
    def of(columns: Sequence[Column]) -> "Grid":
        """Return the grid of columns of whole numbers."""
        low, high = np.transpose([column.ends() for column in columns])
        return Grid(low, high, [column.seen for column in columns], [column.unseen for column in columns])

    def widths(self, numbers: Any) -> Any:
        """Return how wide the cells of numbers are, of shape ``(..., columns)``."""
        is_between = (numbers > self.ends[0]) & (numbers < self.ends[1])
        is_seen = (numbers[..., None] == self.seen).any(-1)
        return namespace(numbers).where(is_seen | ~is_between, 1.0, self.unseen)

    def places(self, numbers: Any) -> Any:
        """Return the middles of the cells of numbers, and what is between them, of shape ``(..., columns)``."""
        xp = namespace(numbers)
        # A cell comes behind those of all lower numbers: as many wide ones, and narrow ones.
        wide = xp.clip(numbers[..., None] - self.seen + 0.5, 0.0, 1.0).sum(-1)
        beyond = xp.maximum(numbers - self.ends[1], 0.0) + xp.minimum(numbers - self.ends[0], 0.0)
        return self.unseen * numbers + (1 - self.unseen) * (wide + beyond)

    def numbers(self, places: Any) -> Any:
        """Return the numbers in whose cells places are, of shape ``(..., columns)``: the inverse of `places`."""
        xp, (num, most) = namespace(places), self.seen.shape
        narrow = self.unseen[:, None]
        starts = narrow * (self.seen - 0.5) + (1 - narrow) * xp.arange(most, dtype=places.dtype)
        before = (starts <= places[..., None]).sum(-1)
        last = xp.concatenate([xp.full((num, 1), -xp.inf, starts.dtype), self.seen], -1)[xp.arange(num), before]
        behind = places - (1 - self.unseen) * before.astype(places.dtype)
        between = xp.where(
            behind < self.unseen * (last + 0.5), last, xp.maximum(xp.round(behind / self.unseen), last + 1)
        )
        first, end = self.unseen * self.ends[0], self.unseen * self.ends[1]
        end = end + (1 - self.unseen) * xp.isfinite(self.seen).sum(-1).astype(places.dtype)
        outside = xp.where(places < first, places - first + self.ends[0], places - end + self.ends[1])
        is_outside = ((places < first) | (places > end)) & (self.unseen < 1)
        return xp.where(is_outside, xp.round(outside), between)


class Expected(FixedMixin, eqx.Module):
    """What is expected of whole numbers, given codes and those before them, by a line, and how far they are from it.

    Parameters
    ----------
    means, scale
        Means of the numbers, and their standard deviations in places of a `Grid`.
    slopes
        Of each number by those before it: a matrix with zeros on its diagonal and above. None is no slope.
    effects
        What the levels of each code add to each number, of shape ``(levels, columns)``.
    shift, spread
        Mean and standard deviation of the distances from what is expected, in places; None is 0, and `scale`.
    bend
        From so many standard deviations on distances count as their logarithms.
    """

    means: np.ndarray
    scale: np.ndarray
    slopes: np.ndarray
    effects: tuple[np.ndarray, ...]
    shift: np.ndarray
    spread: np.ndarray
    bend: np.ndarray

    def __init__(self, means, scale, slopes=None, effects=(), shift=None, spread=None, bend=4.0):
        num = len(means)
        self.means, self.scale = constant(means), constant(scale)
        self.slopes = constant(np.zeros((num, num)) if slopes is None else np.reshape(slopes, (num, num)))
        self.effects = tuple(constant(np.reshape(effect, (-1, num))) for effect in effects)
        self.shift = constant(np.zeros(num) if shift is None else shift)
        self.spread, self.bend = constant(scale if spread is None else spread), constant(bend)

    @staticmethod
    def fit(
        numbers: np.ndarray,
        mask: np.ndarray,
        weight: np.ndarray,
        grid: Grid,
        codes: np.ndarray,
        levels: Sequence[int],
    ) -> "Expected":
        """Return what is expected by least squares of weighted rows, where that explains half of how numbers vary.

        Parameters
        ----------
        numbers, mask
            Whole numbers, of shape ``(rows, columns)``, and 1 for each that there is.
        weight
            Of each row.
        grid
            Where the cells are.
        codes, levels
            The codes of each row, and how many levels each has; of many levels, a code says nothing here.
        """
        num = numbers.shape[1]
        means = np.array([_moments(numbers[:, j], mask[:, j] * weight)[0] for j in range(num)])
        known, of_levels = mask * (numbers - means), _indicators(codes, levels)
        slopes, effects = np.zeros((num, num)), np.zeros((of_levels.shape[1], num))
        few = slice(None, None, 1 + len(numbers) // _MOST_ROWS)
        for j in range(num):
            told = np.concatenate([known[few, :j], of_levels[few]], axis=1)
            found = _least_squares(told, known[few, j], mask[few, j] * weight[few])
            if found is not None:
                slopes[j, :j], effects[:, j] = found[:j], found[j:]
        parts = np.split(effects, np.cumsum(levels)[:-1]) if len(levels) else []
        line = Expected(means, np.ones(num), slopes, parts)
        places = grid.places(numbers)
        off = places - line.places(numbers, mask, grid, line.offset(codes))
        moments = [_moments(of[:, j], mask[:, j] * weight) for of in (places, off) for j in range(num)]
        (_, scale), (shift, spread) = np.reshape(moments, (2, num, 2)).transpose(0, 2, 1)
        # Of one number alone the cell is twice as wide as the spread.
        return Expected(
            means, np.maximum(scale, _LEAST_SPREAD), slopes, parts, shift, np.maximum(spread, _LEAST_SPREAD)
        )

    @staticmethod
    def of_means(numbers: np.ndarray, mask: np.ndarray, weight: np.ndarray, grid: Grid) -> "Expected":
        """Return what is expected where nothing is known of other numbers: the means."""
        columns = range(numbers.shape[1])
        means = [_moments(numbers[:, j], mask[:, j] * weight)[0] for j in columns]
        off = grid.places(numbers) - grid.places(np.asarray(means))
        shift, scale = np.transpose([_moments(off[:, j], mask[:, j] * weight) for j in columns])
        scale = np.maximum(scale, _LEAST_SPREAD)
        return Expected(means, scale, shift=shift, spread=scale)

    def bent(self, off: Any) -> Any:
        """Return distances as a flow has them, in standard deviations: one far off is unlikely, not beyond measure."""
        return self.bend * namespace(off).arcsinh(off / self.bend)

    def unbent(self, u: Any) -> Any:
        """Return distances that are bent: the inverse of `bent`."""
        return self.bend * namespace(u).sinh(u / self.bend)

    def offset(self, codes: Any) -> Any:
        """Return what codes, of shape ``(..., codes)``, add to each number."""
        xp = namespace(codes)
        total = xp.zeros((*codes.shape[:-1], len(self.means)), codes.dtype)
        for i, effect in enumerate(self.effects):
            total = total + xp.asarray(effect, codes.dtype)[xp.clip(codes[..., i].astype(int), 0, len(effect) - 1)]
        return total

    def places(self, numbers: Any, mask: Any, grid: Grid, offset: Any) -> Any:
        """Return the places that are expected, of shape ``(..., columns)``; numbers that are masked say nothing."""
        expected = self.means + offset + (mask * (numbers - self.means)) @ self.slopes.T
        return grid.places(expected) + self.shift


def _indicators(codes: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """Return 1 for the level of each code that a row has, else 0; zeros for a code of many levels."""
    kinds = [np.eye(n) if n <= _MOST_LEVELS else np.zeros((n, n)) for n in levels]
    of_codes = [kind[codes[:, i].astype(int)] for i, kind in enumerate(kinds)]
    return np.concatenate([np.zeros((len(codes), 0)), *of_codes], axis=1)


def _least_squares(told: np.ndarray, wanted: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    """Return the line that explains most of what is wanted, or None where that is less than half of it."""
    root = np.sqrt(weight)
    told, wanted = told * root[:, None], wanted * root
    size = np.linalg.norm(told, axis=0)
    size[size == 0] = 1.0
    found = np.linalg.lstsq(told / size, wanted)[0] / size
    explains = np.sum((wanted - told @ found) ** 2) < np.sum(wanted**2) / 2
    return found if explains else None


def _moments(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, zeros where there are no rows."""
    if not weight.any():
        return 0.0, 0.0
    loc = np.average(values, weights=weight)
    return float(loc), float(np.sqrt(np.average((values - loc) ** 2, weights=weight)))


class _SideBySide(AbstractVectorField):
    """Points of one dimension, each under a condition of its own, moved in one solve: in the same steps."""

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    field: AbstractVectorField

    def __init__(self, field: AbstractVectorField, num: int):
        self.field, self.shape, self.cond_shape = field, (num,), (num, *(field.cond_shape or ()))

    def __call__(self, t, x: Point, condition: Condition = None) -> Point:
        return jax.vmap(lambda x, c: self.field(t, x[None], c)[0])(x, condition)


class Cells(AbstractDistribution):
    """Whole numbers: ``P(n) = Phi(z(n + 1/2)) - Phi(z(n - 1/2))``, column by column, each given those before it.

    `z` is the flow of one dimension from data to base under the condition: it is increasing, so the mass of a cell is
    the difference of two normal distribution functions, exact up to the solver's tolerance, whatever happens inside the
    cell, and the masses sum to 1. The cell of the lowest number reaches down to minus infinity. One flow serves all
    columns: its condition says which one is meant. A number is counted from what is expected of it: what codes add to
    that is where the condition begins.

    Parameters
    ----------
    expected
        What is expected of the numbers.
    grid
        Where their cells are.
    told
        How many numbers the condition has behind what codes add to the numbers expected.
    width, depth
        Size of the vector field's network.
    integrator
        How the flow is solved; None means ``Integrator()``.
    key
        Key for the initial weights.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> grid = Grid([0.0], [np.inf])
    >>> cells = Cells(Expected([3.0], [2.0]), grid, told=1, width=8, key=jax.random.key(0))
    >>> print(jnp.exp(cells.log_prob(jnp.arange(30.0)[:, None], jnp.zeros(2))).sum().round(4))
    1.0
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    expected: Expected
    grid: Grid
    encoder: Perceptron
    flow: Transformed

    def __init__(
        self,
        expected: Expected,
        grid: Grid,
        *,
        told: int,
        width: int = 64,
        depth: int = 2,
        integrator: Integrator | None = None,
        key: Key,
    ):
        num = len(expected.means)
        self.expected, self.grid = expected, grid
        self.shape, self.cond_shape = (num,), (num + told,)
        field_key, key = jax.random.split(key)
        self.encoder = Perceptron([told + 2 * num, width, width], "silu", key=key)
        field = Preconditioned(MLP((1,), width=width, depth=depth, cond_shape=(width,), key=field_key))
        self.flow = Transformed(Normal.standard((1,)), CNF(field, integrator=integrator))

    def distances(self, x: Point, condition: Condition, mask: Point) -> Point:
        """Return how far the middles of the cells of numbers are from what is expected, in standard deviations."""
        expected = self.expected.places(x, mask, self.grid, jnp.asarray(condition, x.dtype)[: len(x)])
        return (self.grid.places(x) - expected) / self.expected.spread

    def halves(self, x: Point) -> Point:
        """Return half the widths of the cells of numbers, in standard deviations from what is expected."""
        return 0.5 * self.grid.widths(x) / self.expected.spread

    def noise(self, x: Float[Array, "*batch columns"], *, key: Key) -> Float[Array, "*batch columns"]:
        """Draw noise that fills the cells of numbers, in standard deviations: evenly, so that neighbours join.

        That of a number which is all but expected is nearer to the middle: no mass is then lost at the edges.
        """
        draws = jax.random.uniform(key, (3, *x.shape), minval=-1.0, maxval=1.0)
        is_known = self.expected.spread <= _LEAST_SPREAD
        return self.halves(x) * jnp.where(is_known, draws.mean(0), draws[0])

    def known(self, x: Point, mask: Point) -> Point:
        """Return what other parts are told of the numbers: 0 of one that is masked, or its mean."""
        off = self.grid.places(x) - self.grid.places(jnp.asarray(self.expected.means, x.dtype))
        return mask * jnp.arcsinh(off / self.expected.scale)

    def contexts(self, x: Point, condition: Condition, mask: Point) -> Float[Array, "columns width"]:
        """Return for each column what its flow is conditioned on: the condition, which column, and those before it."""
        num, known = self.shape[0], self.known(x, mask)
        before = jnp.tril(jnp.ones((num, num), x.dtype), -1)
        rows = jnp.concatenate([jnp.eye(num, dtype=x.dtype), before * known], axis=1)
        condition = jnp.asarray(condition, x.dtype)[num:]
        told = jnp.broadcast_to(condition, (num, *condition.shape))
        return jax.nn.silu(jax.vmap(self.encoder)(jnp.concatenate([told, rows], axis=1)))

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        return self._log_prob_and_info(x, condition, jnp.ones_like(x))[0]

    def _log_prob_and_info(self, x: Point, condition: Condition, mask: Point) -> tuple[Scalar, SolveInfo]:
        half, is_lowest, is_highest = self.halves(x), x <= self.grid.lowest, x >= self.grid.highest
        wide = jnp.maximum(half, _NARROWEST / 2)
        off = mask * self.distances(x, condition, mask)
        edges = jnp.stack([off - jnp.where(is_highest, half, wide), off + jnp.where(is_lowest, half, wide)])
        edges = self.expected.bent(edges)
        contexts = jnp.tile(self.contexts(x, condition, mask), (2, 1))
        finest = jnp.min(edges[1] - edges[0]) / 2
        z, info = self._moved(edges.ravel(), contexts, backwards=True, finest=finest)
        low, high = z.reshape(2, -1)
        log_mass = log_normal_mass(jnp.where(is_lowest, -jnp.inf, low), jnp.where(is_highest, jnp.inf, high))
        # A cell that was taken wider has its share of that mass.
        log_mass = log_mass + jnp.where(is_lowest | is_highest, 0.0, jnp.log(half / wide))
        is_beyond = (x < self.grid.lowest) | (x > self.grid.highest)
        log_mass = jnp.where(is_beyond, -jnp.inf, log_mass)
        return jnp.sum(jnp.where(mask > 0, log_mass, 0.0)), info

    def _moved(
        self, x: Point, contexts: Array, *, backwards: bool, finest: Scalar | float = 1.0
    ) -> tuple[Point, SolveInfo]:
        cnf: CNF = self.flow.bijection  # pyright: ignore[reportAssignmentType]
        integrator = cnf.integrator
        if integrator.dt0 is None:
            # What counts is the distance of two edges, so the tolerance near zero is a share of it.
            atol = integrator.stepsize_controller.atol * jnp.minimum(finest, 1.0)  # pyright: ignore[reportAttributeAccessIssue]
            integrator = eqx.tree_at(lambda i: i.stepsize_controller.atol, integrator, atol)
        start, end = (cnf.t1, cnf.t0) if backwards else (cnf.t0, cnf.t1)
        field = _SideBySide(cnf.vector_field, x.shape[0])
        solution = integrate_flow(field, x, t0=start, t1=end, integrator=integrator, condition=contexts)
        return solution.x, solution.info

    def _sample(self, key: Key, condition: Condition) -> Point:
        return self._sample_and_info(key, condition, jnp.ones(self.shape))[0]

    def _sample_and_info(self, key: Key, condition: Condition, mask: Point) -> tuple[Point, SolveInfo]:
        def draw(drawn: Point, column: tuple) -> tuple[Point, SolveInfo]:
            j, z = column
            u, info = self._moved(z[None], self.contexts(drawn, condition, mask)[j][None], backwards=False)
            offset = jnp.asarray(condition, drawn.dtype)[: len(drawn)]
            expected = self.expected.places(drawn, mask, self.grid, offset)
            numbers = self.grid.numbers(expected + self.expected.spread * self.expected.unbent(u[0]))
            # What lies beyond the last cell is in it.
            n = jnp.clip(numbers, self.grid.lowest, self.grid.highest)[j]
            return drawn.at[j].set(jnp.where(mask[j] > 0, n, 0.0)), info

        base = jax.random.normal(key, self.shape)
        drawn, infos = jax.lax.scan(draw, jnp.zeros(self.shape), (jnp.arange(self.shape[0]), base))
        return drawn, summed(infos)

    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]:
        x = self._sample(key, condition)
        return x, self._log_prob(x, condition, None)


def summed(infos: SolveInfo) -> SolveInfo:
    """Return the worst status and the summed costs of several solves."""
    costs = (jnp.sum(part) for part in (infos.num_accepted, infos.num_rejected, infos.num_evaluations))
    return SolveInfo(jnp.max(infos.status), *costs)


def log_normal_mass(low: Array, high: Array) -> Array:
    """Return the log of the standard normal mass between two numbers, in the tail in which both are small."""
    flipped = low > 0
    near, far = jnp.where(flipped, -low, high), jnp.where(flipped, -high, low)
    log_near, log_far = jax.scipy.special.log_ndtr(near), jax.scipy.special.log_ndtr(far)
    gap = jnp.maximum(log_near - log_far, jnp.finfo(low.dtype).tiny)
    return log_near + jnp.log(-jnp.expm1(-gap))

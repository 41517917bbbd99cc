"""Whole numbers: the mass that a flow of one dimension has on a cell."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._draws import split
from .._types import Condition, Key, Point, Scalar
from ..bijections import CNF
from ..distributions import AbstractDistribution, Normal, Transformed
from ..integrate import Integrator, SolveInfo, integrate_flow
from ..vector_fields import MLP, AbstractVectorField, Perceptron, Preconditioned
from ._expected import LEAST_SPREAD, AbstractExpected, Grid
from ._known import GAIN

# Cells that are narrower than this, in standard deviations, are taken as wide: of less, rounding would be seen.
_NARROWEST = 2e-2


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
        What is expected of the numbers: a condition begins with what it is told.
    grid
        Where their cells are.
    told
        How many numbers the condition has behind that.
    width, depth
        Size of the vector field's network.
    integrator
        How the flow is solved; None means ``Integrator()``.
    key
        Key for the initial weights.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.mixed import Expected
    >>> grid = Grid([0.0], [jnp.inf])
    >>> cells = Cells(Expected([3.0], [2.0]), grid, told=1, width=8, key=jax.random.key(0))
    >>> print(jnp.exp(cells.log_prob(jnp.arange(30.0)[:, None], jnp.zeros(2))).sum().round(4))
    1.0
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    expected: AbstractExpected
    grid: Grid
    encoder: Perceptron
    flow: Transformed

    def __init__(
        self,
        expected: AbstractExpected,
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
        self.shape, self.cond_shape = (num,), (expected.told + told,)
        field_key, key = split(key)
        self.encoder = Perceptron([told + 2 * num, width, width], "silu", key=key, gain=GAIN)
        field = Preconditioned(MLP((1,), width=width, depth=depth, cond_shape=(width,), key=field_key))
        self.flow = Transformed(Normal.standard((1,)), CNF(field, integrator=integrator))

    def distances(self, x: Point, condition: Condition, mask: Point) -> tuple[Point, Any]:
        """Return how far the middles of the cells are from what is expected, in standard deviations, and that."""
        law = self.expected.given(x, mask, self.grid, self._told(x, condition)[0])
        return (self.grid.places(x) - law.expected) / law.spread, law

    def halves(self, x: Any, spread: Any) -> Any:
        """Return half the widths of the cells of numbers, in standard deviations from what is expected."""
        return 0.5 * self.grid.widths(x) / spread

    def _told(self, x: Point, condition: Condition) -> tuple[Array, Array]:
        """Return what a condition tells what is expected of the numbers, and what it tells of the rest."""
        condition = jnp.asarray(condition, x.dtype)
        return condition[: self.expected.told], condition[self.expected.told :]

    def noise(self, x: Array, spread: Array, *, key: Key) -> Array:
        """Draw noise that fills the cells of numbers, in standard deviations: evenly, so that neighbours join.

        That of a number which is all but expected is nearer to the middle: no mass is then lost at the edges.
        """
        draws = jax.random.uniform(key, (3, *x.shape), minval=-1.0, maxval=1.0)
        return self.halves(x, spread) * jnp.where(spread <= LEAST_SPREAD, draws.mean(0), draws[0])

    def known(self, x: Point, mask: Point) -> Point:
        """Return what other parts are told of the numbers: 0 of one that is masked, or its mean."""
        off = self.grid.places(x) - self.grid.places(jnp.asarray(self.expected.means, x.dtype))
        return mask * jnp.arcsinh(off / self.expected.scale)

    def contexts(self, x: Point, condition: Condition, mask: Point) -> Float[Array, "columns width"]:
        """Return for each column what its flow is conditioned on: the condition, which column, and those before it."""
        num, known = self.shape[0], self.known(x, mask)
        before = jnp.tril(jnp.ones((num, num), x.dtype), -1)
        rows = jnp.concatenate([jnp.eye(num, dtype=x.dtype), before * known], axis=1)
        condition = self._told(x, condition)[1]
        told = jnp.broadcast_to(condition, (num, *condition.shape))
        return jax.nn.silu(jax.vmap(self.encoder)(jnp.concatenate([told, rows], axis=1)))

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        return self._log_prob_and_info(x, condition, jnp.ones_like(x))[0]

    def _log_prob_and_info(self, x: Point, condition: Condition, mask: Point) -> tuple[Scalar, SolveInfo]:
        off, law = self.distances(x, condition, mask)
        off, half = mask * off, self.halves(x, law.spread)
        is_lowest, is_highest = x <= self.grid.lowest, x >= self.grid.highest
        wide = jnp.maximum(half, _NARROWEST / 2)
        edges = jnp.stack([off - jnp.where(is_highest, half, wide), off + jnp.where(is_lowest, half, wide)])
        edges = self.expected.bent(edges, law)
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

    def upper(self, x: Point, condition: Condition) -> Point:
        """Return where the base has the upper edges of the cells of numbers: the normal quantiles of ``P(n <= x)``."""
        off, law = self.distances(x, condition, jnp.ones_like(x))
        edges = self.expected.bent(off + self.halves(x, law.spread), law)
        return self._moved(edges, self.contexts(x, condition, jnp.ones_like(x)), backwards=True)[0]

    def _sample(self, key: Key, condition: Condition) -> Point:
        return self._sample_and_info(key, condition, jnp.ones(self.shape))[0]

    def _sample_and_info(self, key: Key, condition: Condition, mask: Point) -> tuple[Point, SolveInfo]:
        def draw(drawn: Point, column: tuple) -> tuple[Point, SolveInfo]:
            j, z = column
            places, info = self._place(z[None], drawn, condition, mask, j)
            numbers = self.grid.numbers(places)
            # What lies beyond the last cell is in it.
            n = jnp.clip(numbers, self.grid.lowest, self.grid.highest)[j]
            return drawn.at[j].set(jnp.where(mask[j] > 0, n, 0.0)), info

        base = jax.random.normal(key, self.shape)
        drawn, infos = jax.lax.scan(draw, jnp.zeros(self.shape), (jnp.arange(self.shape[0]), base))
        return drawn, summed(infos)

    def _place(self, z: Point, before: Point, condition: Condition, mask: Point, j: Any) -> tuple[Point, SolveInfo]:
        """Return where the flow takes a point of the base, in places, of column `j` given the numbers before it."""
        u, info = self._moved(z, self.contexts(before, condition, mask)[j][None], backwards=False)
        law = self.expected.given(before, mask, self.grid, self._told(before, condition)[0])
        return law.expected + law.spread * self.expected.unbent(u[0], law), info

    def place(self, z: Point, condition: Condition) -> Point:
        """Return where the flow takes a point of the base, in places, of the first column."""
        return self._place(z, jnp.zeros(self.shape), condition, jnp.ones(self.shape), 0)[0]

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

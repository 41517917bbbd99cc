"""Normalization between blocks, by statistics that move with training."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Condition, Key, Point, Scalar
from ..bijections import AbstractBijection, Chain, Moved, map_integrators
from ..distributions import Transformed
from ..integrate import Integrator
from ..objectives import AbstractObjective, Batch

_LEAST_VARIANCE = 1e-6


class MovingNorm(AbstractBijection):
    """Moving batch normalization, as FFJORD and MAF have between their blocks: data to base, it standardizes.

    ``z = bias + gain * (x - mean) / sqrt(variance)`` with `gain` and `bias` trained, and `mean` and `variance` those of
    the points that come through, as moving averages (`MovingAverages`). The papers normalize by the batch itself in
    training; by moving averages a row's log-density does not depend on the rows beside it, not even in training, and
    there is no other mode for evaluation.

    Parameters
    ----------
    shape
        Shape of one point.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> print(MovingNorm((2,)).inverse(jnp.array([3.0, 4.0])).round(4))
    [3. 4.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    mean: Float[Array, "*shape"]
    variance: Float[Array, "*shape"]
    log_gain: Float[Array, "*shape"]
    bias: Float[Array, "*shape"]

    def __init__(self, shape: tuple[int, ...]):
        self.shape, self.cond_shape = tuple(shape), None
        self.mean, self.log_gain, self.bias = (jnp.zeros(shape) for _ in range(3))
        self.variance = jnp.ones(shape)

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Undo the normalization; return ``mean + sqrt(variance) * (z - bias) / gain`` and its log-determinant."""
        mean, stretch = self._mean_and_log_stretch()
        return Moved(mean + jnp.exp(stretch) * (z - self.bias), jnp.sum(stretch))

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Return ``bias + gain * (x - mean) / sqrt(variance)`` and its log-determinant."""
        mean, stretch = self._mean_and_log_stretch()
        return Moved(self.bias + jnp.exp(-stretch) * (x - mean), -jnp.sum(stretch))

    def towards(self, rows: Float[Array, "rows *shape"], pace: float, last: "MovingNorm") -> "MovingNorm":
        """Return the normalization with another's statistics, moved a share of the way to those of some rows."""
        mean = last.mean + pace * (jnp.mean(rows, axis=0) - last.mean)
        variance = last.variance + pace * (jnp.mean((rows - last.mean) ** 2, axis=0) - last.variance)
        # What was not solved says nothing.
        keep = lambda new, old: jnp.where(jnp.isfinite(new), new, old)
        moved = keep(mean, last.mean), keep(variance, last.variance)
        return eqx.tree_at(lambda n: (n.mean, n.variance), self, moved)

    def _mean_and_log_stretch(self) -> tuple[Point, Point]:
        mean, variance = jax.lax.stop_gradient((self.mean, self.variance))
        # A column that does not vary would be divided by zero.
        return mean, jnp.log(variance + _LEAST_VARIANCE) / 2 - self.log_gain


class MovingAverages(AbstractObjective):
    """An objective of a flow with `MovingNorm` between its blocks: each step moves their statistics, too.

    Parameters
    ----------
    objective
        What is made small, for example `liouville.objectives.MaximumLikelihood`.
    pace
        The share of the way to a batch's statistics that a step goes.

    Raises
    ------
    TypeError
        Where a `MovingNorm` is no link of the flow's own `liouville.bijections.Chain`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.distributions import Normal
    >>> from liouville.objectives import MaximumLikelihood
    >>> flow, rows = Transformed(Normal.standard((1,)), Chain([MovingNorm((1,))])), jnp.full((8, 1), 5.0)
    >>> moved = MovingAverages(MaximumLikelihood()).after_step(flow, flow, Batch(rows), key=jax.random.key(0))
    >>> print(moved.bijection.links[0].mean)
    [0.5]
    """

    objective: AbstractObjective
    pace: float = eqx.field(default=0.1, static=True)

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return what the objective returns."""
        return self.objective(flow, batch, key=key)

    def after_step(self, before: Transformed, flow: Transformed, batch: Batch, *, key: Key) -> Transformed:
        """Return the flow with the statistics of each `MovingNorm` nearer to those of what comes to it of a batch.

        They go on from those of before: weight decay is none of theirs.
        """
        links = list(flow.bijection.links) if isinstance(flow.bijection, Chain) else []
        is_norm = lambda node: isinstance(node, MovingNorm)
        num = sum(map(is_norm, jax.tree.leaves(flow, is_leaf=is_norm)))
        if num != sum(map(is_norm, links)):
            raise TypeError(
                f"Expected each MovingNorm as a link of the flow's Chain, got {num} of them and links "
                f"{[type(link).__name__ for link in links]}; try Transformed(base, Chain([..., MovingNorm(shape)]))."
            )
        points, condition = batch.x, batch.condition
        for i, link in reversed([*enumerate(links)]):
            if isinstance(link, MovingNorm):
                last: MovingNorm = before.bijection.links[i]  # pyright: ignore[reportAttributeAccessIssue]
                link = links[i] = link.towards(points, self.pace, last)
            # As in training by likelihood, the batch is one system.
            inverse = map_integrators(Integrator.sharing, link).inverse
            points = jax.vmap(inverse, (0, None if condition is None else 0))(points, condition)
        return eqx.tree_at(lambda f: f.bijection, flow, Chain(links)) if num else flow

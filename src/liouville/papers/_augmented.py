"""Densities from a flow with more dimensions than the data: lower bounds of the log-density."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Condition, Key, Point, Scalar
from ..bijections import Moved
from ..distributions import AbstractDistribution, Normal, Transformed
from ..integrate import SolveInfo


class AugmentedBound(AbstractDistribution):
    """The density of `x` under a flow over ``(x, e)``: its log-density is a **lower bound**, in nats.

    A flow cannot change the topology of its base; in more dimensions it goes around (Dupont and others,
    Augmented neural ODEs, 2019). The density of `x` alone is then an integral over `e`, and
    ``E_q[log p(x, e) - log q(e)]`` a lower bound of its logarithm, by Jensen's inequality (Huang and others,
    Augmented normalizing flows, 2020). The importance-weighted mean of several draws is a tighter one (Burda and
    others, Importance weighted autoencoders, 2016), and tends to the log-density itself.

    Parameters
    ----------
    flow
        Flow over vectors whose first entries are `x`, and the last `e`.
    num_augmented
        Number of entries of `e`.
    num_samples
        Draws of `e` per point.
    importance_weighted
        False averages the bounds of single draws instead. A stochastic divergence needs that: its noise
        would be exponentiated, and what comes out be no bound.
    auxiliary
        Distribution `q` of `e`; None means the standard normal one.

    Attributes
    ----------
    is_lower_bound
        True: means of `log_prob` over keys are at most the log-density.

    Raises
    ------
    ValueError
        Where the shapes do not fit, and by `log_prob` without a key.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> density = AugmentedBound(Normal.standard((3,)), num_augmented=1)
    >>> print(f"{density.log_prob(jnp.zeros(2), key=jax.random.key(0)):.4f}")
    -1.8379
    """

    is_lower_bound: ClassVar[bool] = True

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    flow: AbstractDistribution
    auxiliary: AbstractDistribution
    num_samples: int = eqx.field(static=True)
    importance_weighted: bool = eqx.field(static=True)

    def __init__(
        self,
        flow: AbstractDistribution,
        num_augmented: int,
        num_samples: int = 16,
        importance_weighted: bool = True,
        auxiliary: AbstractDistribution | None = None,
    ):
        auxiliary = Normal.standard((num_augmented,)) if auxiliary is None else auxiliary
        size = flow.shape[0] - num_augmented if len(flow.shape) == 1 else 0
        if size < 1 or num_augmented < 1 or auxiliary.shape != (num_augmented,):
            raise ValueError(
                f"Expected a flow over vectors that are longer than num_augmented, got shape {flow.shape} for "
                f"{num_augmented} and q of shape {auxiliary.shape}; try a flow of shape (columns + num_augmented,)."
            )
        if num_samples < 1:
            raise ValueError(f"Expected num_samples of at least 1, got {num_samples}; try num_samples=16.")
        self.shape, self.cond_shape, self.flow, self.auxiliary = (size,), flow.cond_shape, flow, auxiliary
        self.num_samples, self.importance_weighted = num_samples, importance_weighted

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        return self._log_prob_and_report(x, condition, key)[0]

    def _log_prob_and_report(self, x: Point, condition: Condition, key: Key | None) -> tuple[Scalar, Moved]:
        """Return the bound, and what the solves say: the variance is that of the bound over the draws."""
        if key is None:
            raise ValueError("Expected a key to draw the augmented entries, got None; try log_prob(x, key=key).")
        draws = jax.vmap(lambda key: self._draw(x, condition, key))
        log_weights, reports = draws(jax.random.split(key, self.num_samples))
        # The draws' own spread holds that of a stochastic divergence.
        variance = self._variance(log_weights)
        log_prob = jnp.mean(log_weights)
        if self.importance_weighted:
            log_prob = jax.nn.logsumexp(log_weights) - math.log(self.num_samples)
        penalties = {name: jnp.mean(value) for name, value in reports.penalties.items()}
        info = reports.info
        # The first draw that failed says why; costs are those of all draws.
        status = info.status[jnp.argmax(info.failed)]
        costs = (jnp.sum(cost) for cost in (info.num_accepted, info.num_rejected, info.num_evaluations))
        return log_prob, Moved(x, None, variance, penalties, SolveInfo(status, *costs))

    def _draw(self, x: Point, condition: Condition, key: Key) -> tuple[Scalar, Moved]:
        """Draw `e` and return ``log p(x, e) - log q(e)``."""
        draw_key, key = jax.random.split(key)
        e, log_q = self.auxiliary._sample_and_log_prob(draw_key, None)
        joint = jnp.concatenate([x, e])
        if isinstance(self.flow, Transformed):
            log_p, report = self.flow._log_prob_and_report(joint, condition, key)
        else:
            log_p, report = self.flow._log_prob(joint, condition, key), Moved(joint, None)
        return log_p - log_q, report

    def _variance(self, log_weights: Float[Array, " samples"]) -> Scalar:
        if self.num_samples == 1:
            return jnp.full((), jnp.nan, log_weights.dtype)
        if self.importance_weighted:
            # Of the logarithm of a mean, to first order.
            log_weights = jnp.exp(log_weights - jax.nn.logsumexp(log_weights)) * self.num_samples
        return jnp.var(log_weights, ddof=1) / self.num_samples

    def _sample(self, key: Key, condition: Condition) -> Point:
        return self.flow._sample(key, condition)[: self.shape[0]]

    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]:
        sample_key, key = jax.random.split(key)
        x = self._sample(sample_key, condition)
        return x, self._log_prob(x, condition, key)

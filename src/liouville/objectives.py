"""Objectives: what training makes small."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._types import Key, Scalar
from .bijections import CNF
from .couplings import AbstractCoupling, Independent
from .distributions import Transformed
from .paths import AbstractPath, LinearPath


class Batch(NamedTuple):
    """Rows to learn from, and what they are conditioned on (or None)."""

    x: Float[Array, "batch *shape"]
    condition: Float[Array, "batch *cond_shape"] | None = None


class AbstractObjective(eqx.Module):
    """A loss of a flow on a batch."""

    @abc.abstractmethod
    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss, and by name what is worth watching.

        ``evaluations`` is the calls of the field per row; ``failed``, where solves are done, the share
        of them that did not arrive.
        """


class FlowMatching(AbstractObjective):
    """Regression of the field on the velocity of paths (Lipman and others, Flow matching, 2023).

    No ODE is solved in training. The loss is the squared error per dimension; it bounds nothing, so
    models are compared by likelihood.

    Parameters
    ----------
    path
        The path between base and data.
    coupling
        How base and data points are paired.
    time_skew
        Times are ``1 - (1 - u)^time_skew`` with `u` uniform and stratified over the batch. Above 1
        they crowd near the data, where the fine detail lives: an error of the velocity weighs
        ``t / (1 - t)`` in the likelihood bound of diffusion models (Kingma and others, Variational
        diffusion models, 2021, here for the linear path), and skewed times approach this weight.

    Raises
    ------
    TypeError
        Where the flow's bijection is not a `CNF`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.distributions import Normal, Transformed
    >>> from liouville.vector_fields import MLP
    >>> flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), key=jax.random.key(0))))
    >>> loss, _ = FlowMatching()(flow, Batch(jnp.ones((64, 2))), key=jax.random.key(1))
    >>> print(1 < loss < 3)
    True
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = Independent()
    time_skew: float = eqx.field(default=1.0, static=True)

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the mean squared error of the field, per dimension."""
        cnf = flow.bijection
        if not isinstance(cnf, CNF):
            raise TypeError(
                f"Expected a flow whose bijection is a CNF, got {type(cnf).__name__}; try matching in the "
                "coordinates of the CNF, with the data mapped back through the other bijections."
            )
        base_key, pair_key, time_key = jax.random.split(key, 3)
        x0 = flow.base.sample(base_key, (batch.x.shape[0],))
        x0, x1 = self.coupling(x0, batch.x, key=pair_key)
        t = self.times(time_key, batch.x.shape[0])
        x, velocity = jax.vmap(self.path)(x0, x1, t)
        length = cnf.t1 - cnf.t0
        condition_axis = None if batch.condition is None else 0
        field = jax.vmap(cnf.vector_field, (0, 0, condition_axis))
        error = length * field(cnf.t0 + length * t, x, batch.condition) - velocity
        return jnp.mean(error**2), {"evaluations": jnp.ones(())}

    def times(self, key: Key, num: int) -> Float[Array, " num"]:
        """Draw stratified times in (0, 1), skewed towards 1."""
        u = (jnp.arange(num) + jax.random.uniform(key, (num,))) / num
        return 1 - (1 - u) ** self.time_skew


class MaximumLikelihood(AbstractObjective):
    """Minus the mean log-density, in nats, plus the weighted penalties of the flow's regularizers.

    The gradient passes through the solve by the integrator's adjoint (Chen and others, Neural ordinary
    differential equations, 2018). A row whose solve fails makes the loss NaN: the step is skipped.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.distributions import Normal, Transformed
    >>> from liouville.vector_fields import MLP
    >>> flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), key=jax.random.key(0))))
    >>> loss, _ = MaximumLikelihood()(flow, Batch(jnp.zeros((8, 2))), key=jax.random.key(1))
    >>> print(f"{loss:.4f}")
    1.8379
    """

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return minus the mean log-density plus the penalties, in nats."""
        keys = jax.random.split(key, batch.x.shape[0])
        condition_axis = None if batch.condition is None else 0
        rows = jax.vmap(flow._log_prob_and_report, (0, condition_axis, 0))
        log_prob, report = rows(batch.x, batch.condition, keys)
        penalties = {name: jnp.mean(value) for name, value in report.penalties.items()}
        loss = -jnp.mean(log_prob) + sum(penalties.values())
        evaluations = jnp.mean(report.info.num_evaluations.astype(log_prob.dtype))
        failed = jnp.mean(report.info.failed.astype(log_prob.dtype))
        return loss, {"evaluations": evaluations, "failed": failed, **penalties}

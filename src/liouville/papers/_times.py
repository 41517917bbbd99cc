"""Objectives that ask what a path does at other times: STEER, and TPR."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._types import Key, Scalar
from ..distributions import Transformed, cnf_of
from ..objectives import AbstractObjective, AbstractObjectiveOf, Batch, costs, sharing_steps


class RandomEndTime(AbstractObjectiveOf):
    """An objective on the flow up to a random end time (Ghosh and others, STEER, 2020).

    The end time is drawn uniformly from ``(t1 - width, t1 + width)``, once per batch. A field that must arrive at any
    of these times is slow and smooth near the end, which takes fewer evaluations at `t1` itself.

    Parameters
    ----------
    objective
        What is made small, for example `MaximumLikelihood`.
    width
        Half the width of the interval, below the length of the flow.

    Examples
    --------
    >>> from liouville.objectives import MaximumLikelihood
    >>> RandomEndTime(MaximumLikelihood(), 0.25).width
    0.25
    """

    objective: AbstractObjective
    width: float = eqx.field(default=0.5, static=True)

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the objective of the flow with another end time."""
        key, time_key = jax.random.split(key)
        shift = jax.random.uniform(time_key, minval=-self.width, maxval=self.width)
        moved = eqx.tree_at(lambda f: f.bijection.t1, flow, cnf_of(flow).t1 + shift)
        return self.objective(moved, batch, key=key)


class TrajectoryPolynomial(AbstractObjective):
    """How far paths are from a polynomial in time (Huang and others, TPR, 2020): a penalty.

    Points of each path at random times are projected onto the polynomials of a degree; the mean squared residual per
    dimension is the loss. Solvers of that order follow such paths in few steps.

    Parameters
    ----------
    degree
        Degree of the polynomials.
    num_times
        Points on each path, more than ``degree + 1``.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.distributions import Normal, Transformed
    >>> from liouville.vector_fields import MLP
    >>> flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), key=jax.random.key(0))))
    >>> loss, _ = eqx.filter_jit(TrajectoryPolynomial())(flow, Batch(jnp.ones((8, 2))), key=jax.random.key(1))
    >>> print(f"{loss:.4f}")
    0.0000
    """

    degree: int = eqx.field(default=1, static=True)
    num_times: int = eqx.field(default=4, static=True)

    def __check_init__(self):
        if self.num_times < self.degree + 2:
            raise ValueError(
                f"Expected num_times of at least {self.degree + 2} for degree {self.degree}, got {self.num_times}; "
                f"try num_times={self.degree + 3}."
            )

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the mean squared distance of the paths from their polynomials."""
        cnf = cnf_of(sharing_steps(flow))
        span = cnf.t1 - cnf.t0
        # Stratified, so that no two times fall together: backwards, as the paths run from data to base.
        share = (jnp.arange(float(self.num_times)) + jax.random.uniform(key, (self.num_times,))) / self.num_times
        axes = (0, None if batch.condition is None else 0)
        move = lambda x, c: cnf.move(x, cnf.t1, cnf.t0, c, save_times=cnf.t1 - span * share)
        solution = jax.vmap(move, axes)(batch.x, batch.condition)
        basis = jnp.linalg.qr(share[:, None] ** jnp.arange(self.degree + 1.0))[0]
        path = jnp.reshape(cast(Array, solution.path), (batch.x.shape[0], self.num_times, -1))
        residual = path - jnp.einsum("ti,si,bsd->btd", basis, basis, path)
        return jnp.mean(residual**2), costs(solution.info)

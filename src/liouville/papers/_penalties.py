"""Penalties on a flow's dynamics, as objectives: a weighted sum adds them to the one that is learned from."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Key, Scalar
from ..distributions import Transformed, cnf_of
from ..objectives import AbstractObjective, Batch, costs
from ._diagnostics import lyapunov_exponents


class LyapunovPenalty(AbstractObjective):
    """Mean square of the largest finite-time Lyapunov exponent's excess over a threshold.

    The exponent is that of the paths from base points, one drawn for each row of the batch, to the data:
    where it is positive, small differences of base points grow. Exact for the points drawn, up to the
    solver's tolerance, in squared nats per squared unit of time.

    Growth here and shrinking there cancel along a path: in segments each stretch of it has an exponent of its own.

    Parameters
    ----------
    threshold
        Exponents up to here cost nothing, in nats per unit of time.
    num_points
        Number of base points, the first rows' where there are conditions; None means one for each row.
    num_intervals
        Number of equal segments of a path; the mean is over all of them.

    Raises
    ------
    TypeError
        Where the flow's bijection is not a `CNF`.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.distributions import Normal, Transformed
    >>> from liouville.vector_fields import MLP
    >>> flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), key=jax.random.key(0))))
    >>> loss, _ = eqx.filter_jit(LyapunovPenalty())(flow, Batch(jnp.zeros((8, 2))), key=jax.random.key(1))
    >>> print(f"{loss:.4f}")
    0.0000
    """

    threshold: float = eqx.field(default=0.0, static=True)
    num_points: int | None = eqx.field(default=None, static=True)
    num_intervals: int = eqx.field(default=1, static=True)

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the mean squared excess, and the mean exponent as ``lyapunov``; evaluations are of whole paths."""
        cnf = cnf_of(flow)
        num = batch.x.shape[0] if self.num_points is None else min(self.num_points, batch.x.shape[0])
        conditions = None if batch.condition is None else batch.condition[:num]

        edges = cnf.t0 + (cnf.t1 - cnf.t0) * jnp.linspace(0.0, 1.0, self.num_intervals + 1)

        def one_point(key: Key, condition):
            def segment(x, times):
                found = lyapunov_exponents(
                    cnf.vector_field, x, t0=times[0], t1=times[1], integrator=cnf.integrator, condition=condition
                )
                return found.x, (found.largest, found.info)

            z = flow.base._sample(key, flow.base_condition(condition))
            _, found = jax.lax.scan(segment, z, (edges[:-1], edges[1:]))
            return found

        keys = jax.random.split(key, num)
        largest, info = jax.vmap(one_point, (0, None if conditions is None else 0))(keys, conditions)
        loss = jnp.mean(jnp.maximum(largest - self.threshold, 0.0) ** 2)
        spent = costs(info)
        spent["evaluations"] = self.num_intervals * spent["evaluations"]
        return loss, {**spent, "lyapunov": jnp.mean(largest)}


class TerminalVelocity(AbstractObjective):
    """Mean norm of the velocity with which paths arrive at the data, ``|v(t1, x(t1))|``.

    The penalty of Massaroli and others (Dissecting neural ODEs, 2020) on flows that have not come to rest
    at the end of their time. The path that ends in a row has the row itself as ``x(t1)``, so nothing is
    solved: exact, in units of the data per unit of time.

    Raises
    ------
    TypeError
        Where the flow's bijection is not a `CNF`.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.distributions import Normal, Transformed
    >>> from liouville.vector_fields import MLP
    >>> flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), key=jax.random.key(0))))
    >>> loss, _ = eqx.filter_jit(TerminalVelocity())(flow, Batch(jnp.ones((8, 2))), key=jax.random.key(1))
    >>> print(f"{loss:.4f}")
    0.0000
    """

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the mean norm, as ``terminal_velocity`` too."""
        cnf = cnf_of(flow)
        field = jax.vmap(cnf.vector_field, (None, 0, None if batch.condition is None else 0))
        velocity = field(cnf.t1, batch.x, batch.condition).reshape(batch.x.shape[0], -1)
        squared = jnp.sum(velocity**2, axis=1)
        # A field starts at rest, where the norm has a corner: its slope there is taken to be zero.
        moving = squared > 0
        speed = jnp.where(moving, jnp.sqrt(jnp.where(moving, squared, 1.0)), 0.0)
        return jnp.mean(speed), {"evaluations": jnp.ones(()), "terminal_velocity": jnp.mean(speed)}

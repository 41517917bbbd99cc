"""Stability of a flow: Lyapunov exponents along its paths.

Tangent vectors are carried beside the point by the variational equation ``dQ/dt = J(t, x) Q``, which is
written as one more vector field, so that the solver stays where it is.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Condition, Point, Scalar, Time
from ..integrate import Integrator, SolveInfo, integrate_flow
from ..vector_fields import AbstractVectorField


class _TangentField(AbstractVectorField):
    """The variational equation: a point (first row) and its tangent vectors (the others), side by side."""

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    vector_field: AbstractVectorField
    num_tangents: int = eqx.field(static=True)

    def __init__(self, vector_field: AbstractVectorField, num_tangents: int):
        self.vector_field, self.num_tangents = vector_field, num_tangents
        self.shape, self.cond_shape = (1 + num_tangents, *vector_field.shape), vector_field.cond_shape

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        velocity, push = jax.linearize(lambda point: self.vector_field(t, point, condition), x[0])
        return jnp.concatenate([velocity[None], jax.vmap(push)(x[1:])])


class LyapunovExponents(NamedTuple):
    """Exponents over a finite time, in nats per unit of time, positive where paths part.

    All are exact up to the solver's tolerance, for the time that was integrated; NaN where a solve failed.

    Attributes
    ----------
    finite_time
        Logarithms of the singular values of the Jacobian of the end in the start, per unit of time, the
        largest first: the growth of the axes of a small ball. They do not depend on the tangent vectors.
        Those further than 7 (in float64, 15) decades below the largest are lost to rounding.
    spectrum
        Mean growth of each tangent vector orthogonal to those before it (the diagonal of R). Depends on
        the tangent vectors over a short time, and tends to the Lyapunov spectrum over a long one; keeps
        its digits over any length of time.
    x
        The point at the end.
    tangents
        Orthonormal tangent vectors at the end, one per row.
    info
        Worst status and summed costs of the solves.
    """

    finite_time: Float[Array, " tangents"]
    spectrum: Float[Array, " tangents"]
    x: Point
    tangents: Float[Array, "tangents *shape"]
    info: SolveInfo

    @property
    def largest(self) -> Scalar:
        """Return the largest finite-time exponent: the fastest growth of any small difference."""
        return self.finite_time[..., 0]


def lyapunov_exponents(
    vector_field: AbstractVectorField,
    x: Point,
    *,
    t0: Time = 0.0,
    t1: Time = 1.0,
    integrator: Integrator,
    condition: Condition = None,
    tangents: Float[Array, "tangents *shape"] | None = None,
    num_intervals: int = 1,
) -> LyapunovExponents:
    """Return the Lyapunov exponents of the path that starts at one point.

    Tangent vectors are integrated with the point and made orthonormal again, by a QR decomposition, at
    the end of each interval (Benettin and others, Lyapunov characteristic exponents for smooth dynamical
    systems, 1980); the mean of the logarithms of R's diagonal is the spectrum.

    Parameters
    ----------
    vector_field
        The field.
    x
        The point at `t0`.
    t0, t1
        Start and end; `t1` before `t0` follows the path backwards, whose exponents have the other sign.
    integrator
        Solver, step control, adjoint; the tolerance holds for the tangent vectors, too.
    condition
        What the field is conditioned on.
    tangents
        Tangent vectors at the start, orthonormal, one per row; None means all axes. With fewer, `largest` is a
        lower bound: the fastest growth within what they span.
    num_intervals
        Number of equal intervals; more than one where vectors grow by many powers of ten.

    Returns
    -------
    LyapunovExponents
        Exponents per unit of time, and the end of the path.

    Raises
    ------
    ValueError
        Where there are more tangent vectors than dimensions, or none, or no interval.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.vector_fields import MLP, Preconditioned
    >>> field = Preconditioned(MLP((2,), width=8, depth=1, key=jax.random.key(0)))
    >>> found = lyapunov_exponents(field, jnp.ones(2), integrator=Integrator.constant(20))
    >>> print(found.spectrum.shape, bool(abs(found.largest) < 1e-4))
    (2,) True
    """
    if tangents is None:
        tangents = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    num = tangents.shape[0]
    _check_counts(num, num_intervals, x.size)
    field = _TangentField(vector_field, num)
    edges = t0 + (t1 - t0) * jnp.linspace(0.0, 1.0, num_intervals + 1, dtype=x.dtype)

    def interval(carry, times):
        x, tangents, product, log_scale = carry
        state = jnp.concatenate([x[None], tangents])
        end = integrate_flow(field, state, t0=times[0], t1=times[1], integrator=integrator, condition=condition)
        q, r = jnp.linalg.qr(end.x[1:].reshape(num, -1).T)
        # The product of all R has the singular values of the Jacobian: its scale is kept apart, against overflow.
        product = r @ product
        scale = jnp.max(jnp.abs(product))
        carry = (end.x[0], q.T.reshape(tangents.shape), product / scale, log_scale + jnp.log(scale))
        return carry, (jnp.log(jnp.abs(jnp.diagonal(r))), end.info)

    start = (x, tangents, jnp.eye(num, dtype=x.dtype), jnp.zeros((), x.dtype))
    (x, tangents, product, log_scale), (growth, infos) = jax.lax.scan(interval, start, (edges[:-1], edges[1:]))
    info = SolveInfo(
        jnp.max(infos.status), jnp.sum(infos.num_accepted), jnp.sum(infos.num_rejected), jnp.sum(infos.num_evaluations)
    )
    length = jnp.abs(edges[-1] - edges[0])
    finite_time = (jnp.log(jnp.linalg.svd(product, compute_uv=False)) + log_scale) / length
    # Where a solve failed its end is NaN, and so is all that follows.
    return LyapunovExponents(finite_time, jnp.sum(growth, 0) / length, x, tangents, info)


def _check_counts(num: int, num_intervals: int, size: int) -> None:
    if not 1 <= num <= size or num_intervals < 1:
        raise ValueError(
            f"Expected 1 to {size} tangent vectors and an interval, got {num} and {num_intervals}; try tangents=None."
        )

"""A density: a flow, the core, on the points that a frame makes of data."""

import math
from typing import Any

import equinox as eqx
import jax

from ._types import Condition, Key, Point, Scalar
from .distributions import AbstractDistribution, Transformed
from .frames import AbstractFrame, Frame
from .integrate import Integrator


class FittedSteps(eqx.Module):
    """Steps that are fitted to a flow (`liouville.bespoke.fit_steps`), and how far they can be trusted.

    Attributes
    ----------
    score, sample
        Integrators from data to base, with the log-determinant, and from base to data, without.
    score_error
        Mean absolute error of the log-density, in nats, on paths that were not fitted to.
    sample_error
        Mean absolute error of a drawn point's coordinates, in the units of the base.
    least_score, least_sample
        Where the flow's log-density, under conditions the base's, or for draws the base's, is lower than this, points
        are to be solved by adaptive steps. Entries that a point lacks count as they do on average.
    """

    score: Integrator
    sample: Integrator
    score_error: float = eqx.field(static=True)
    sample_error: float = eqx.field(static=True)
    least_score: float = eqx.field(static=True)
    least_sample: float = eqx.field(static=True)


class Density(AbstractDistribution):
    """The distribution of data on whose points, made by a frame, the core is a distribution.

    What training moves is in the core, and in the noise of a frame that has some. Its methods are those of any
    distribution, in JAX's precision throughout; `liouville.evaluation` takes tables, and runs the frame on the host.

    Parameters
    ----------
    core
        A flow, in the frame's coordinates.
    frame
        What is done to data before it.
    steps
        Steps that are fitted to the core: `liouville.evaluation` solves likely rows by them. None, and the methods of
        the density itself, solve as the core says.

    Raises
    ------
    ValueError
        Where the shapes of core and frame differ.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from liouville.bijections import CNF, Standardize
    >>> from liouville.distributions import Normal
    >>> from liouville.vector_fields import MLP
    >>> core = Transformed(Normal.standard((1,)), CNF(MLP((1,), key=jax.random.key(0))))
    >>> density = Density(core, Frame((1,), (Standardize([0.0], [2.0]),)))
    >>> print(density.log_prob(jnp.zeros(1)).round(4))
    -1.6121
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    core: Any
    frame: Any
    steps: FittedSteps | None

    def __init__(self, core: Any, frame: AbstractFrame, steps: FittedSteps | None = None):
        if core.shape != frame.core_shape:
            raise ValueError(
                f"Expected a frame of the core's shape {core.shape}, got {frame.core_shape}; try Frame({core.shape})."
            )
        self.core, self.frame, self.steps = core, frame, steps
        self.shape, self.cond_shape = frame.shape, core.cond_shape

    @staticmethod
    def of(flow: "Transformed | Density") -> "Density":
        """Return a density as it is, and a flow as one of data that are points already."""
        return flow if isinstance(flow, Density) else Density(flow, Frame(flow.shape))

    @property
    def needs_condition(self) -> bool:
        """Return True where the core has no density without a condition."""
        return self.core.needs_condition

    def log_prob_bound(self, x: Point, condition: Condition = None, *, key: Key, num_draws: int = 1) -> Scalar:
        """Return a stochastic lower bound of the log-probability of one point of whole numbers, in nats.

        Parameters
        ----------
        x
            The point.
        condition
            The condition, or None.
        key
            Key for the noise, and for a stochastic divergence.
        num_draws
            Draws of the noise; with several, the importance-weighted bound (Burda and others, 2016, equation 8),
            which in expectation is tighter the more there are.
        """
        terms = jax.vmap(lambda k: self._log_prob(x, condition, k))(jax.random.split(key, num_draws))
        return jax.nn.logsumexp(terms) - math.log(num_draws)

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        drawn = None
        if self.frame.noise is not None:
            if key is None:
                raise ValueError("Expected a key for the noise of whole numbers, got None; try key=jax.random.key(0).")
            noise_key, key = jax.random.split(key)
            drawn = self.frame.draw(x, noise_key)
        points, change = self.frame.encode(x, drawn)
        return self.core._log_prob(points, condition, key) + change

    def _sample(self, key: Key, condition: Condition) -> Point:
        return self.frame.decode(self.core._sample(key, condition))

    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]:
        if self.frame.noise is not None:
            sample_key, key = jax.random.split(key)
            x = self._sample(sample_key, condition)
            return x, self._log_prob(x, condition, key)
        points, log_prob = self.core._sample_and_log_prob(key, condition)
        x, log_det = self.frame.decode_and_log_det(points)
        return x, log_prob - log_det

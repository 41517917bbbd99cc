"""Targets that are known up to a factor: the four of Rezende and Mohamed (2015, table 1)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

Points = Float[Array, "*batch 2"]


@dataclasses.dataclass(frozen=True)
class Energy:
    """A density in the plane that is known up to its normalizer.

    Attributes
    ----------
    name
        Its name.
    log_density
        Function of points, of shape ``(..., 2)``, that returns their log-densities up to a constant, in nats. It is
        written for JAX: it can be compiled and differentiated.
    reach
        Beyond this, up, down, left and right, the density is negligible.
    """

    name: str
    log_density: Callable[[Points], Float[Array, "*batch"]]
    reach: float

    def grid(self, num: int = 400) -> tuple[np.ndarray, float]:
        """Return the midpoints of ``num x num`` cells, of shape ``(num, num, 2)``, rows upwards, and a cell's area."""
        edge = (np.arange(num) + 0.5) * (2 * self.reach / num) - self.reach
        return np.stack(np.meshgrid(edge, edge), axis=-1), (2 * self.reach / num) ** 2

    def log_normalizer(self, num: int = 1000) -> float:
        """Return the log of the integral, by the midpoint rule on a grid: exact to many digits where it is fine."""
        points, area = self.grid(num)
        return float(logsumexp(self._on(points)) + np.log(area))

    def sample(self, rng: np.random.Generator, num: int, num_cells: int = 1000) -> np.ndarray:
        """Draw points: cells of a grid by their mass, and uniformly within: exact up to the width of a cell."""
        points, area = self.grid(num_cells)
        values = self._on(points).ravel()
        chosen = rng.choice(values.size, num, p=np.exp(values - logsumexp(values)))
        return points.reshape(-1, 2)[chosen] + rng.uniform(-0.5, 0.5, (num, 2)) * np.sqrt(area)

    def _on(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(self.log_density(jnp.asarray(points)), np.float64)


def ring_with_two_lobes() -> Energy:
    """Return a ring of radius 2 with most of its mass left and right (Rezende and Mohamed's first).

    Examples
    --------
    >>> print(round(ring_with_two_lobes().log_normalizer(), 2))
    1.88
    """

    def log_density(x: Points) -> Float[Array, "*batch"]:
        # Safe at the centre, where the gradient of a length is no number.
        length = jnp.sqrt(jnp.sum(x**2, axis=-1) + 1e-12)
        lobes = jnp.logaddexp(_bell(x[..., 0] - 2, 0.6), _bell(x[..., 0] + 2, 0.6))
        return _bell(length - 2, 0.4) + lobes

    return Energy("ring with two lobes", log_density, 6.0)


def sine_wave() -> Energy:
    """Return a ridge along a sine (Rezende and Mohamed's second), with ends: theirs goes on for ever."""
    return _between_ends("sine wave", lambda x: _bell(x[..., 1] - _sine(x), 0.4))


def split_wave() -> Energy:
    """Return a sine that splits in two and joins again (Rezende and Mohamed's third), with ends."""

    def log_density(x: Points) -> Float[Array, "*batch"]:
        height = x[..., 1] - _sine(x)
        return jnp.logaddexp(_bell(height, 0.35), _bell(height + 3 * jnp.exp(_bell(x[..., 0] - 1, 0.6)), 0.35))

    return _between_ends("split wave", log_density)


def forked_wave() -> Energy:
    """Return a sine from which another branches off (Rezende and Mohamed's fourth), with ends."""

    def log_density(x: Points) -> Float[Array, "*batch"]:
        height = x[..., 1] - _sine(x)
        branch = height + 3 * jax.nn.sigmoid((x[..., 0] - 1) / 0.3)
        return jnp.logaddexp(_bell(height, 0.4), _bell(branch, 0.35))

    return _between_ends("forked wave", log_density)


def rezende_mohamed() -> tuple[Energy, ...]:
    """Return the four targets of Rezende and Mohamed, in their order."""
    return ring_with_two_lobes(), sine_wave(), split_wave(), forked_wave()


def _between_ends(name: str, log_density: Callable[[Points], Float[Array, "*batch"]]) -> Energy:
    """Return the target with soft walls at ``|x| = 4``, where the paper's pictures end: without, it has no integral."""

    def walled(x: Points) -> Float[Array, "*batch"]:
        return log_density(x) + _bell(jax.nn.relu(jnp.abs(x[..., 0]) - 4), 0.4)

    return Energy(name, walled, 8.0)


def _bell(x: Float[Array, "*batch"], width: float) -> Float[Array, "*batch"]:
    return -0.5 * (x / width) ** 2


def _sine(x: Points) -> Float[Array, "*batch"]:
    return jnp.sin(jnp.pi / 2 * x[..., 0])

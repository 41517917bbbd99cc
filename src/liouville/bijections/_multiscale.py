"""Flows of pictures at several scales: squeeze, split, and what lies between."""

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._draws import split
from .._types import Condition, Key, Point
from ..vector_fields import AbstractVectorField
from ._base import AbstractBijection, Chain, Moved
from ._cnf import CNF

SMALLEST_SIDE = 4


class Squeeze(AbstractBijection):
    """Each 2 x 2 pixels become four times as many channels (Dinh and others, Real NVP, 2017); the log-determinant is 0.

    The shape stays that of the picture: entries are only put in the order of the smaller one.

    Parameters
    ----------
    shape
        Shape of the picture, its sides even: height, width, channels.

    Raises
    ------
    ValueError
        Where a side is odd.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> z = Squeeze((2, 4, 1)).inverse(jnp.arange(8.0).reshape(2, 4, 1))
    >>> print(z.reshape(1, 2, 4))
    [[[0. 1. 4. 5.]
      [2. 3. 6. 7.]]]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...]):
        if shape[0] % 2 or shape[1] % 2:
            raise ValueError(f"Expected a picture with even sides to squeeze, got {shape}; try padding it.")
        self.shape, self.cond_shape = tuple(shape), None

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Put channels back into pixels."""
        height, width, channels = self.shape
        x = z.reshape(height // 2, width // 2, channels, 2, 2).transpose(0, 3, 1, 4, 2)
        return Moved(x.reshape(self.shape), jnp.zeros(()))

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Put pixels into channels."""
        height, width, channels = self.shape
        z = x.reshape(height // 2, 2, width // 2, 2, channels).transpose(0, 2, 4, 1, 3)
        return Moved(z.reshape(self.shape), jnp.zeros(()))


class Split(AbstractBijection):
    """The first half of the channels comes before the other half; the log-determinant is 0.

    Parameters
    ----------
    shape
        Shape of the picture: height, width, channels.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> z = Split((1, 2, 2)).inverse(jnp.arange(4.0).reshape(1, 2, 2))
    >>> print(z.ravel())
    [0. 2. 1. 3.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...]):
        self.shape, self.cond_shape = tuple(shape), None

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Put the halves beside each other again."""
        height, width, channels = self.shape
        half, flat = channels // 2, jnp.ravel(z)
        first = flat[: height * width * half].reshape(height, width, half)
        second = flat[height * width * half :].reshape(height, width, channels - half)
        return Moved(jnp.concatenate([first, second], axis=-1), jnp.zeros(()))

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Put the first half before the other."""
        half = self.shape[-1] // 2
        flat = jnp.concatenate([jnp.ravel(x[..., :half]), jnp.ravel(x[..., half:])])
        return Moved(flat.reshape(self.shape), jnp.zeros(()))


class Leading(AbstractBijection):
    """A bijection of the first entries of a point, taken as a point of their own shape; the rest stays.

    Parameters
    ----------
    bijection
        What is done to them.
    shape
        Shape of the whole point.

    Raises
    ------
    ValueError
        Where the bijection has more entries.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from liouville.bijections import Standardize
    >>> x, log_det = Leading(Standardize([0.0], [3.0]), (2,)).transform_and_log_det(jnp.ones(2))
    >>> print(x)
    [3. 1.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    bijection: AbstractBijection

    def __init__(self, bijection: AbstractBijection, shape: tuple[int, ...]):
        if math.prod(bijection.shape) > math.prod(shape):
            raise ValueError(
                f"Expected a bijection of no more entries than {tuple(shape)} has, got one of shape {bijection.shape}; "
                "try a larger shape."
            )
        self.bijection, self.shape, self.cond_shape = bijection, tuple(shape), bijection.cond_shape

    @property
    def is_solved(self) -> bool:
        """Return True where an ODE is solved inside."""
        return self.bijection.is_solved

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map the first entries of the base."""
        return self._on_first(self.bijection.to_data, z, condition, density, key)

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map the first entries of the data."""
        return self._on_first(self.bijection.to_base, x, condition, density, key)

    def _on_first(
        self, way: Callable[..., Moved], point: Point, condition: Condition, density: bool, key: Key | None
    ) -> Moved:
        size, flat = int(np.prod(self.bijection.shape)), jnp.ravel(point)
        moved = way(flat[:size].reshape(self.bijection.shape), condition, density=density, key=key)
        return dataclasses.replace(moved, x=jnp.concatenate([jnp.ravel(moved.x), flat[size:]]).reshape(self.shape))


def multiscale(
    shape: tuple[int, ...],
    field: Callable[[tuple[int, ...], Key], AbstractVectorField],
    *,
    blocks: int = 2,
    key: Key,
    **parts,
) -> Chain:
    """Return FFJORD's and RNODE's multiscale flow of pictures (Grathwohl and others, 2019, section 4.2).

    From the data on: `blocks` flows at full size, a squeeze of each 2 x 2 pixels into channels, `blocks` flows more,
    half of whose channels go to the base as they are; then the same with the other half, until a side would be
    shorter than 4. With `ConvNet`'s defaults and two blocks that are the published nets.

    Parameters
    ----------
    shape
        Shape of one picture: height, width, channels.
    field
        Function of a shape and a key that makes the vector field of one flow.
    blocks
        Flows before and after each squeeze.
    key
        Key for the initial weights.
    **parts
        What else each `CNF` is made of: ``divergence``, ``integrator``, ``regularizers``.

    Returns
    -------
    Chain
        Base to data; the base has the shape of the picture.

    Raises
    ------
    ValueError
        Where a side that is to be halved is odd.

    Examples
    --------
    >>> import jax
    >>> from liouville.vector_fields import ConvNet
    >>> field = lambda shape, key: ConvNet(shape, width=4, depth=1, key=key)
    >>> flow = multiscale((8, 8, 1), field, blocks=1, key=jax.random.key(0))
    >>> [link.bijection.shape for link in flow.links[::-1] if isinstance(link.bijection, CNF)]
    [(8, 8, 1), (4, 4, 4), (4, 4, 2)]
    """
    links, active = [], tuple(shape)
    scales = count_scales(shape)
    keys = iter(split(key, 2 * blocks * scales))
    flows = lambda size: [CNF(field(size, next(keys)), **parts) for _ in range(blocks)]
    for _ in range(scales - 1):
        height, width, channels = active
        squeezed = (height // 2, width // 2, 4 * channels)
        links += [*flows(active), Squeeze(active), *flows(squeezed), Split(squeezed)]
        active = (height // 2, width // 2, 2 * channels)
    links += flows(active)
    return Chain([Leading(link, shape) for link in links[::-1]])


def count_scales(shape: tuple[int, ...]) -> int:
    """Return how often a picture can be halved before a side is shorter than `SMALLEST_SIDE`, and once more."""
    scales, side = 1, min(shape[:2])
    while side // 2 >= SMALLEST_SIDE:
        scales, side = scales + 1, side // 2
    return scales

"""Flows of pictures at several scales: squeeze, split, and what lies between."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Condition, Key, Point, Scalar
from ..integrate import SolveInfo
from ..vector_fields import AbstractVectorField
from ._base import AbstractBijection, Chain, Report
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

    def transform_and_log_det(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Put channels back into pixels."""
        height, width, channels = self.shape
        x = z.reshape(height // 2, width // 2, channels, 2, 2).transpose(0, 3, 1, 4, 2)
        return x.reshape(self.shape), jnp.zeros(())

    def inverse_and_log_det(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Put pixels into channels."""
        height, width, channels = self.shape
        z = x.reshape(height // 2, 2, width // 2, 2, channels).transpose(0, 2, 4, 1, 3)
        return z.reshape(self.shape), jnp.zeros(())


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

    def transform_and_log_det(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Put the halves beside each other again."""
        height, width, channels = self.shape
        half, flat = channels // 2, jnp.ravel(z)
        first = flat[: height * width * half].reshape(height, width, half)
        second = flat[height * width * half :].reshape(height, width, channels - half)
        return jnp.concatenate([first, second], axis=-1), jnp.zeros(())

    def inverse_and_log_det(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Put the first half before the other."""
        half = self.shape[-1] // 2
        return jnp.concatenate([jnp.ravel(x[..., :half]), jnp.ravel(x[..., half:])]).reshape(self.shape), jnp.zeros(())


class Leading(AbstractBijection):
    """A bijection of the first entries of a point, taken as a point of their own shape; the rest stays.

    Parameters
    ----------
    bijection
        What is done to them.
    shape
        Shape of the whole point.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from liouville.bijections import Standardize
    >>> x, log_det = Leading(Standardize([0.0], [3.0]), (2,)).transform_and_log_det(jnp.ones(2))
    >>> print(x)
    [3. 1.]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    bijection: AbstractBijection

    def __init__(self, bijection: AbstractBijection, shape: tuple[int, ...]):
        self.bijection, self.shape = bijection, tuple(shape)

    @property
    def cond_shape(self) -> tuple[int, ...] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Shape of the condition, or None."""
        return self.bijection.cond_shape

    @property
    def is_solved(self) -> bool:
        """Return True where an ODE is solved inside."""
        return self.bijection.is_solved

    def transform_and_log_det(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map the first entries of the base."""
        return self.transform_and_report(z, condition, key=key)[:2]

    def inverse_and_log_det(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map the first entries of the data."""
        return self.inverse_and_report(x, condition, key=key)[:2]

    def transform_and_info(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, SolveInfo]:
        """Map the first entries of the base, and say what it took."""
        return self._on_first(self.bijection.transform_and_info, z, condition, key)  # pyright: ignore[reportReturnType]

    def inverse_and_info(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, SolveInfo]:
        """Map the first entries of the data, and say what it took."""
        return self._on_first(self.bijection.inverse_and_info, x, condition, key)  # pyright: ignore[reportReturnType]

    def transform_and_report(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar, Report]:
        """Map the first entries of the base, and report."""
        return self._on_first(self.bijection.transform_and_report, z, condition, key)  # pyright: ignore[reportReturnType]

    def inverse_and_report(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar, Report]:
        """Map the first entries of the data, and report."""
        return self._on_first(self.bijection.inverse_and_report, x, condition, key)  # pyright: ignore[reportReturnType]

    def _on_first(self, function: Callable, point: Point, condition: Condition, key: Key | None) -> tuple:
        size, flat = int(np.prod(self.bijection.shape)), jnp.ravel(point)
        first, *said = function(flat[:size].reshape(self.bijection.shape), condition, key=key)
        return jnp.concatenate([jnp.ravel(first), flat[size:]]).reshape(self.shape), *said


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
    keys = iter(jax.random.split(key, 2 * blocks * scales))
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

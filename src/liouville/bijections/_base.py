"""The protocol of a bijection, its inversion and its composition."""

import abc
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Condition, Key, Point, Scalar
from ..integrate import SolveInfo

Tree = TypeVar("Tree")


def common_cond_shape(parts: Iterable) -> tuple[int, ...] | None:
    """Return the shape of the condition of those parts of a flow that take one, or None.

    Raises
    ------
    ValueError
        Where two of them take conditions of different shapes.
    """
    shapes = sorted({part.cond_shape for part in parts} - {None})
    if len(shapes) > 1:
        raise ValueError(f"Expected conditions of one shape, got {shapes}; try fields of one cond_shape.")
    return shapes[0] if shapes else None


class Moved(eqx.Module):
    """Where a bijection takes a point, and what is known of the way; over a chain it is added up.

    Attributes
    ----------
    x
        The image.
    log_det
        Logarithm of the absolute value of the map's Jacobian determinant, in nats; None where it was not asked for.
    variance
        Squared standard error of `log_det`; 0 where it is exact.
    penalties
        Weighted integrals of the regularizers, by name.
    info
        The worst status and the summed costs of the solves.
    """

    x: Point
    log_det: Scalar | None
    variance: Scalar | float = 0.0
    penalties: dict[str, Scalar] = eqx.field(default_factory=dict)
    # Numbers, not arrays: closed forms run on the host, and should ask no device for zeros.
    info: SolveInfo = eqx.field(default_factory=lambda: SolveInfo(0, 0, 0, 0))  # pyright: ignore[reportArgumentType]

    def then(self, other: "Moved") -> "Moved":
        """Return the whole way, where another one goes on from this one's end."""
        log_det = None if self.log_det is None or other.log_det is None else self.log_det + other.log_det
        return Moved(
            other.x,
            log_det,
            self.variance + other.variance,
            _summed(self.penalties, other.penalties),
            self.info + other.info,
        )


def _summed(some: dict[str, Scalar], others: dict[str, Scalar]) -> dict[str, Scalar]:
    return {name: some.get(name, 0.0) + others.get(name, 0.0) for name in {**some, **others}}  # pyright: ignore[reportReturnType]


class AbstractBijection(eqx.Module):
    """An invertible map of one point, base to data, with its log-determinant.

    Subclasses define the two directions, `to_data` and `to_base`; all else is a shorter way to ask for them.

    Attributes
    ----------
    shape
        Shape of one point.
    cond_shape
        Shape of the condition, or None.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]
    cond_shape: eqx.AbstractVar[tuple[int, ...] | None]

    @property
    def is_solved(self) -> bool:
        """Return True where an ODE is solved inside: such links are worth compiling as one."""
        return False

    @abc.abstractmethod
    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map base to data; without `density` the log-determinant may be left out where it costs extra."""

    @abc.abstractmethod
    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map data to base; without `density` the log-determinant may be left out where it costs extra."""

    def transform(self, z: Point, condition: Condition = None, *, key: Key | None = None) -> Point:
        """Map base to data."""
        return self.to_data(z, condition, density=False, key=key).x

    def inverse(self, x: Point, condition: Condition = None, *, key: Key | None = None) -> Point:
        """Map data to base."""
        return self.to_base(x, condition, density=False, key=key).x

    def transform_and_log_det(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map base to data; return the image and ``log|det dx/dz|`` in nats."""
        moved = self.to_data(z, condition, key=key)
        return moved.x, cast(Scalar, moved.log_det)

    def inverse_and_log_det(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map data to base; return the image and ``log|det dz/dx|`` in nats."""
        moved = self.to_base(x, condition, key=key)
        return moved.x, cast(Scalar, moved.log_det)


class Invert(AbstractBijection):
    """A bijection the other way round.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from liouville.bijections import Standardize
    >>> x, log_det = Invert(Standardize([0.0], [2.0])).transform_and_log_det(jnp.array([4.0]))
    >>> print(x)
    [2.]
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    bijection: AbstractBijection

    def __init__(self, bijection: AbstractBijection):
        self.bijection, self.shape, self.cond_shape = bijection, bijection.shape, bijection.cond_shape

    @property
    def is_solved(self) -> bool:
        """Return True where an ODE is solved inside."""
        return self.bijection.is_solved

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map by the inverse of the bijection inside."""
        return self.bijection.to_base(z, condition, density=density, key=key)

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map by the bijection inside."""
        return self.bijection.to_data(x, condition, density=density, key=key)


class Chain(AbstractBijection):
    """Bijections one after the other; the first is the nearest to the base.

    Parameters
    ----------
    links
        The bijections, all of one shape.

    Raises
    ------
    ValueError
        Where there is no link, or the shapes of the links differ, or the shapes of their conditions.
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    links: tuple[AbstractBijection, ...]

    def __init__(self, links):
        self.links = tuple(links)
        shapes = sorted({link.shape for link in self.links})
        if len(shapes) != 1:
            raise ValueError(f"Expected links of one shape, got {shapes}; try links that fit each other.")
        self.shape, self.cond_shape = shapes[0], common_cond_shape(self.links)

    @property
    def is_solved(self) -> bool:
        """Return True where an ODE is solved inside."""
        return any(link.is_solved for link in self.links)

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map through the links in order."""
        return _through(self.links, "to_data", z, condition, density, key)

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map back through the links in reverse order."""
        return _through(self.links[::-1], "to_base", x, condition, density, key)


def _through(
    links: tuple[AbstractBijection, ...], way: str, point: Point, condition: Condition, density: bool, key: Key | None
) -> Moved:
    """Take a point through links, each by its method of this name.

    Neighbours that solve an ODE and differ in their numbers alone are one loop: they are compiled once.
    """
    total = Moved(point, cast(Scalar, 0.0))
    keys = [None] * len(links) if key is None else jax.random.split(key, len(links))
    parts = [eqx.partition(link, eqx.is_array) for link in links]
    for run in _runs(links, parts):
        numbers, (rest, *_) = zip(*parts[run], strict=True)

        def one(point: Point, numbers_and_key: tuple, rest=rest) -> tuple[Point, Moved]:
            numbers, link_key = numbers_and_key
            moved = getattr(eqx.combine(numbers, rest), way)(point, condition, density=density, key=link_key)
            return moved.x, moved

        if len(numbers) == 1:
            total = total.then(one(total.x, (numbers[0], keys[run][0]))[1])
        else:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *numbers)
            _, moved = jax.lax.scan(one, total.x, (stacked, None if key is None else keys[run]))
            for i in range(len(numbers)):
                total = total.then(jax.tree.map(lambda leaf, i=i: leaf[i], moved))
    return total


def _runs(links: tuple[AbstractBijection, ...], parts: list[tuple]) -> list[slice]:
    """Return which neighbours are one loop; most are alone. `parts` are the links' numbers and what else they are."""
    bounds = [0]
    for i in range(1, len(links)):
        (numbers, rest), (last_numbers, last_rest) = parts[i], parts[i - 1]
        shapes, last = ([(a.shape, a.dtype) for a in jax.tree.leaves(tree)] for tree in (numbers, last_numbers))
        if not (links[i].is_solved and shapes == last and bool(eqx.tree_equal(rest, last_rest))):
            bounds.append(i)
    return [slice(start, end) for start, end in zip(bounds, [*bounds[1:], len(links)], strict=True)]


def map_parts(kind: type, fn: Callable, tree: Tree) -> Tree:
    """Return a flow, or any part of one, with `fn` applied to each part of it that is of this kind."""
    is_part = lambda node: isinstance(node, kind)
    return jax.tree.map(lambda node: fn(node) if is_part(node) else node, tree, is_leaf=is_part)

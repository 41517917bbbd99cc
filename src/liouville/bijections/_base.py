"""The protocol of a bijection, its inversion and its composition."""

import abc
from collections.abc import Callable, Iterable
from typing import TypeVar

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


class Report(eqx.Module):
    """What the solves inside a bijection say of themselves, added up over a chain.

    Attributes
    ----------
    variance
        Squared standard error of the log-determinant; 0 where it is exact.
    penalties
        Weighted integrals of the regularizers, by name.
    info
        The worst status and the summed costs of the solves.
    """

    variance: Scalar
    penalties: dict[str, Scalar]
    info: SolveInfo

    @staticmethod
    def empty() -> "Report":
        """Return the report of a bijection that solves nothing."""
        zero = jnp.zeros((), int)
        return Report(jnp.zeros(()), {}, SolveInfo(zero, zero, zero, zero))

    def __add__(self, other: "Report") -> "Report":
        names = {**self.penalties, **other.penalties}
        penalties = {name: self.penalties.get(name, 0.0) + other.penalties.get(name, 0.0) for name in names}
        return Report(self.variance + other.variance, penalties, self.info + other.info)  # pyright: ignore[reportArgumentType]


class AbstractBijection(eqx.Module):
    """An invertible map of one point, base to data, with its log-determinant.

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
    def transform_and_log_det(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map base to data; return the image and ``log|det dx/dz|`` in nats."""

    @abc.abstractmethod
    def inverse_and_log_det(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map data to base; return the image and ``log|det dz/dx|`` in nats."""

    def transform(self, z: Point, condition: Condition = None, *, key: Key | None = None) -> Point:
        """Map base to data."""
        return self.transform_and_info(z, condition, key=key)[0]

    def inverse(self, x: Point, condition: Condition = None, *, key: Key | None = None) -> Point:
        """Map data to base."""
        return self.inverse_and_info(x, condition, key=key)[0]

    def transform_and_info(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, SolveInfo]:
        """Map base to data, and say what it took; a bijection whose log-determinant costs extra overrides this."""
        x, _, report = self.transform_and_report(z, condition, key=key)
        return x, report.info

    def inverse_and_info(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, SolveInfo]:
        """Map data to base, and say what it took; a bijection whose log-determinant costs extra overrides this."""
        z, _, report = self.inverse_and_report(x, condition, key=key)
        return z, report.info

    def transform_and_report(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar, Report]:
        """Do as `transform_and_log_det`, and say what the solves inside say of themselves."""
        return *self.transform_and_log_det(z, condition, key=key), Report.empty()

    def inverse_and_report(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar, Report]:
        """Do as `inverse_and_log_det`, and say what the solves inside say of themselves."""
        return *self.inverse_and_log_det(x, condition, key=key), Report.empty()


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

    bijection: AbstractBijection

    def __init__(self, bijection: AbstractBijection):
        self.bijection = bijection

    @property
    def shape(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Shape of one point."""
        return self.bijection.shape

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
        """Map by the inverse of the bijection inside."""
        return self.bijection.inverse_and_log_det(z, condition, key=key)

    def inverse_and_log_det(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map by the bijection inside."""
        return self.bijection.transform_and_log_det(x, condition, key=key)

    def transform_and_info(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, SolveInfo]:
        """Map by the inverse of the bijection inside."""
        return self.bijection.inverse_and_info(z, condition, key=key)

    def inverse_and_info(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, SolveInfo]:
        """Map by the bijection inside."""
        return self.bijection.transform_and_info(x, condition, key=key)

    def transform_and_report(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar, Report]:
        """Map by the inverse of the bijection inside, and report."""
        return self.bijection.inverse_and_report(z, condition, key=key)

    def inverse_and_report(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar, Report]:
        """Map by the bijection inside, and report."""
        return self.bijection.transform_and_report(x, condition, key=key)


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

    links: tuple[AbstractBijection, ...]

    def __init__(self, links):
        self.links = tuple(links)
        shapes = sorted({link.shape for link in self.links})
        if len(shapes) != 1:
            raise ValueError(f"Expected links of one shape, got {shapes}; try links that fit each other.")
        common_cond_shape(self.links)

    @property
    def shape(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Shape of one point."""
        return self.links[0].shape

    @property
    def cond_shape(self) -> tuple[int, ...] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Shape of the condition of the links that take one, or None."""
        return common_cond_shape(self.links)

    @property
    def is_solved(self) -> bool:
        """Return True where an ODE is solved inside."""
        return any(link.is_solved for link in self.links)

    def transform_and_log_det(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map through the links in order."""
        return self.transform_and_report(z, condition, key=key)[:2]

    def inverse_and_log_det(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar]:
        """Map back through the links in reverse order."""
        return self.inverse_and_report(x, condition, key=key)[:2]

    def transform_and_info(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, SolveInfo]:
        """Map through the links in order, adding up what they took."""
        z, said = _through(self.links, "transform_and_info", z, condition, key)
        return z, sum((info for (info,) in said), Report.empty().info)

    def inverse_and_info(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, SolveInfo]:
        """Map back through the links in reverse order, adding up what they took."""
        x, said = _through(self.links[::-1], "inverse_and_info", x, condition, key)
        return x, sum((info for (info,) in said), Report.empty().info)

    def transform_and_report(
        self, z: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar, Report]:
        """Map through the links in order, adding up their reports."""
        z, said = _through(self.links, "transform_and_report", z, condition, key)
        return z, *_added(said)

    def inverse_and_report(
        self, x: Point, condition: Condition = None, *, key: Key | None = None
    ) -> tuple[Point, Scalar, Report]:
        """Map back through the links in reverse order, adding up their reports."""
        x, said = _through(self.links[::-1], "inverse_and_report", x, condition, key)
        return x, *_added(said)


def _through(links: tuple[AbstractBijection, ...], method: str, point: Point, condition: Condition, key: Key | None):
    """Take a point through links by their method of this name; return it, and what each link said.

    Neighbours that solve an ODE and differ in their numbers alone are one loop: they are compiled once.
    """
    said, keys = [], [None] * len(links) if key is None else jax.random.split(key, len(links))
    parts = [eqx.partition(link, eqx.is_array) for link in links]
    for run in _runs(links, parts):
        numbers, (rest, *_) = zip(*parts[run], strict=True)

        def one(point: Point, numbers_and_key: tuple, rest=rest):
            numbers, link_key = numbers_and_key
            point, *told = getattr(eqx.combine(numbers, rest), method)(point, condition, key=link_key)
            return point, told

        if len(numbers) == 1:
            point, told = one(point, (numbers[0], keys[run][0]))
            said.append(told)
        else:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *numbers)
            point, told = jax.lax.scan(one, point, (stacked, None if key is None else keys[run]))
            said += [jax.tree.map(lambda leaf, i=i: leaf[i], told) for i in range(len(numbers))]
    return point, said


def _runs(links: tuple[AbstractBijection, ...], parts: list[tuple]) -> list[slice]:
    """Return which neighbours are one loop; most are alone. `parts` are the links' numbers and what else they are."""
    bounds = [0]
    for i in range(1, len(links)):
        (numbers, rest), (last_numbers, last_rest) = parts[i], parts[i - 1]
        shapes, last = ([(a.shape, a.dtype) for a in jax.tree.leaves(tree)] for tree in (numbers, last_numbers))
        if not (links[i].is_solved and shapes == last and bool(eqx.tree_equal(rest, last_rest))):
            bounds.append(i)
    return [slice(start, end) for start, end in zip(bounds, [*bounds[1:], len(links)], strict=True)]


def _added(said: list) -> tuple[Scalar, Report]:
    """Return the sums of log-determinants and reports."""
    log_det, report = 0.0, Report.empty()
    for change, told in said:
        log_det, report = log_det + change, report + told
    return log_det, report  # pyright: ignore[reportReturnType]


def map_parts(kind: type, fn: Callable, tree: Tree) -> Tree:
    """Return a flow, or any part of one, with `fn` applied to each part of it that is of this kind."""
    is_part = lambda node: isinstance(node, kind)
    return jax.tree.map(lambda node: fn(node) if is_part(node) else node, tree, is_leaf=is_part)

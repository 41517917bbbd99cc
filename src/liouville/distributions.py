"""Distributions: a density that can be evaluated and sampled."""

import abc
import math
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ._types import Condition, FixedMixin, Key, Point, Scalar, constant
from .bijections import CNF, AbstractBijection, Invert, Moved, common_cond_shape, map_integrators
from .integrate import Integrator, SolveInfo


class AbstractDistribution(eqx.Module):
    """A distribution over points of one shape.

    Subclasses define the methods on one point (`_log_prob`, `_sample`, `_sample_and_log_prob`); the
    public ones take leading axes and map over them.

    Attributes
    ----------
    shape
        Shape of one point.
    cond_shape
        Shape of the condition, or None.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]
    cond_shape: eqx.AbstractVar[tuple[int, ...] | None]

    @abc.abstractmethod
    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar: ...

    @abc.abstractmethod
    def _sample(self, key: Key, condition: Condition) -> Point: ...

    @abc.abstractmethod
    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]: ...

    def _likelihood(self, x: Point, condition: Condition) -> Scalar:
        """Return how likely a point is beside those under all conditions: its log-density, in nats."""
        return self._log_prob(x, condition, None)

    def log_prob(
        self, x: Float[Array, "*batch_and_shape"], condition=None, *, key: Key | None = None
    ) -> Float[Array, "*batch"]:
        """Return the log-density of points with any leading axes, in nats.

        Parameters
        ----------
        x
            Points, of shape ``(*batch, *shape)``.
        condition
            Conditions, of shape ``(*batch, *cond_shape)``, or None where there are none. Leading axes of points and
            conditions are broadcast as NumPy's are.
        key
            Key for a stochastic divergence; exact ones need none.

        Raises
        ------
        ValueError
            Where the trailing axes of `x` are not `shape`, those of `condition` not `cond_shape`, or the leading ones
            do not fit.
        """
        x = jnp.asarray(x, jnp.result_type(float))
        condition = self._as_array(condition)
        batch = self._batch_shape(x, condition)
        rows = jnp.broadcast_to(x, (*batch, *self.shape)).reshape(-1, *self.shape)
        conditions = self._spread(condition, batch)
        keys = None if key is None else jax.random.split(key, rows.shape[0])
        axes = (0, None if conditions is None else 0, None if keys is None else 0)
        return jax.vmap(self._log_prob, axes)(rows, conditions, keys).reshape(batch)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = (), condition=None) -> Array:
        """Draw points, of shape ``(*sample_shape, *batch, *shape)`` for conditions of shape ``(*batch, *cond_shape)``.

        Raises
        ------
        ValueError
            Where the trailing axes of `condition` are not `cond_shape`.
        """
        return self._draw_all(key, sample_shape, condition, self._sample)

    def sample_and_log_prob(self, key: Key, sample_shape: tuple[int, ...] = (), condition=None) -> tuple[Array, Array]:
        """Draw points and return their log-densities with them, at the cost of one solve each; as `sample`."""
        return self._draw_all(key, sample_shape, condition, self._sample_and_log_prob)

    def _draw_all(self, key: Key, sample_shape: tuple[int, ...], condition, one: Callable) -> PyTree:
        """Return what `one` draws of one key and one condition, for `sample_shape` times all conditions."""
        condition = self._as_array(condition)
        batch = () if condition is None else condition.shape[: condition.ndim - len(self.cond_shape or ())]
        shape = (*sample_shape, *batch)
        keys = jax.random.split(key, math.prod(shape))
        if batch:
            condition = self._spread(condition, shape)
        drawn = jax.vmap(one, (0, 0 if batch else None))(keys, condition)
        return jax.tree.map(lambda part: part.reshape(*shape, *part.shape[1:]), drawn)

    def _spread(self, condition: Array | None, batch: tuple[int, ...]) -> Array | None:
        """Return one condition for each point of a batch, row by row."""
        shape = self.cond_shape or ()
        return None if condition is None else jnp.broadcast_to(condition, (*batch, *shape)).reshape(-1, *shape)

    def _batch_shape(self, x: Array, condition: Array | None) -> tuple[int, ...]:
        """Return the leading axes of points and conditions, broadcast."""
        split = x.ndim - len(self.shape)
        if split < 0 or x.shape[split:] != self.shape:
            raise ValueError(f"Expected points of shape {_any(self.shape)}, got {x.shape}; try x.reshape(-1, *shape).")
        if condition is None:
            return x.shape[:split]
        leading = condition.shape[: condition.ndim - len(self.cond_shape or ())]
        try:
            return np.broadcast_shapes(x.shape[:split], leading)
        except ValueError:
            raise ValueError(
                f"Expected leading axes of points and conditions that fit each other, got {x.shape[:split]} and "
                f"{leading}; try one condition for each point."
            ) from None

    @property
    def needs_condition(self) -> bool:
        """Return True where there is no density without a condition."""
        return self.cond_shape is not None

    def check_condition(self, condition) -> None:
        """Refuse conditions that are missing, too much or of another shape; nothing is copied."""
        shape, found = self.cond_shape, np.shape(condition)
        if condition is None and not self.needs_condition:
            return
        if shape is None and condition is not None:
            raise ValueError(f"Expected no condition, got one of shape {found}; try a flow of a field with cond_shape.")
        if shape is not None and condition is None:
            raise ValueError(f"Expected conditions of shape {_any(shape)}, got None; try condition=...")
        if shape is not None and (len(found) < len(shape) or found[len(found) - len(shape) :] != shape):
            raise ValueError(
                f"Expected conditions of shape {_any(shape)}, got {found}; try condition.reshape(-1, *cond_shape)."
            )

    def _as_array(self, condition) -> Array | None:
        """Return conditions that fit as an array, in JAX's present precision."""
        self.check_condition(condition)
        return None if condition is None else jnp.asarray(condition, jnp.result_type(float))


def _any(shape: tuple[int, ...]) -> str:
    """Return how a shape with any leading axes is written."""
    return f"(..., {str(shape)[1:]}"


class Normal(FixedMixin, AbstractDistribution):
    """Independent normal entries.

    Parameters
    ----------
    loc, scale
        Mean and standard deviation, of the shape of one point.
    trainable
        True makes mean and log-scale parameters; False keeps them constants.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> print(f"{Normal.standard((2,)).log_prob(jnp.zeros(2)):.4f}")
    -1.8379
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    trainable: bool = eqx.field(static=True)
    loc: Float[Array | np.ndarray, "*shape"]
    log_scale: Float[Array | np.ndarray, "*shape"]

    def __init__(self, loc, scale, trainable: bool = False):
        loc, log_scale = np.broadcast_arrays(constant(loc), np.log(constant(scale)))
        convert = jnp.asarray if trainable else constant
        self.loc, self.log_scale = convert(loc), convert(log_scale)
        self.shape, self.cond_shape, self.trainable = loc.shape, None, trainable

    @property
    def is_fixed(self) -> bool:
        """Return True where mean and log-scale are no parameters."""
        return not self.trainable

    @staticmethod
    def standard(shape: tuple[int, ...]) -> "Normal":
        """Return the standard normal distribution of `shape`, its parameters fixed."""
        return Normal(np.zeros(shape), np.ones(shape))

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        z = (x - self.loc) * jnp.exp(-self.log_scale)
        return -0.5 * jnp.sum(z**2) - jnp.sum(self.log_scale) - 0.5 * x.size * math.log(2 * math.pi)

    def _sample(self, key: Key, condition: Condition) -> Point:
        return self.loc + jnp.exp(self.log_scale) * jax.random.normal(key, self.shape)  # pyright: ignore[reportReturnType]

    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]:
        x = self._sample(key, condition)
        return x, self._log_prob(x, condition, None)


class Transformed(AbstractDistribution):
    """The distribution of ``bijection(z)`` with `z` from the base: a flow.

    Parameters
    ----------
    base
        Distribution of `z`.
    bijection
        The map from base to data.

    Raises
    ------
    ValueError
        Where the shapes of base and bijection differ, or the shapes of their conditions.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from liouville.bijections import Standardize
    >>> flow = Transformed(Normal.standard((1,)), Standardize([0.0], [2.0]))
    >>> print(flow.log_prob(jnp.zeros(1)).round(4))
    -1.6121
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    base: AbstractDistribution
    bijection: AbstractBijection

    def __init__(self, base: AbstractDistribution, bijection: AbstractBijection):
        if base.shape != bijection.shape:
            raise ValueError(
                f"Expected a base of the bijection's shape {bijection.shape}, got {base.shape}; try "
                f"Normal.standard({bijection.shape})."
            )
        self.base, self.bijection = base, bijection
        self.shape, self.cond_shape = bijection.shape, common_cond_shape([base, bijection])

    def _log_prob(self, x: Point, condition: Condition, key: Key | None) -> Scalar:
        z, log_det = self.bijection.inverse_and_log_det(x, condition, key=key)
        return self.base._log_prob(z, self.base_condition(condition), None) + log_det

    def _log_prob_and_report(self, x: Point, condition: Condition, key: Key | None) -> tuple[Scalar, Moved]:
        moved = self.bijection.to_base(x, condition, key=key)
        return self.base._log_prob(moved.x, self.base_condition(condition), None) + cast(Scalar, moved.log_det), moved

    def _sample_and_report(self, key: Key, condition: Condition) -> tuple[Point, SolveInfo, Scalar]:
        """Draw a point; return it, how it was solved, and how likely the point of the base is."""
        of_base = self.base_condition(condition)
        z = self.base._sample(key, of_base)
        moved = self.bijection.to_data(z, condition, density=False)
        return moved.x, moved.info, self.base._likelihood(z, of_base)

    def _likelihood_of(self, x: Point, condition: Condition, log_prob: Scalar, report: Moved) -> Scalar:
        """Return how likely a point is, given its log-density and how it was moved."""
        if self.cond_shape is None:
            return log_prob
        # Under some conditions all log-densities are higher than under others: there the base says what is likely.
        return self.base._likelihood(report.x, self.base_condition(condition))

    def solved_by(self, integrator: Integrator) -> "Transformed":
        """Return the flow with another integrator."""
        return map_integrators(lambda _: integrator, self)

    def solved_part(self, num: int, seed: int) -> tuple["Transformed", None]:
        """Return the flow whose solves are dear, and what it is conditioned on: itself, and nothing."""
        return self, None

    def _sample(self, key: Key, condition: Condition) -> Point:
        base_key, key = jax.random.split(key)
        z = self.base._sample(base_key, self.base_condition(condition))
        return self.bijection.transform(z, condition, key=key)

    def _sample_and_log_prob(self, key: Key, condition: Condition) -> tuple[Point, Scalar]:
        base_key, key = jax.random.split(key)
        z, log_prob = self.base._sample_and_log_prob(base_key, self.base_condition(condition))
        x, log_det = self.bijection.transform_and_log_det(z, condition, key=key)
        return x, log_prob - log_det

    def base_condition(self, condition: Any) -> Any:
        """Return what the base is conditioned on: the same, or nothing."""
        return None if self.base.cond_shape is None else condition


def bijection_of(flow: Any) -> AbstractBijection:
    """Return the map from base to data of a flow.

    Raises
    ------
    TypeError
        Where there is none, as of rows that hold codes and whole numbers.
    """
    if not isinstance(flow, Transformed):
        raise TypeError(
            f"Expected a flow, got {type(flow).__name__}, whose rows are no images of points of a base; try score or "
            "sample."
        )
    return flow.bijection


def cnf_of(flow: Transformed) -> CNF:
    """Return the CNF that a flow is.

    Raises
    ------
    TypeError
        Where the flow's bijection is not a `CNF`.
    """
    bijection = bijection_of(flow)
    if not isinstance(bijection, CNF):
        links = getattr(bijection, "links", (bijection,))
        kinds = [type(link.bijection if isinstance(link, Invert) else link).__name__ for link in links]
        raise TypeError(
            f"Expected a flow whose bijection is a CNF, got {type(bijection).__name__} of {kinds}: discrete "
            "layers have no time, hence no vector field and no paths; try a CNF, for example recipe='planar_cnf', or "
            "its own coordinates, with the data mapped back through the other bijections."
        )
    return bijection

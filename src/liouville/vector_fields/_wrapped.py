"""Any network as a vector field."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Condition, Point, Time
from ._base import AbstractVectorField


class Wrapped(AbstractVectorField):
    """Any Equinox module, or function, as a vector field: the field of a CNF that is nothing more than a wrap.

    Parameters
    ----------
    net
        Function of a point of `shape`, or of the time and a point, that returns a velocity of `shape`. The arrays of a
        module are trained; those that a plain function closes over are constants.
    shape
        Shape of one point.
    takes_time
        True calls ``net(t, x)``; False calls ``net(x)``: the field is then the same at all times.

    Raises
    ------
    TypeError
        Where the net cannot be called so.
    ValueError
        Where it returns another shape.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> net = eqx.nn.MLP(2, 2, width_size=64, depth=3, activation=jnp.tanh, key=jax.random.key(0))
    >>> field = Wrapped(net, (2,))
    >>> field(0.0, jnp.ones(2)).shape
    (2,)
    """

    net: Callable
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    takes_time: bool = eqx.field(static=True)

    def __init__(self, net: Callable, shape: tuple[int, ...], *, takes_time: bool = False):
        self.net, self.shape, self.cond_shape, self.takes_time = net, tuple(shape), None, takes_time
        number = jnp.result_type(float)
        try:
            found = jax.eval_shape(self, jnp.zeros((), number), jnp.zeros(self.shape, number))
        except TypeError as error:
            call = "net(t, x)" if takes_time else "net(x)"
            raise TypeError(
                f"Expected a net that is called as {call}, got {type(net).__name__}, which says: {error}; try "
                f"takes_time={not takes_time}."
            ) from error
        if getattr(found, "shape", None) != self.shape:
            raise ValueError(
                f"Expected a net that returns a velocity of shape {self.shape}, got "
                f"{getattr(found, 'shape', type(found).__name__)}; try another last layer."
            )

    def __call__(self, t: Time, x: Point, condition: Condition = None) -> Point:
        return self.net(jnp.asarray(t, x.dtype), x) if self.takes_time else self.net(x)

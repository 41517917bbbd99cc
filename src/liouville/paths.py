"""Paths between a base point and a data point, which flow matching regresses on."""

import abc

import equinox as eqx

from ._types import Point, Time


class AbstractPath(eqx.Module):
    """A path from ``x0`` (base, t = 0) to ``x1`` (data, t = 1)."""

    @abc.abstractmethod
    def __call__(self, x0: Point, x1: Point, t: Time) -> tuple[Point, Point]:
        """Return the point ``x_t`` on the path and its velocity ``dx_t/dt``."""


class LinearPath(AbstractPath):
    """The straight line ``x_t = (1 - t) x0 + t x1``, at constant velocity ``x1 - x0``.

    Lipman and others, Flow matching, 2023; Liu and others, Rectified flow, 2023.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x, velocity = LinearPath()(jnp.zeros(1), jnp.ones(1) * 4, 0.25)
    >>> print(x, velocity)
    [1.] [4.]
    """

    def __call__(self, x0: Point, x1: Point, t: Time) -> tuple[Point, Point]:
        """Return the point on the line and its velocity."""
        return (1 - t) * x0 + t * x1, x1 - x0

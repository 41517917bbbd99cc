"""How many arithmetic operations a function takes, before anything is compiled: the same on every device."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def count_operations(fn: Callable, *arguments: Any) -> int:
    """Return the multiplications and additions in the products and convolutions of a function of arrays.

    A loop of unknown length is counted once. XLA's own count is there on a CPU alone.

    Parameters
    ----------
    fn
        The function.
    *arguments
        Arrays, or `jax.ShapeDtypeStruct`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> count_operations(lambda a, x: a @ x, jnp.ones((3, 5)), jnp.ones(5))
    30
    """
    return _count(jax.make_jaxpr(fn)(*arguments).jaxpr)


def _count(program: Jaxpr) -> int:
    total = 0
    for equation in program.eqns:
        inner = [_count(part) for value in equation.params.values() for part in _programs(value)]
        # Of branches, such as those of each platform, one is taken.
        within = max(inner, default=0) if equation.primitive.name == "cond" else sum(inner)
        total += _own(equation) + within * equation.params.get("length", 1)
    return total


def _programs(value: Any) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    return [part for entry in value for part in _programs(entry)] if isinstance(value, tuple) else []


def _own(equation: Any) -> int:
    results = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
    if equation.primitive.name == "dot_general":
        (summed, _), _ = equation.params["dimension_numbers"]
        return 2 * results * math.prod(equation.invars[0].aval.shape[i] for i in summed)
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        return 2 * results * math.prod(kernel) // kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 0

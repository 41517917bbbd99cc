"""The continuous normalizing flow: a bijection that is the solution of an ODE."""

from collections.abc import Callable
from typing import cast

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from .._types import Condition, Key, Point, Scalar, Time
from ..divergences import AbstractDivergence, Exact
from ..integrate import FlowSolution, Integrator, integrate_flow
from ..regularizers import AbstractRegularizer
from ..vector_fields import AbstractVectorField
from ._base import AbstractBijection, Moved, Tree, map_parts


class CNF(AbstractBijection):
    """The flow of a vector field from `t0` (base) to `t1` (data).

    The log-determinant is the integral of the divergence along the path (Chen and others, Neural
    ordinary differential equations, 2018, theorem 1): exact up to the solver's tolerance with
    `Exact`, an unbiased estimate with `Hutchinson`.

    Parameters
    ----------
    vector_field
        The field ``v(t, x, condition)``.
    divergence
        How its divergence is computed; None means `Exact`.
    integrator
        Solver, step control and adjoint; None means ``Integrator()``.
    regularizers
        Penalties integrated along the path and reported; maximum likelihood adds them to its loss.
    t0, t1
        Times of the base and of the data, numbers. There is no state that says which way the flow runs: a
        method's name does. (A trained end time is `liouville.papers.TrainedTime`.)

    Raises
    ------
    TypeError
        Where the field is none: `liouville.vector_fields.Wrapped` makes one of any network.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.vector_fields import MLP
    >>> cnf = CNF(MLP((2,), width=8, depth=1, key=jax.random.key(0)))
    >>> x, log_det = cnf.transform_and_log_det(jnp.ones(2))
    >>> print(log_det)
    0.0
    """

    shape: tuple[int, ...] = eqx.field(static=True, init=False)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True, init=False)
    vector_field: AbstractVectorField
    divergence: AbstractDivergence
    integrator: Integrator
    regularizers: tuple[AbstractRegularizer, ...]
    t0: Time
    t1: Time

    def __init__(
        self,
        vector_field: AbstractVectorField,
        divergence: AbstractDivergence | None = None,
        integrator: Integrator | None = None,
        regularizers: tuple[AbstractRegularizer, ...] = (),
        t0: Time = 0.0,
        t1: Time = 1.0,
    ):
        if not isinstance(vector_field, AbstractVectorField):
            raise TypeError(
                f"Expected an AbstractVectorField, got {type(vector_field).__name__}; try "
                "liouville.vector_fields.Wrapped(net, shape), which makes a field of any network."
            )
        self.vector_field, self.shape, self.cond_shape = vector_field, vector_field.shape, vector_field.cond_shape
        self.divergence = Exact() if divergence is None else divergence
        self.integrator = Integrator() if integrator is None else integrator
        self.regularizers = regularizers
        # A number of NumPy's would be one more parameter.
        self.t0, self.t1 = (t.item() if isinstance(t, np.generic | np.ndarray) else t for t in (t0, t1))

    @property
    def is_solved(self) -> bool:
        """Return True: an ODE is solved."""
        return True

    def to_data(self, z: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map base to data; NaN where the solve failed."""
        return self._solve(z, self.t0, self.t1, condition, density, key)

    def to_base(self, x: Point, condition: Condition = None, *, density: bool = True, key: Key | None = None) -> Moved:
        """Map data to base; NaN where the solve failed."""
        return self._solve(x, self.t1, self.t0, condition, density, key)

    def move(
        self,
        x: Point,
        start: Time,
        end: Time,
        condition: Condition = None,
        save_times: Float[Array, " times"] | None = None,
    ) -> FlowSolution:
        """Integrate from time `start` to `end`, without the divergence; keep the path at `save_times`."""
        return integrate_flow(
            self.vector_field,
            x,
            t0=start,
            t1=end,
            integrator=self.integrator,
            condition=condition,
            save_times=save_times,
        )

    def _solve(self, x: Point, start: Time, end: Time, condition: Condition, density: bool, key: Key | None) -> Moved:
        if not density:
            # The divergence is part of the ODE's state and of its step control: no compiler could leave it out.
            solution = self.move(x, start, end, condition)
            return Moved(solution.x, None, info=solution.info)
        solution = integrate_flow(
            self.vector_field,
            x,
            t0=start,
            t1=end,
            integrator=self.integrator,
            condition=condition,
            divergence=self.divergence,
            noise=self.divergence.init(x, key),
            regularizers=self.regularizers,
        )
        penalties = {r.name: r.weight * solution.penalties[r.name] for r in self.regularizers}
        # With a divergence the solution has both; without one, neither.
        log_det, std_error = cast(Scalar, solution.log_det), cast(Scalar, solution.log_det_std_error)
        return Moved(solution.x, log_det, std_error**2, penalties, solution.info)


def map_cnfs(fn: Callable[[CNF], CNF], tree: Tree) -> Tree:
    """Return a flow, or any part of one, with `fn` applied to each `CNF` in it.

    Examples
    --------
    >>> import jax
    >>> from liouville.divergences import Hutchinson
    >>> from liouville.vector_fields import MLP
    >>> cnf = CNF(MLP((2,), key=jax.random.key(0)))
    >>> map_cnfs(lambda cnf: CNF(cnf.vector_field, Hutchinson()), cnf).divergence.num_probes
    1
    """
    return map_parts(CNF, fn, tree)


def map_integrators(fn: Callable[[Integrator], Integrator], tree: Tree) -> Tree:
    """Return a flow, or any part of one, with `fn` applied to the integrator of each `CNF` in it.

    Examples
    --------
    >>> import jax
    >>> from liouville.vector_fields import MLP
    >>> cnf = CNF(MLP((2,), key=jax.random.key(0)))
    >>> map_integrators(Integrator.sharing, cnf).integrator.shared
    True
    """
    return map_cnfs(lambda cnf: eqx.tree_at(lambda c: c.integrator, cnf, fn(cnf.integrator)), tree)

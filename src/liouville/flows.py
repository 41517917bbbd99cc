"""Recipes: members of the nine nouns put together under a name, from strings and numbers."""

import equinox as eqx
import numpy as np

from ._types import Key
from .bijections import CNF
from .distributions import Normal, Transformed
from .divergences import AbstractDivergence, Exact, Hutchinson
from .integrate import CONSTANT_STEP_SOLVERS, SOLVERS, Integrator
from .vector_fields import MLP, ConcatSquash, Preconditioned

VECTOR_FIELDS = {"concat_squash": ConcatSquash, "mlp": MLP}
DIVERGENCES: dict[str, AbstractDivergence] = {"exact": Exact(), "hutchinson": Hutchinson()}
CONSTANT_STEPS = 20


class FlowRecipe(eqx.Module):
    """A flow by strings and numbers: call it with a key to build the flow.

    Parameters
    ----------
    size
        Number of columns.
    vector_field
        A key of `VECTOR_FIELDS`.
    width, depth
        Size of its network.
    preconditioned
        True adds the Gaussian field in closed form: right for flow matching.
    solver
        A key of `liouville.integrate.SOLVERS`; those without error estimate take 20 constant steps.
    divergence
        A key of `DIVERGENCES`.
    rtol, atol
        Tolerances of adaptive steps.

    Examples
    --------
    >>> import jax
    >>> flow = FlowRecipe(2, width=16, depth=1)(jax.random.key(0))
    >>> flow.sample(jax.random.key(1), (5,)).shape
    (5, 2)
    """

    size: int = eqx.field(static=True)
    vector_field: str = eqx.field(default="mlp", static=True)
    width: int = eqx.field(default=64, static=True)
    depth: int = eqx.field(default=2, static=True)
    preconditioned: bool = eqx.field(default=True, static=True)
    solver: str = eqx.field(default="dopri5", static=True)
    divergence: str = eqx.field(default="exact", static=True)
    rtol: float = eqx.field(default=1e-5, static=True)
    atol: float = eqx.field(default=1e-5, static=True)

    def __call__(self, key: Key) -> Transformed:
        """Build the flow, a CNF on a standard normal base, with weights drawn from `key`."""
        field = VECTOR_FIELDS[self.vector_field]((self.size,), width=self.width, depth=self.depth, key=key)
        if self.preconditioned:
            field = Preconditioned(field)
        cnf = CNF(field, DIVERGENCES[self.divergence], self.integrator())
        return Transformed(Normal.standard((self.size,)), cnf)

    def integrator(self) -> Integrator:
        """Return the integrator; its tolerances are arrays, so that changing them compiles nothing."""
        solver = SOLVERS[self.solver]()
        if self.solver in CONSTANT_STEP_SOLVERS:
            return Integrator.constant(CONSTANT_STEPS, solver)
        return Integrator.adaptive(np.asarray(self.rtol), np.asarray(self.atol), solver)


def with_tolerance(flow: Transformed, factor: float) -> Transformed:
    """Return the flow with its solver's tolerances multiplied by `factor`; a constant step with its root.

    Raises
    ------
    TypeError
        Where the flow's bijection is not a `CNF`.
    """
    cnf = flow.bijection
    if not isinstance(cnf, CNF):
        raise TypeError(
            f"Expected a flow whose bijection is a CNF, got {type(cnf).__name__}; try Transformed(base, CNF(...))."
        )
    old = cnf.integrator
    if old.dt0 is None:
        where = lambda i: (i.stepsize_controller.rtol, i.stepsize_controller.atol)  # noqa: E731
        new = eqx.tree_at(where, old, tuple(np.asarray(value * factor) for value in where(old)))
    else:
        # The error of a method of order four falls with the fourth power of its step.
        new = Integrator(old.solver, old.stepsize_controller, old.adjoint, old.max_steps, old.dt0 * factor**0.25)
    return eqx.tree_at(lambda f: f.bijection.integrator, flow, new)


def with_divergence(flow: Transformed, divergence: AbstractDivergence) -> Transformed:
    """Return the flow with another divergence: train with one, evaluate with another."""
    return eqx.tree_at(lambda f: f.bijection.divergence, flow, divergence)

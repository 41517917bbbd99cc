"""Objectives: what training makes small."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._types import AnyArray, Key, Scalar
from .bijections import CNF, map_cnfs, map_integrators
from .couplings import AbstractCoupling, Independent
from .density import Density
from .distributions import Transformed, cnf_of
from .divergences import AbstractDivergence
from .integrate import RK4, Integrator, SolveInfo
from .paths import AbstractPath, LinearPath
from .regularizers import AbstractRegularizer
from .vector_fields import AbstractVectorField, LowPrecision, Preconditioned

# Numbers of constant steps in training: the fewest that do are taken.
STEPS = (6, 8, 12, 16)
# What an objective says of its solves; a weighted sum adds it up as it is.
_COSTS = ("evaluations", "failed")


class Batch(NamedTuple):
    """Rows to learn from, and what they are conditioned on (or None)."""

    x: Float[Array, "batch *shape"]
    condition: Float[Array, "batch *cond_shape"] | None = None


class AbstractObjective(eqx.Module):
    """A loss of a flow on a batch."""

    @abc.abstractmethod
    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss, and by name what is worth watching.

        ``evaluations`` is the calls of the field per row; ``failed``, where solves are done, the share
        of them that did not arrive; the others are penalties, as they count in the loss.
        """

    def after_step(self, before: Any, flow: Any, batch: Batch, *, key: Key) -> Any:
        """Return the flow with what no gradient moves, such as moving averages, moved on from before the step.

        Here there is nothing. An objective that takes others asks them.
        """
        return flow

    @property
    def num_steps(self) -> int | None:
        """Number of constant steps that solves take in training; None where nothing chooses it."""
        return None

    def with_num_steps(self, num_steps: int | None) -> "AbstractObjective":
        """Return the objective with a number of steps that `num_steps` was."""
        return self

    def checked(self, flow: Any, draw: Callable[[], tuple[Batch, Key]]) -> "AbstractObjective":
        """Return the objective with as many steps as this flow needs, by a batch and a key that `draw` returns.

        Called at validations. Here there is nothing to choose.
        """
        return self


class AbstractObjectiveOf(AbstractObjective):
    """An objective that is another one, on the flow or the data as it changes them."""

    objective: eqx.AbstractVar[AbstractObjective]

    def after_step(self, before: Any, flow: Any, batch: Batch, *, key: Key) -> Any:
        """Return what the objective inside returns, of the flow as it is."""
        return self.objective.after_step(before, flow, batch, key=key)


class FlowMatching(AbstractObjective):
    """Regression of the field on the velocity of paths (Lipman and others, Flow matching, 2023).

    No ODE is solved in training. The loss is the squared error per dimension; it bounds nothing, so
    models are compared by likelihood.

    Parameters
    ----------
    path
        The path between base and data.
    coupling
        How base and data points are paired.
    time_skew
        Times are ``1 - (1 - u)^time_skew`` with `u` uniform and stratified over the batch. Above 1
        they crowd near the data, where the fine detail lives: an error of the velocity weighs
        ``t / (1 - t)`` in the likelihood bound of diffusion models (Kingma and others, Variational
        diffusion models, 2021, here for the linear path), and skewed times approach this weight.

    Raises
    ------
    TypeError
        Where the flow's bijection is not a `CNF`.
    ValueError
        Where the batch's conditions are not those of the flow, or are paired by a coupling.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.distributions import Normal, Transformed
    >>> from liouville.vector_fields import MLP
    >>> flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), key=jax.random.key(0))))
    >>> loss, _ = eqx.filter_jit(FlowMatching())(flow, Batch(jnp.ones((64, 2))), key=jax.random.key(1))
    >>> print(1 < loss < 3)
    True
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = Independent()
    time_skew: float = eqx.field(default=1.0, static=True)

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the mean squared error of the field, per dimension."""
        return jnp.mean(self.errors(flow, batch, key=key) ** 2), {"evaluations": jnp.ones(())}

    def errors(self, flow: Transformed, batch: Batch, *, key: Key) -> Float[Array, "batch *shape"]:
        """Return the field less the velocity of the paths, at a point of each."""
        cnf = cnf_of(flow)
        base_key, pair_key, time_key = jax.random.split(key, 3)
        flow.check_condition(condition := batch.condition)
        if condition is not None and not isinstance(self.coupling, Independent):
            raise ValueError(
                f"Expected an Independent coupling with conditions, got {type(self.coupling).__name__}: pairs that are "
                "chosen across conditions would teach each of them another base; try FlowMatching()."
            )
        of_base = flow.base_condition(condition)
        x0 = flow.base.sample(base_key, (batch.x.shape[0],) if of_base is None else (), of_base)
        x0, x1 = self.coupling(x0, batch.x, key=pair_key)
        t = self.times(time_key, batch.x.shape[0])
        x, velocity = jax.vmap(self.path)(x0, x1, t)
        length = cnf.t1 - cnf.t0
        field = jax.vmap(cnf.vector_field, (0, 0, None if condition is None else 0))
        return length * field(cnf.t0 + length * t, x, condition) - velocity

    def times(self, key: Key, num: int) -> Float[Array, " num"]:
        """Draw stratified times in (0, 1), skewed towards 1."""
        u = (jnp.arange(float(num)) + jax.random.uniform(key, (num,))) / num
        return 1 - (1 - u) ** self.time_skew


class MaximumLikelihood(AbstractObjective):
    """Minus the mean log-density, in nats, plus the weighted penalties of the flow's regularizers.

    The gradient passes through the solve by the integrator's adjoint (Chen and others, Neural ordinary
    differential equations, 2018). The rows of a batch are solved together, in the same steps (`Integrator.sharing`).
    A row whose solve fails makes the loss NaN: the step is skipped.

    Raises
    ------
    ValueError
        Where the batch's conditions are not those of the flow.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.distributions import Normal, Transformed
    >>> from liouville.vector_fields import MLP
    >>> flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), key=jax.random.key(0))))
    >>> loss, _ = eqx.filter_jit(MaximumLikelihood())(flow, Batch(jnp.zeros((8, 2))), key=jax.random.key(1))
    >>> print(f"{loss:.4f}")
    1.8379
    """

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return minus the mean log-density plus the penalties, in nats."""
        keys = jax.random.split(key, batch.x.shape[0])
        flow.check_condition(condition := batch.condition)
        rows = jax.vmap(sharing_steps(flow)._log_prob_and_report, (0, None if condition is None else 0, 0))
        log_prob, report = rows(batch.x, condition, keys)
        penalties = {name: jnp.mean(value) for name, value in report.penalties.items()}
        loss = -jnp.mean(log_prob) + sum(penalties.values())
        return loss, {**costs(report.info), **penalties}


class WeightedSum(AbstractObjective):
    """A weighted sum of objectives, for example of a likelihood and of penalties.

    Parameters
    ----------
    terms
        Pairs of a weight and an objective.

    Examples
    --------
    >>> objective = WeightedSum([(1.0, MaximumLikelihood()), (0.1, FlowMatching())])
    >>> [weight for weight, _ in objective.terms]
    [1.0, 0.1]
    """

    terms: tuple[tuple[float, AbstractObjective], ...]

    def __init__(self, terms):
        self.terms = tuple((float(weight), objective) for weight, objective in terms)

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the weighted sum of the losses; what is worth watching is added up by name."""
        total, watched = jnp.zeros(()), {}
        for (weight, objective), term_key in zip(self.terms, jax.random.split(key, len(self.terms)), strict=True):
            loss, aux = objective(flow, batch, key=term_key)
            total = total + weight * loss
            aux = {name: value if name in _COSTS else weight * value for name, value in aux.items()}
            watched |= {name: watched.get(name, 0.0) + value for name, value in aux.items()}
        return total, watched

    def after_step(self, before: Any, flow: Any, batch: Batch, *, key: Key) -> Any:
        """Return what the terms make of the flow, one after the other."""
        for (_, objective), term_key in zip(self.terms, jax.random.split(key, len(self.terms)), strict=True):
            flow = objective.after_step(before, flow, batch, key=term_key)
        return flow


class TrainedWith(AbstractObjectiveOf):
    """An objective on the flow with other parts than it is evaluated with.

    Train with a stochastic divergence, constant steps and penalties; the flow itself keeps an exact divergence and
    adaptive steps, by which it is validated and used.

    Parameters
    ----------
    objective
        What is made small, for example `MaximumLikelihood`.
    divergence, integrator
        What every `CNF` of the flow is solved with in training; None leaves its own.
    regularizers
        Penalties of every `CNF` in training, instead of its own.

    Examples
    --------
    >>> from liouville.divergences import Hutchinson
    >>> from liouville.regularizers import KineticEnergy
    >>> rnode = TrainedWith(MaximumLikelihood(), Hutchinson("gaussian"), regularizers=(KineticEnergy(),))
    >>> rnode.divergence.num_probes
    1
    """

    objective: AbstractObjective
    divergence: AbstractDivergence | None = None
    integrator: Integrator | None = None
    regularizers: tuple[AbstractRegularizer, ...] = ()

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the objective of the flow as it is trained."""
        return self.objective(map_cnfs(self._dressed, flow), batch, key=key)

    def _dressed(self, cnf: CNF) -> CNF:
        divergence = cnf.divergence if self.divergence is None else self.divergence
        integrator = cnf.integrator if self.integrator is None else self.integrator
        return CNF(cnf.vector_field, divergence, integrator, self.regularizers, cnf.t0, cnf.t1)


class CheckedSteps(AbstractObjectiveOf):
    """An objective whose solves take constant steps of `liouville.integrate.RK4`, as few as are seen to do.

    A step of training costs about half of one by adaptive steps. At every validation one batch is solved by the flow's
    own integrator, too: where losses differ by more than `error` nats, there are more steps from then on, and behind 16
    the flow's own integrator. The flow itself is validated and used with that. Where its own steps are constant, they
    are taken in training, too.

    Parameters
    ----------
    objective
        What is made small, for example `MaximumLikelihood`.
    num_steps
        Number of steps at first: one of `STEPS`, or None for the flow's own integrator.
    error
        Nats.

    Examples
    --------
    >>> objective = CheckedSteps(MaximumLikelihood())
    >>> print(objective.num_steps, objective.with_num_steps(16).num_steps)
    6 16
    """

    objective: AbstractObjective
    dt0: AnyArray | None
    error: float = eqx.field(static=True)

    def __init__(self, objective: AbstractObjective, num_steps: int | None = STEPS[0], error: float = 0.01):
        self.objective, self.error = objective, error
        # An array: another number of steps is no other program.
        self.dt0 = None if num_steps is None else np.asarray(1 / num_steps)

    @property
    def num_steps(self) -> int | None:
        """Number of constant steps; None for the flow's own integrator."""
        return None if self.dt0 is None else round(1 / float(self.dt0))

    def with_num_steps(self, num_steps: int | None) -> "CheckedSteps":
        """Return the objective with another number of steps."""
        return CheckedSteps(self.objective, num_steps, self.error)

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the objective of the flow as it is solved in training."""
        if self.dt0 is not None:
            flow = map_integrators(self._constant, flow)
        return self.objective(flow, batch, key=key)

    def _constant(self, integrator: Integrator) -> Integrator:
        if integrator.dt0 is not None:
            return integrator
        constant = diffrax.ConstantStepSize()
        return dataclasses.replace(integrator, solver=RK4(), stepsize_controller=constant, dt0=self.dt0)

    def checked(self, flow: Any, draw: Callable[[], tuple[Batch, Key]]) -> "CheckedSteps":
        """Return the objective with the fewest steps, no fewer than it has, whose loss is near that of the flow."""
        least = self.num_steps
        if least is None:
            return self
        batch, key = draw()
        loss = float(_loss(self.objective, flow, batch, key))
        if not np.isfinite(loss):
            # It says nothing of constant steps.
            return self
        for num_steps in [num for num in STEPS if num >= least]:
            found = self.with_num_steps(num_steps)
            if abs(float(_loss(found, flow, batch, key)) - loss) <= self.error:
                return found
        return self.with_num_steps(None)


@eqx.filter_jit
def _loss(objective: AbstractObjective, flow: Any, batch: Batch, key: Key) -> Scalar:
    return objective(flow, batch, key=key)[0]


class MixedPrecision(AbstractObjectiveOf):
    """An objective whose fields are computed in fewer bits (`liouville.vector_fields.LowPrecision`).

    Weights, points and log-determinants keep their precision, and so does the flow itself: it is validated and used
    in full precision, where an adaptive solver does not stumble over rounding.

    Parameters
    ----------
    objective
        What is made small.
    dtype
        The precision of the networks' layers.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF
    >>> from liouville.distributions import Normal, Transformed
    >>> from liouville.vector_fields import MLP
    >>> flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), key=jax.random.key(0))))
    >>> loss, _ = eqx.filter_jit(MixedPrecision(FlowMatching()))(flow, Batch(jnp.ones((64, 2))), key=jax.random.key(1))
    >>> print(1 < loss < 3)
    True
    """

    objective: AbstractObjective
    dtype: str = eqx.field(default="bfloat16", static=True)

    def __call__(self, flow: Any, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the objective of the flow with rounded fields."""
        rounded = map_cnfs(lambda cnf: eqx.tree_at(lambda c: c.vector_field, cnf, self._round(cnf.vector_field)), flow)
        return self.objective(rounded, batch, key=key)

    def _round(self, field: AbstractVectorField) -> AbstractVectorField:
        # What is known in closed form costs nothing, and stays exact.
        if isinstance(field, Preconditioned):
            return Preconditioned(self._round(field.rest))
        return LowPrecision(field, self.dtype)


class Encoded(AbstractObjective):
    """An objective of a `Density`, on data: its core's, on the points that its frame makes of them, noise drawn anew.

    With a likelihood the loss is minus the mean log-density, in nats, in the data's units; of whole numbers its bound.

    Parameters
    ----------
    objective
        What is made small: `MaximumLikelihood`, of any flow, or `FlowMatching`, where the core is one `CNF`.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from liouville.bijections import CNF, Logit
    >>> from liouville.dequantization import UniformDequantization
    >>> from liouville.distributions import Normal, Transformed
    >>> from liouville.frames import Frame
    >>> from liouville.vector_fields import MLP
    >>> core = Transformed(Normal.standard((2,)), CNF(MLP((2,), key=jax.random.key(0))))
    >>> pictures = Density(core, Frame((2,), (Logit((2,), alpha=0.05),), 256, UniformDequantization()))
    >>> objective, batch = Encoded(MaximumLikelihood()), Batch(jnp.full((4, 2), 128))
    >>> loss, _ = eqx.filter_jit(objective)(pictures, batch, key=jax.random.key(1))
    >>> print(10 < loss < 11)
    True
    """

    objective: AbstractObjective

    def __call__(self, flow: Density, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the objective's loss, and for a likelihood what noise and closed forms change of it."""
        noise_key, key = jax.random.split(key)
        encoded, change = self._encoded(flow, batch, noise_key)
        loss, watched = self.objective(flow.core, encoded, key=key)
        return loss if isinstance(self.objective, FlowMatching) else loss - jnp.mean(change), watched

    def after_step(self, before: Density, flow: Density, batch: Batch, *, key: Key) -> Density:
        """Return the density with the core that the objective inside returns."""
        noise_key, key = jax.random.split(key)
        encoded, _ = self._encoded(flow, batch, noise_key)
        core = self.objective.after_step(before.core, flow.core, encoded, key=key)
        return dataclasses.replace(flow, core=core)

    def _encoded(self, flow: Density, batch: Batch, key: Key) -> tuple[Batch, Array]:
        """Return a batch in the core's coordinates, noise drawn, and the change of the log-density."""
        encode = lambda x, key: flow.frame.encode(x, flow.frame.draw(x, key))
        points, change = jax.vmap(encode)(batch.x, jax.random.split(key, len(batch.x)))
        return Batch(points, batch.condition), change


def sharing_steps(flow: Transformed) -> Transformed:
    """Return the flow as it is trained: the rows of a batch are solved together (`Integrator.sharing`)."""
    return map_integrators(Integrator.sharing, flow)


def costs(info: SolveInfo) -> dict[str, Scalar]:
    """Return what solves of many rows cost: mean evaluations of the field, and the share that failed."""
    mean = lambda counts: jnp.mean(counts.astype(jnp.result_type(float)))
    return {"evaluations": mean(info.num_evaluations), "failed": mean(info.failed)}

"""Training: steps compiled together on the device, and a host loop that looks in now and then.

The path: `Trainer.run` -> `advance` (many steps in one compiled loop, no host sync between them) ->
`make_step` -> the objective. Between segments the host draws the progress bar, validates, keeps the
best weights, writes the checkpoint and decides whether to go on.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from . import checkpoint
from ._budget import HISTORY_COLUMNS, History
from ._budget import Budget as Budget
from ._draws import first_key, split
from ._errors import SolveError
from ._training_data import StreamedData as StreamedData
from ._training_data import TrainingData as TrainingData
from ._types import AnyArray, Key, Scalar, parameters, partition
from .objectives import AbstractObjective, Batch
from .regularizers import AbstractRegularizer
from .sharding import in_parts, rows_mesh, spread

_SEGMENT_SECONDS = 0.5
_FIRST_SEGMENT = 3
_MAX_SKIPPED = 20
WARMUP_STEPS = 100
_WARMUP_SHARE = 0.1
# Where the schedule's length is judged, and the gain in nats since the validation before that makes it longer.
_STRETCH_AT, _WORTH_STRETCHING = 0.5, 0.02
# So many standard errors better than the start is a flow that takes its place.
_START_STD_ERRORS = 1.0


class StopTraining(Exception):
    """Raised by a `watch` where training is to end as it does at its last step; it is no error."""


class Options(eqx.Module):
    """How weights are moved: AdamW, clipped, with a cosine schedule and an average of the weights.

    Parameters
    ----------
    learning_rate
        Peak of the schedule: a linear warm-up over 100 steps, or a tenth of the whole where that is less, under
        half a cosine down to zero.
    weight_decay
        Decoupled weight decay.
    decayed
        Function of the weights that returns True for each that decays; None lets all decay.
    clip_norm
        Largest norm of a gradient.
    average_horizon
        Length of the exponential average of the weights, as a share of the steps done so far.
    batch_size
        Rows per step, drawn with replacement, by weight.
    parts
        Number of equal parts of a batch whose gradients are added up, one after the other: the memory of one part.
    """

    learning_rate: float = eqx.field(default=2e-3, static=True)
    weight_decay: float = eqx.field(default=0.0, static=True)
    decayed: Callable[[PyTree], PyTree] | None = eqx.field(default=None, static=True)
    clip_norm: float = eqx.field(default=1.0, static=True)
    average_horizon: float = eqx.field(default=0.1, static=True)
    batch_size: int = eqx.field(default=512, static=True)
    parts: int = eqx.field(default=1, static=True)

    def __check_init__(self):
        if self.batch_size % self.parts:
            raise ValueError(
                f"Expected parts of equal size, got {self.parts} of a batch of {self.batch_size}; try parts=1."
            )

    def optimizer(self) -> optax.GradientTransformation:
        """Return the optimizer at learning rate 1: the schedule's factor is applied to its updates."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.scale_by_adam(),
            optax.add_decayed_weights(self.weight_decay, self.decayed),
        )


class TrainState(eqx.Module):
    """All that a step changes; `average` is the moving average of `params`."""

    params: PyTree
    opt_state: PyTree
    average: PyTree
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]
    key_data: UInt32[Array, "..."]


class Segment(eqx.Module):
    """What a run of steps says: means over its finite steps; penalties as they count in the loss."""

    loss: Scalar
    evaluations: Scalar
    penalties: dict[str, Scalar]
    failed: Scalar


def init_state(build: Callable[[Key], Any], seed: int, options: Options) -> tuple[TrainState, PyTree]:
    """Build the flow from a seed; return its training state and its static part."""
    init_key, key = split(first_key(seed))
    params, static = partition(build(init_key))
    return _start(params, jax.random.key_data(key), options), static


@eqx.filter_jit
def _start(params: PyTree, key_data: UInt32[Array, "..."], options: Options) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, options.optimizer().init(params), params, zero, zero, zero, key_data)


def make_step(static: PyTree, objective: AbstractObjective, options: Options, mesh: Mesh | None = None) -> Callable:
    """Return the function ``(state, batch, progress) -> (state, loss, aux)`` of one training step."""
    optimizer, mesh = options.optimizer(), mesh or rows_mesh()

    def loss_fn(params: PyTree, batch: Batch, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        return objective(eqx.combine(params, static), batch, key=key)

    def step(state: TrainState, batch: Batch, key: Key, progress: Scalar):
        (loss, aux), grads = in_parts(jax.value_and_grad(loss_fn, has_aux=True), options.parts, mesh)(
            state.params, batch, key
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        # Optax raises floats to whole powers, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        # Counted in floats, as JAX's strict promotion would have it.
        done = state.step.astype(progress.dtype)
        rate = options.learning_rate * learning_rate_factor(done, progress)
        params = jax.tree.map(lambda p, u: p - rate.astype(p.dtype) * u, state.params, updates)
        before, after = eqx.combine(state.params, static), eqx.combine(params, static)
        params = parameters(objective.after_step(before, after, spread(batch, mesh), key=key))
        share = 1 / (2 + options.average_horizon * done)
        average = jax.tree.map(lambda a, p: a + share.astype(a.dtype) * (p - a), state.average, params)
        keep = lambda new, old: jax.tree.map(partial(jnp.where, finite), new, old)
        skip = jnp.where(finite, 0, 1).astype(jnp.int32)
        state = TrainState(
            params=keep(params, state.params),
            opt_state=keep(opt_state, state.opt_state),
            average=keep(average, state.average),
            step=state.step + 1,
            skipped=state.skipped + skip,
            skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1).astype(jnp.int32),
            key_data=state.key_data,
        )
        return state, loss, aux

    return step


def learning_rate_factor(step: Float[Array, ""], progress: Scalar) -> Scalar:
    """Return the schedule's factor: a warm-up of 100 steps or a tenth of the whole, then half a cosine."""
    # A short training cannot spend all of itself on warming up.
    warmup = jnp.minimum(1.0, jnp.maximum((step + 1) / WARMUP_STEPS, progress / _WARMUP_SHARE))
    return warmup * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))


@eqx.filter_jit
def advance(
    state: TrainState,
    static: PyTree,
    objective: AbstractObjective,
    options: Options,
    data: TrainingData,
    count: Int[AnyArray, ""],
    offset: Float[AnyArray, ""],
    rate: Float[AnyArray, ""],
    mesh: Mesh | None = None,
) -> tuple[TrainState, Segment]:
    """Do `count` steps on the device; progress through the schedule is ``offset + rate * step``."""
    step = make_step(static, objective, options, mesh)

    def body(carry: tuple[TrainState, Segment, Int[Array, ""]]) -> tuple[TrainState, Segment, Int[Array, ""]]:
        state, total, done = carry
        batch, key = _draw(state.key_data, state.step, data, options)
        state, loss, aux = step(state, batch, key, offset + rate * state.step.astype(rate.dtype))
        finite = jnp.isfinite(loss)
        add = lambda total, value: total + jnp.where(finite, value, 0.0)
        failed = total.failed + aux.get("failed", jnp.zeros(()))
        penalties = {name: add(value, aux.get(name, 0.0)) for name, value in total.penalties.items()}
        total = Segment(add(total.loss, loss), add(total.evaluations, aux["evaluations"]), penalties, failed)
        return state, total, done + 1

    def goes_on(carry: tuple[TrainState, Segment, Int[Array, ""]]) -> Bool[Array, ""]:
        state, _, done = carry
        return (done < count) & (state.skipped_in_a_row < _MAX_SKIPPED)

    zero = jnp.zeros(())
    start = Segment(zero, zero, dict.fromkeys(penalty_names((static, objective)), zero), zero)
    skipped = state.skipped
    state, total, done = jax.lax.while_loop(goes_on, body, (state, start, jnp.zeros((), jnp.int32)))
    counted = jnp.maximum(done - (state.skipped - skipped), 1)
    segment = jax.tree.map(lambda value: value / counted.astype(value.dtype), total)
    return state, dataclasses.replace(segment, failed=total.failed / jnp.maximum(done, 1).astype(total.failed.dtype))


def _draw(
    key_data: UInt32[Array, "..."], step: Int[Array, ""], data: TrainingData, options: Options
) -> tuple[Batch, Key]:
    """Return the batch of a step, and a key for the rest of it."""
    row_key, key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key_data), step))
    return Batch(*data.draw(row_key, options.batch_size)), key


_drawn = eqx.filter_jit(_draw)


def penalty_names(tree: PyTree) -> list[str]:
    """Return the names of all regularizers in a tree."""
    is_regularizer = lambda part: isinstance(part, AbstractRegularizer)
    return sorted({part.name for part in jax.tree.leaves(tree, is_leaf=is_regularizer) if is_regularizer(part)})


def clearly_better(rows: np.ndarray, than: np.ndarray, std_errors: float = 2.0) -> bool:
    """Return True where log-densities are higher by more than some standard errors of the mean difference.

    Both are of the same rows, so the difference is known far better than either mean. On a small table
    chance alone makes one of several models look better: the simpler one stays until there is evidence.
    """
    gain = rows - than
    return bool(np.mean(gain) > std_errors * np.std(gain, ddof=int(len(gain) > 1)) / np.sqrt(len(gain)))


class Trainer:
    """A flow in training: its state on the device, and the host's side of the loop.

    Parameters
    ----------
    build
        Function of a key that builds what is trained: a `Transformed`, or a `Density`, whose noise is trained with it.
    objective
        What is made small.
    data
        The table.
    validate
        Function of a flow that returns the log-density, in nats, of each validation row: exact, or an estimate.
    options
        How weights are moved.
    budget
        When training ends.
    seed
        Seed of the weights and of all randomness of the training.
    watch
        Called with the trainer and the numbers to show, whenever the host looks in.
    mesh
        Devices over which the rows of a batch are laid out; None is all that are visible.
    """

    def __init__(
        self,
        build: Callable[[Key], Any],
        objective: AbstractObjective,
        data: TrainingData | StreamedData,
        validate: Callable[[Any], np.ndarray],
        *,
        options: Options,
        budget: Budget,
        seed: int,
        watch: Callable[["Trainer", dict[str, float]], None] = lambda trainer, numbers: None,
        mesh: Mesh | None = None,
    ):
        self.objective, self.data, self.options, self.budget = objective, data, options, budget
        self.validate_fn, self.watch, self.mesh = validate, watch, mesh
        self.state, self.static = init_state(build, seed, options)
        self.progress, self.speed, self.validate_seconds = 0.0, 0.0, 0.0
        # What a validation is known to cost at least: the first ones, of a field at rest, take less.
        self.least_validate_seconds = 0.0
        self.best_nll, self.best_step, self.best_params = np.inf, 0, self.state.params
        self.last_nll, self.last_gain, self.warm = np.inf, 0.0, False
        # Log-densities of the validation rows: at the start, and at the best.
        self.first_rows = self.best_rows = np.zeros(0)
        self.history = History([*HISTORY_COLUMNS, *penalty_names((self.static, objective))])
        self.worse_in_a_row, self.validated_at, self.started = 0, -1, time.perf_counter()
        # Called where what has been learned could be written down; a training goes on from there, bit for bit.
        self.keep: Callable[[], None] = lambda: None

    def start_from(self, params: PyTree) -> None:
        """Take up weights before the first step, of a flow whose constants may be others."""
        params = jax.tree.unflatten(jax.tree.structure(self.state.params), jax.tree.leaves(params))
        self.state = dataclasses.replace(self.state, params=params, average=params)
        self.best_params = params

    def flow(self, params: PyTree) -> Any:
        """Return the flow with these parameters."""
        return eqx.combine(params, self.static)

    def best_flow(self) -> Any:
        """Return the flow of the best validation."""
        return self.flow(self.best_params)

    def run(self, goals: Iterable[float], patience: int = 3, longest: int | None = None) -> "Trainer":
        """Train to each progress of `goals` in turn, and validate there; stop early when it gets worse.

        Parameters
        ----------
        goals
            Increasing shares of the schedule, up to 1; those that are behind are passed over.
        patience
            Number of validations in a row without a new best after which training stops.
        longest
            Number of steps to which the schedule is stretched, once, where half of it is done and the likelihood still
            rises by more than `_WORTH_STRETCHING`; None keeps to the budget.

        Raises
        ------
        SolveError
            Where training cannot recover: `_MAX_SKIPPED` steps in a row were not finite.
        """
        goals = [goal for goal in goals if goal > self.progress]
        ahead = goals
        while ahead and not self.budget.is_over():
            goal = ahead[0]
            self.train_to(goal, reserve=len(ahead) * self.validate_seconds)
            if longest is not None and goal == _STRETCH_AT and self.last_gain > _WORTH_STRETCHING:
                self.stretch(longest)
                longest = None
            self.keep()
            ahead = [goal for goal in goals if goal > self.progress]
            if self.worse_in_a_row >= patience:
                break
        return self

    def train_to(self, goal: float, reserve: float = 0.0, budget: Budget | None = None) -> None:
        """Train to a share of the schedule and validate there, at the pace of another budget where there is one."""
        while self.progress < goal:
            self.train_towards(goal, reserve, budget)
            if self.progress < goal:
                self.keep()
        self.validate()

    def stretch(self, max_iter: int) -> None:
        """Go on with a longer schedule, as if it had been that one from the start."""
        self.budget = dataclasses.replace(self.budget, max_iter=max_iter)
        self.progress = int(self.state.step) / max_iter

    def train_towards(self, goal: float, reserve: float = 0.0, budget: Budget | None = None) -> None:
        """Run one segment of steps, at most to the progress `goal`."""
        budget = self.budget if budget is None else budget
        step = int(self.state.step)
        rate = budget.rate(self.progress, self.speed, reserve)
        to_goal = max(1, int(np.ceil((goal - self.progress) / rate - 1e-6)))
        # The first step compiles, and says nothing of the speed.
        segment_steps = max(1, int(self.speed * _SEGMENT_SECONDS)) if self.speed else _FIRST_SEGMENT if self.warm else 1
        data, until = self.data.at(step)
        count = min(to_goal, segment_steps, until - step)
        # With a number of steps alone the schedule is a function of the step, so that a resumed run,
        # whose segments differ, repeats the uninterrupted one bit for bit.
        by_step = budget.deadline is None
        offset = 0.0 if by_step else self.progress - rate * step
        before = time.perf_counter()
        self.state, segment = advance(
            self.state, self.static, self.objective, self.options, data,
            np.asarray(count, np.int32), np.asarray(offset, np.float32), np.asarray(rate, np.float32), self.mesh,
        )  # fmt: skip
        jax.block_until_ready(self.state.step)
        seconds = time.perf_counter() - before
        self.speed = count / seconds if self.warm else 0.0
        self.warm = True
        self.progress = (step + count) * rate if by_step else self.progress + count * rate
        if to_goal == count:
            self.progress = max(self.progress, goal)
        self._record(float("nan"), segment)
        self._check(segment)

    def expected_steps(self) -> float:
        """Return the number of steps of the whole training; measures the speed if it has to."""
        while self.budget.deadline is not None and not self.speed:
            self.train_towards(1.0)
        return 1 / self.budget.rate(0.0, self.speed, 0.0)

    def validate(self) -> float:
        """Measure the NLL of the averaged weights; keep them if they are the best so far.

        The start, of a preconditioned field the Gaussian fit, stays the best until another is better by a standard
        error, as in the rule of Breiman and others (1984, Classification and Regression Trees, section 3.4.3): two
        keep a start that is worse by as much, and none takes what fits few rows by chance.
        """
        before = time.perf_counter()
        rows = self.validate_fn(self.flow(self.state.average))
        self.objective = self.objective.checked(self.flow(self.state.params), self._next_batch)
        self.validate_seconds = max(self.least_validate_seconds, time.perf_counter() - before)
        nll = -float(np.mean(rows))
        self.last_gain, self.last_nll = self.last_nll - nll, nll
        if not self.first_rows.size:
            self.first_rows = self.best_rows = rows
        better = nll < self.best_nll if self.best_step else clearly_better(rows, self.first_rows, _START_STD_ERRORS)
        if better or not np.isfinite(self.best_nll):
            self.best_nll, self.best_step, self.best_params = nll, int(self.state.step), self.state.average
            self.best_rows, self.worse_in_a_row = rows, 0
        elif clearly_better(self.best_rows, rows):
            self.worse_in_a_row += 1
        self.validated_at = int(self.state.step)
        self._record(nll)
        return nll

    def _next_batch(self) -> tuple[Batch, Key]:
        """Return the batch of the next step, and its key."""
        data, _ = self.data.at(int(self.state.step))
        return _drawn(self.state.key_data, self.state.step, data, self.options)

    def facts(self) -> dict[str, Any]:
        """Return what, beside `arrays`, training needs to go on, in JSON's types."""
        return {
            "progress": self.progress,
            "best_nll": self.best_nll,
            "best_step": self.best_step,
            "worse_in_a_row": self.worse_in_a_row,
            "validated_at": self.validated_at,
            "last_nll": self.last_nll,
            "max_iter": self.budget.max_iter,
            "num_steps": self.objective.num_steps,
            "history": dict(self.history),
        }

    def arrays(self) -> PyTree:
        """Return the arrays that training needs to go on."""
        return {
            "state": self.state,
            "best_params": self.best_params,
            "first_rows": self.first_rows,
            "best_rows": self.best_rows,
        }

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Take up what `arrays`, by the names that `checkpoint.named_arrays` gives them, and `facts` returned."""
        self.first_rows, self.best_rows = arrays["first_rows"], arrays["best_rows"]
        filled = checkpoint.fill(self.arrays(), arrays)
        self.state, self.best_params = filled["state"], filled["best_params"]
        self.progress, self.best_nll, self.best_step = facts["progress"], facts["best_nll"], facts["best_step"]
        self.worse_in_a_row, self.validated_at = facts["worse_in_a_row"], facts["validated_at"]
        self.history.update(facts["history"])
        self.objective = self.objective.with_num_steps(facts.get("num_steps"))
        self.last_nll, self.budget = facts["last_nll"], dataclasses.replace(self.budget, max_iter=facts["max_iter"])

    def _record(self, nll: float, segment: Segment | None = None) -> None:
        row = {name: values[-1] if values else float("nan") for name, values in self.history.items()}
        row |= {
            "step": int(self.state.step),
            "seconds": time.perf_counter() - self.started,
            "skipped": int(self.state.skipped),
            "nll": nll,
        }
        if segment is not None:
            row |= {"loss": float(segment.loss), "evaluations": float(segment.evaluations)}
            row |= {name: float(value) for name, value in segment.penalties.items()}
        self.history.append(**row)
        self.watch(self, {**row, "nll": self.best_nll})

    def _check(self, segment: Segment) -> None:
        row = int(self.state.skipped_in_a_row)
        if row < _MAX_SKIPPED:
            return
        failed = float(segment.failed)
        cause = (
            f"{failed:.0%} of the solves did not arrive; try a looser tolerance or a smaller learning rate"
            if failed > 0
            else "the loss or its gradient is not finite; try a smaller learning rate"
        )
        raise SolveError(
            f"Training cannot recover: {row} steps in a row up to step {int(self.state.step)} failed: {cause}."
        )

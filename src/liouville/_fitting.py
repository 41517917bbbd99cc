"""A fit from its first step to its last: what it learned is kept, through interrupts, crashes and deadlines."""

import hashlib
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import checkpoint
from ._defaults import validation_goals
from ._files import check_writable
from ._progress import Callback, Watch, watched
from ._splits import AnySplit
from .selection import Candidate, Plan, Race, prepare
from .training import WARMUP_STEPS, Budget, StopTraining

# Writing takes at most this share of the time.
SAVING_SHARE = 0.05
BLOCK_BYTES = 2**24


class Given(NamedTuple):
    """Data of a fit, checked.

    Attributes
    ----------
    rows, weight
        What is learned from, and how much each counts.
    arrays
        What was given: data are told from others by its digest.
    columns
        What the estimator notes of them, by the names of its attributes.
    condition
        What each row is conditioned on, of shape ``(n, c)``, or None.
    """

    rows: np.ndarray
    weight: np.ndarray
    arrays: tuple[np.ndarray, ...]
    columns: dict[str, Any]
    condition: np.ndarray | None = None


class Stage(NamedTuple):
    """One of the trainings of a fit.

    Attributes
    ----------
    name
        The attribute that holds what it learns.
    plan
        How it is done.
    what
        What stands before its progress bar.
    ends_at
        Share of the time for the fit that is over when it should end.
    """

    name: str
    plan: Plan
    what: str = ""
    ends_at: float = 1.0


class TrainingFile:
    """A file that a training writes as it goes, and from which another one goes on.

    Parameters
    ----------
    path
        The file; None is no file, and nothing is written.
    identity
        What a training must have in common with the one that wrote the file, in JSON's types.
    *data
        The data, which it must have in common, too: the file holds their digest.

    Raises
    ------
    OSError
        Where the file could not be written, before time is spent on training.
    """

    def __init__(self, path: str | None, identity: dict[str, Any], *data: np.ndarray):
        self.path, self.next_time = path, 0.0
        if path is not None:
            check_writable(path)
            self.identity = {**identity, "data": digest(*data)}

    def resume(self, race: Race) -> None:
        """Let a race go on from the file, where there is one, and write the file from now on."""
        if self.path is None:
            return
        if os.path.exists(self.path):
            race.restore(*self._read(self.path))
        race.keep = lambda: self.write(race)

    def _read(self, path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, facts = checkpoint.read(path, "training")
        if any(facts.get(name) != value for name, value in self.identity.items()):
            raise checkpoint.CheckpointError(
                "Expected a checkpoint of these parameters, these data and this seed, got another in "
                f"{path}; try deleting it, or another path."
            )
        return arrays, facts["race"]

    def write(self, race: Race, *, is_over: bool = False) -> None:
        """Write down where a race is, unless that was done a moment ago and it is not over."""
        before = time.perf_counter()
        if self.path is None or (before < self.next_time and not is_over):
            return
        checkpoint.write(self.path, "training", race.arrays(), {**self.identity, "race": race.facts()})
        after = time.perf_counter()
        self.next_time = after + (after - before) / SAVING_SHARE

    def discard(self) -> None:
        """Delete the file: the training has ended."""
        if self.path is not None:
            # A short training may have written nothing.
            Path(self.path).unlink(missing_ok=True)


def digest(*arrays: np.ndarray) -> str:
    """Return a digest of arrays, their shapes and types, a block at a time: they may be mapped from a file."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str}|{array.shape}|".encode())
        rows = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            found.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
    return found.hexdigest()


def run_fit(
    split: AnySplit,
    plan: Plan,
    budget: Budget,
    seed: int,
    *,
    file: TrainingFile,
    take: Callable[[Candidate], None],
    watch: Watch,
    callback: Callback | None,
    start: Any = None,
) -> Race:
    """Let kinds of preprocessing race, train the winner to the end, and return the race.

    Parameters
    ----------
    split
        What to learn from, and what to choose by.
    plan, budget
        How, and for how long.
    seed
        Seed of the weights and of the batches.
    file
        Where the training goes on from, and what it writes.
    take
        Called with the winner at the end; where the fit is interrupted, with the best so far, before the interrupt is
        passed on. Before the first step there is nothing to take.
    watch, callback
        What looks in on training: a progress bar, and what the user has for it.
    start
        Weights to go on from; None draws them.
    """
    prepared = lambda kind: watched(prepare(kind, split, plan, budget, seed, start), watch, callback)
    # By heart is all that a flow could learn of so few rows.
    race = Race(plan.preprocess[:1] if split.is_small else plan.preprocess, prepared, plan.longest_race)
    goals = (lambda trainer: ()) if split.is_small else validation_goals
    try:
        file.resume(race)
        candidate = race.run()
        candidate.trainer.run(goals(candidate.trainer), longest=plan.longest)
    except StopTraining:
        candidate = race.stop() or race.best()
    except KeyboardInterrupt:
        candidate = race.stop()
        if candidate is not None:
            take(candidate)
            trainer = candidate.trainer
            warnings.warn(
                f"The fit was interrupted after {int(trainer.state.step)} steps: the estimator is fitted by the best "
                f"weights so far, those of step {trainer.best_step}, whose validation NLL is {trainer.best_nll:.4g} "
                "nats.",
                UserWarning,
                stacklevel=5,
            )
        raise
    take(candidate)
    return race


def warn_of_few_steps(race: Race, max_seconds: float | None, started: float) -> None:
    """Warn where a deadline left so few steps that the flow is hardly trained, and say where the time went."""
    trainer = race.best().trainer
    steps = int(trainer.state.step)
    if max_seconds is None or steps >= WARMUP_STEPS or not trainer.budget.is_over():
        return
    now = time.perf_counter()
    first = next(iter(race.candidates.values())).trainer
    seconds = [s for s, step in zip(first.history["seconds"], first.history["step"], strict=True) if step > 0]
    until = first.started + seconds[0] if seconds else now
    warnings.warn(
        f"max_seconds={max_seconds:g} left time for {steps} steps of training: the flow is hardly more than the "
        f"closed forms it starts from. Of {now - started:.1f} s, {until - started:.1f} s went before the end of the "
        "first step, most of it into compilation, which does not grow with the fit; try more seconds, or max_iter.",
        UserWarning,
        stacklevel=5,
    )


def become(one: Any, other: Any) -> None:
    """Let an estimator be what another one is."""
    attributes = dict(vars(other))
    vars(one).clear()
    vars(one).update(attributes)

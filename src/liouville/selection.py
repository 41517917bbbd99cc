"""Choices that the data make: a short race on exact validation NLL, inside the same budget."""

import dataclasses
from collections.abc import Callable

import numpy as np

from . import evaluation
from ._types import Rows
from .bijections import AbstractBijection
from .distributions import Transformed
from .preprocessing import fit_links
from .training import Budget, Trainer, TrainingData, clearly_better

RACE_PROGRESS = 0.06
RACE_STEPS = 1600
RACE_MOST = 0.8


@dataclasses.dataclass
class Split:
    """A table in two parts: rows to train on, and rows to choose by; weights are shares of the table's."""

    rows: Rows
    weight: np.ndarray
    validation_rows: Rows
    validation_weight: np.ndarray


@dataclasses.dataclass
class Runner:
    """A kind of preprocessing in training: its closed forms and its trainer."""

    kind: str
    links: list[AbstractBijection]
    trainer: Trainer


def enter(kind: str, split: Split, make_trainer: Callable[[TrainingData, Callable], Trainer]) -> Runner:
    """Fit the closed forms of a kind, and make the trainer of the core in their coordinates."""
    links, core_rows, _ = fit_links(kind, split.rows, split.weight)
    core_validation, log_det = evaluation.to_core(links, split.validation_rows)

    def validate(core: Transformed) -> np.ndarray:
        log_prob, _ = evaluation.score(core, core_validation)
        # A weighted mean as a plain one: rows carry their share of the weight. NLLs are compared
        # between kinds, so they are in the units of the data.
        return (log_prob + log_det) * split.validation_weight

    return Runner(kind, links, make_trainer(TrainingData.pad(core_rows, split.weight), validate))


def race(kinds: list[str], enter_kind: Callable[[str], Runner]) -> Runner:
    """Train each kind through the first part of its schedule; return the one with the least NLL.

    A kind beats one that is named before it, and is simpler, only where it is clearly better. The winner
    goes on from where it is, so the race costs the time of the losers alone.
    """
    runners: list[Runner] = []
    for kind in kinds:
        runner = enter_kind(kind)
        runner.trainer.validate()
        if len(kinds) > 1:
            run_leg(runner.trainer, len(kinds), runners[0].trainer if runners else None)
        runners.append(runner)
    best = runners[0]
    for runner in runners[1:]:
        if clearly_better(runner.trainer.last_rows, best.trainer.last_rows):
            best = runner
    return best


def run_leg(trainer: Trainer, num_kinds: int, pace: Trainer | None) -> None:
    """Run a trainer through the race's part of its schedule, in as many steps as `pace` took for it."""
    own = trainer.budget
    if pace is None:
        goal = leg_goal(trainer, num_kinds)
    else:
        goal = pace.progress
        trainer.budget = Budget(max_iter=max(1, round(int(pace.state.step) / goal)))
    while trainer.progress < goal:
        trainer.train_towards(goal)
    trainer.budget = own
    trainer.validate()


def leg_goal(trainer: Trainer, num_kinds: int) -> float:
    """Return the share of the schedule that the race runs over.

    Closed forms start ahead: a leg must be long enough, in steps, for a field to make up for them. So the
    race has a number of steps, which the kinds share, where it is not too much of the whole.
    """
    total = trainer.expected_steps()
    return min(max(RACE_PROGRESS, RACE_STEPS / num_kinds / total), RACE_MOST / num_kinds)

"""Choices that the data make: a short race on validation NLL, inside the same budget."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import PyTree

from . import evaluation
from ._types import Rows
from .bijections import AbstractBijection, Chain
from .distributions import Transformed
from .divergences import AbstractDivergence
from .flows import with_divergence
from .preprocessing import fit_links
from .training import Budget, Trainer, TrainingData, clearly_better

RACE_PROGRESS = 0.03
RACE_STEPS = 1600
RACE_MOST = 0.8
FINAL_LENGTH = 3.0
# Several kinds have their chances, at several validations: evidence against the simpler one must be strong.
RACE_STD_ERRORS = 3.0


@dataclasses.dataclass
class Split:
    """A table in two parts: rows to train on, and rows to choose by; weights are shares of the table's."""

    rows: Rows
    weight: np.ndarray
    validation_rows: Rows
    validation_weight: np.ndarray


@dataclasses.dataclass
class Runner:
    """A kind of preprocessing in training: its trainer, and the closed forms that the trained flow does not hold."""

    kind: str
    links: list[AbstractBijection]
    trainer: Trainer

    def flow(self, params: PyTree) -> Any:
        """Return the flow with these parameters, base to data: the trainer's, and the closed forms behind it."""
        core = self.trainer.flow(params)
        return Transformed(core.base, Chain([core.bijection, *self.links])) if self.links else core


def enter(
    kind: str,
    split: Split,
    divergence: AbstractDivergence,
    make_trainer: Callable[[TrainingData, Callable], Trainer],
) -> Runner:
    """Fit the closed forms of a kind; make the trainer of the core in their coordinates, judged by a divergence."""
    links, core_rows, _ = fit_links(kind, split.rows, split.weight)
    core_validation, log_det = evaluation.to_core(links, split.validation_rows)

    def validate(core: Transformed) -> np.ndarray:
        log_prob, _ = evaluation.score(with_divergence(core, divergence), core_validation)
        # A weighted mean as a plain one: rows carry their share of the weight. NLLs are compared
        # between kinds, so they are in the units of the data.
        return (log_prob + log_det) * split.validation_weight

    return Runner(kind, links, make_trainer(TrainingData.pad(core_rows, split.weight), validate))


def race(kinds: list[str], enter_kind: Callable[[str], Runner]) -> Runner:
    """Train each kind through the first part of its schedule, the best two further; return the better one.

    A kind beats one that is named before it, and is simpler, only where it is clearly better. The winner
    goes on from where it is, so the race costs the time of the losers alone.
    """
    runners = [enter_kind(kinds[0])]
    runners[0].trainer.validate()
    if len(kinds) == 1:
        return runners[0]
    goal = leg_goal(runners[0].trainer, len(kinds))
    run_leg(runners[0].trainer, goal)
    for kind in kinds[1:]:
        runners.append(enter_kind(kind))
        runners[-1].trainer.validate()
        run_leg(runners[-1].trainer, goal, pace=runners[0].trainer)
    runners = finalists(runners)
    if len(runners) > 1:
        run_leg(runners[0].trainer, FINAL_LENGTH * goal)
        run_leg(runners[1].trainer, FINAL_LENGTH * goal, pace=runners[0].trainer)
    best = runners[0]
    for runner in runners[1:]:
        if clearly_better(runner.trainer.best_rows, best.trainer.best_rows, RACE_STD_ERRORS):
            best = runner
    return best


def finalists(runners: list[Runner]) -> list[Runner]:
    """Return the kinds that may still win, at most two, in the order of their simplicity.

    A closed form that bends more starts ahead and may end behind: a field learns late what is hard. So a
    kind goes on that lags by less than what it has gained since its start.
    """
    mean = lambda runner: float(np.mean(runner.trainer.best_rows))  # noqa: E731
    best, *others = sorted(runners, key=mean, reverse=True)
    gain = lambda runner: mean(runner) - float(np.mean(runner.trainer.first_rows))  # noqa: E731
    able = [best, *[runner for runner in others if mean(best) - mean(runner) < gain(runner)][:1]]
    return [runner for runner in runners if runner in able]


def run_leg(trainer: Trainer, goal: float, pace: Trainer | None = None) -> None:
    """Run a trainer to a share of its schedule and validate it, in as many steps as `pace` took for it."""
    own = trainer.budget
    if pace is not None:
        trainer.budget = Budget(max_iter=max(1, round(int(pace.state.step) / pace.progress)))
    while trainer.progress < goal:
        trainer.train_towards(goal)
    trainer.budget = own
    trainer.validate()


def leg_goal(trainer: Trainer, num_kinds: int) -> float:
    """Return the share of the schedule that the race's first leg runs over.

    Closed forms start ahead: a leg must be long enough, in steps, for a field to make up for them. So the
    race has a number of steps, which the kinds share, where it is not too much of the whole.
    """
    share = max(RACE_PROGRESS, RACE_STEPS / num_kinds / trainer.expected_steps())
    return min(share, RACE_MOST / FINAL_LENGTH / num_kinds)

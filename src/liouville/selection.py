"""Choices that the data make: a short race on validation NLL, inside the same budget."""

import contextlib
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

_RACE_PROGRESS = 0.03
_RACE_STEPS = 1600
_RACE_MOST = 0.8
_FINAL_LENGTH = 3.0
# Several kinds have their chances, at several validations: evidence against the simpler one must be strong.
_RACE_STD_ERRORS = 3.0


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


class Race:
    """Kinds of preprocessing in training, and the one that wins.

    Each kind is trained through the first part of its schedule, the best two further. A kind beats one that is named
    before it, and is simpler, only where it is clearly better. The winner goes on from where it is, so the race costs
    the time of the losers alone. A race of one kind has no legs.

    Parameters
    ----------
    kinds
        Names, the simplest first.
    enter_kind
        Function of a kind that returns its runner, at the start.
    """

    def __init__(self, kinds: list[str], enter_kind: Callable[[str], Runner]):
        self.kinds, self.enter_kind = kinds, enter_kind
        self.runners: dict[str, Runner] = {}
        self.goal, self.finalists, self.winner = None, [], None
        self.saved: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {}
        self.keep: Callable[[], None] = lambda: None

    def run(self) -> Runner:
        """Return the winner."""
        if self.winner is None:
            self._run_legs()
            self.winner = self.best().kind
        return self._enter(self.winner)

    def _run_legs(self) -> None:
        first = self._enter(self.kinds[0]).trainer
        if len(self.kinds) == 1 or first.budget.is_over():
            return
        if self.goal is None:
            self.goal = leg_goal(first, len(self.kinds))
        run_leg(first, self.goal)
        for kind in self.kinds[1:]:
            if first.budget.is_over():
                return
            run_leg(self._enter(kind).trainer, self.goal, pace=first)
        self.finalists = self.finalists or [runner.kind for runner in finalists([*self.runners.values()])]
        if len(self.finalists) > 1 and not first.budget.is_over():
            ahead, behind = (self.runners[kind].trainer for kind in self.finalists)
            run_leg(ahead, _FINAL_LENGTH * self.goal)
            run_leg(behind, _FINAL_LENGTH * self.goal, pace=ahead)

    def _enter(self, kind: str) -> Runner:
        if kind not in self.runners:
            runner = self.runners[kind] = self.enter_kind(kind)
            runner.trainer.keep = self.keep
            if kind in self.saved:
                runner.trainer.restore(*self.saved[kind])
            else:
                runner.trainer.validate()
        return self.runners[kind]

    def best(self) -> Runner:
        """Return the best runner so far."""
        able = self.finalists or [kind for kind, runner in self.runners.items() if runner.trainer.best_rows.size]
        best, *others = (self.runners[kind] for kind in ([self.winner] if self.winner else able))
        for runner in others:
            if clearly_better(runner.trainer.best_rows, best.trainer.best_rows, _RACE_STD_ERRORS):
                best = runner
        return best

    def stop(self) -> Runner | None:
        """Return the best runner of a race that was interrupted, its last weights validated; None before a step."""
        trained = [runner.trainer for runner in self.runners.values() if int(runner.trainer.state.step) > 0]
        # An interrupt while it validates: what was validated before is then the best.
        with contextlib.suppress(KeyboardInterrupt):
            for trainer in trained:
                trainer.watch = lambda trainer, numbers: None
                if trainer.validated_at < int(trainer.state.step):
                    trainer.validate()
        return self.best() if trained else None

    def arrays(self) -> PyTree:
        """Return the arrays that it needs to go on: of all kinds, or of the one that has won."""
        return {kind: runner.trainer.arrays() for kind, runner in self._going_on()}

    def facts(self) -> dict[str, Any]:
        """Return what else it needs to go on, in JSON's types."""
        trainers = {kind: runner.trainer.facts() for kind, runner in self._going_on()}
        return {"goal": self.goal, "finalists": self.finalists, "winner": self.winner, "trainers": trainers}

    def _going_on(self) -> list[tuple[str, Runner]]:
        return [(kind, runner) for kind, runner in self.runners.items() if self.winner in (None, kind)]

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Take up what `arrays`, by the names that `checkpoint.named_arrays` gives them, and `facts` returned."""
        self.goal, self.finalists, self.winner = facts["goal"], facts["finalists"], facts["winner"]
        for kind, own in facts["trainers"].items():
            start = f"{kind}."
            named = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            self.saved[kind] = (named, own)


def finalists(runners: list[Runner]) -> list[Runner]:
    """Return the kinds that may still win, at most two, in the order of their simplicity.

    A closed form that bends more starts ahead and may end behind: a field learns late what is hard. So a
    kind goes on that lags by less than what it has gained since its start.
    """
    mean = lambda runner: float(np.mean(runner.trainer.best_rows))
    best, *others = sorted(runners, key=mean, reverse=True)
    gain = lambda runner: mean(runner) - float(np.mean(runner.trainer.first_rows))
    able = [best, *[runner for runner in others if mean(best) - mean(runner) < gain(runner)][:1]]
    return [runner for runner in runners if runner in able]


def run_leg(trainer: Trainer, goal: float, pace: Trainer | None = None) -> None:
    """Run a trainer to a share of its schedule, if it is not there, in as many steps as `pace` took for it."""
    if trainer.progress < goal:
        steps = None if pace is None else max(1, round(int(pace.state.step) / pace.progress))
        trainer.train_to(goal, budget=None if steps is None else Budget(max_iter=steps))
        trainer.keep()


def leg_goal(trainer: Trainer, num_kinds: int) -> float:
    """Return the share of the schedule that the race's first leg runs over.

    Closed forms start ahead: a leg must be long enough, in steps, for a field to make up for them. So the
    race has a number of steps, which the kinds share, where it is not too much of the whole.
    """
    share = max(_RACE_PROGRESS, _RACE_STEPS / num_kinds / trainer.expected_steps())
    return min(share, _RACE_MOST / _FINAL_LENGTH / num_kinds)

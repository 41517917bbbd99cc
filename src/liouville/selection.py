"""Choices that the data make: a short race on validation NLL, inside the same budget."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import PyTree

from . import evaluation
from ._types import Rows
from .density import Density
from .distributions import Transformed
from .divergences import AbstractDivergence
from .flows import with_divergence
from .frames import Frame, fit_table
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
class Candidate:
    """A kind of preprocessing in training: its trainer, and the frame that the trained flow does not hold, or None."""

    kind: str
    frame: Frame | None
    trainer: Trainer

    def density(self, params: PyTree) -> Density:
        """Return the density with these parameters."""
        flow = self.trainer.flow(params)
        return flow if self.frame is None else Density(flow, self.frame)


def prepare(
    kind: str,
    split: Split,
    divergence: AbstractDivergence,
    make_trainer: Callable[[TrainingData, Callable], Trainer],
) -> Candidate:
    """Fit the frame of a kind; make the trainer of the core in its coordinates, judged by a divergence."""
    frame, points = fit_table(kind, split.rows, split.weight)
    validation_points, log_det = frame.encode(split.validation_rows)

    def validate(core: Transformed) -> np.ndarray:
        log_prob, _ = evaluation.score(with_divergence(core, divergence), validation_points)
        # A weighted mean as a plain one: rows carry their share of the weight. NLLs are compared
        # between kinds, so they are in the units of the data.
        return (log_prob + log_det) * split.validation_weight

    return Candidate(kind, frame, make_trainer(TrainingData.pad(points, split.weight), validate))


class Race:
    """Kinds of preprocessing in training, and the one that wins.

    Each kind is trained through the first part of its schedule, the best two further. A kind beats one that is named
    before it, and is simpler, only where it is clearly better. The winner goes on from where it is, so the race costs
    the time of the losers alone. A race of one kind has no legs.

    Parameters
    ----------
    kinds
        Names, the simplest first.
    prepare
        Function of a kind that returns its candidate, not trained yet.
    """

    def __init__(self, kinds: list[str], prepare: Callable[[str], Candidate]):
        self.kinds, self.prepare = kinds, prepare
        self.candidates: dict[str, Candidate] = {}
        self.goal, self.finalists, self.winner = None, [], None
        self.saved: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {}
        self.keep: Callable[[], None] = lambda: None

    def run(self) -> Candidate:
        """Return the winner."""
        if self.winner is None:
            self._run_legs()
            self.winner = self.best().kind
        return self._prepared(self.winner)

    def _run_legs(self) -> None:
        first = self._prepared(self.kinds[0]).trainer
        if len(self.kinds) == 1 or first.budget.is_over():
            return
        if self.goal is None:
            self.goal = leg_goal(first, len(self.kinds))
        run_leg(first, self.goal)
        for kind in self.kinds[1:]:
            if first.budget.is_over():
                return
            run_leg(self._prepared(kind).trainer, self.goal, pace=first)
        self.finalists = self.finalists or [candidate.kind for candidate in finalists([*self.candidates.values()])]
        if len(self.finalists) > 1 and not first.budget.is_over():
            ahead, behind = (self.candidates[kind].trainer for kind in self.finalists)
            run_leg(ahead, _FINAL_LENGTH * self.goal)
            run_leg(behind, _FINAL_LENGTH * self.goal, pace=ahead)

    def _prepared(self, kind: str) -> Candidate:
        if kind not in self.candidates:
            candidate = self.candidates[kind] = self.prepare(kind)
            candidate.trainer.keep = self.keep
            if kind in self.saved:
                candidate.trainer.restore(*self.saved[kind])
            else:
                candidate.trainer.validate()
        return self.candidates[kind]

    def best(self) -> Candidate:
        """Return the best candidate so far."""
        able = self.finalists or [kind for kind, one in self.candidates.items() if one.trainer.best_rows.size]
        best, *others = (self.candidates[kind] for kind in ([self.winner] if self.winner else able))
        for candidate in others:
            if clearly_better(candidate.trainer.best_rows, best.trainer.best_rows, _RACE_STD_ERRORS):
                best = candidate
        return best

    def stop(self) -> Candidate | None:
        """Return the best candidate of a race that was interrupted, its last weights validated; None before a step."""
        trained = [candidate.trainer for candidate in self.candidates.values() if int(candidate.trainer.state.step) > 0]
        # An interrupt while it validates: what was validated before is then the best.
        with contextlib.suppress(KeyboardInterrupt):
            for trainer in trained:
                trainer.watch = lambda trainer, numbers: None
                if trainer.validated_at < int(trainer.state.step):
                    trainer.validate()
        return self.best() if trained else None

    def arrays(self) -> PyTree:
        """Return the arrays that it needs to go on: of all kinds, or of the one that has won."""
        return {kind: candidate.trainer.arrays() for kind, candidate in self._going_on()}

    def facts(self) -> dict[str, Any]:
        """Return what else it needs to go on, in JSON's types."""
        trainers = {kind: candidate.trainer.facts() for kind, candidate in self._going_on()}
        return {"goal": self.goal, "finalists": self.finalists, "winner": self.winner, "trainers": trainers}

    def _going_on(self) -> list[tuple[str, Candidate]]:
        return [(kind, candidate) for kind, candidate in self.candidates.items() if self.winner in (None, kind)]

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Take up what `arrays`, by the names that `checkpoint.named_arrays` gives them, and `facts` returned."""
        self.goal, self.finalists, self.winner = facts["goal"], facts["finalists"], facts["winner"]
        for kind, own in facts["trainers"].items():
            start = f"{kind}."
            named = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            self.saved[kind] = (named, own)


def finalists(candidates: list[Candidate]) -> list[Candidate]:
    """Return the kinds that may still win, at most two, in the order of their simplicity.

    A closed form that bends more starts ahead and may end behind: a field learns late what is hard. So a
    kind goes on that lags by less than what it has gained since its start.
    """
    mean = lambda candidate: float(np.mean(candidate.trainer.best_rows))
    best, *others = sorted(candidates, key=mean, reverse=True)
    gain = lambda candidate: mean(candidate) - float(np.mean(candidate.trainer.first_rows))
    able = [best, *[candidate for candidate in others if mean(best) - mean(candidate) < gain(candidate)][:1]]
    return [candidate for candidate in candidates if candidate in able]


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

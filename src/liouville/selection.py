"""Choices that the data make: a short race on validation NLL, inside the same budget."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import equinox as eqx
import numpy as np
from jaxtyping import PyTree
from scipy.special import expit, logit

from . import evaluation
from ._splits import AnySplit, Prepared
from .density import Density
from .distributions import Transformed
from .divergences import AbstractDivergence
from .flows import FlowSpec, NoiseSpec, with_divergence
from .frames import AbstractFrame
from .mixed import Questions
from .objectives import AbstractObjective
from .training import Budget, Options, Trainer, clearly_better

_RACE_PROGRESS = 0.03
_RACE_STEPS = 1600
_RACE_MOST = 0.8
_FINAL_LENGTH = 3.0
# Several kinds have their chances, at several validations: evidence against the simpler one must be strong.
_RACE_STD_ERRORS = 3.0
# With a deadline a validation takes no more than this share of the time, at so many evaluations a row.
_VALIDATION_SHARE, _SOLVE_EVALUATIONS = 0.02, 60
# A flow and what stands beside it are weighed by so many questions, in so many steps; neither is left out.
_MOST_WEIGHED, _WEIGHING_STEPS, _LEAST_SHARE = 2048, 200, 1e-3


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a fit is done: an estimator's parameters, a recipe's, and defaults, resolved to numbers.

    Attributes
    ----------
    preprocess
        Kinds of preprocessing that race, the simplest first.
    flow
        Builds the core.
    noise
        Builds the noise of whole numbers; None is uniform noise, where there are whole numbers.
    objective, options
        What is made small, and how weights are moved.
    max_iter
        Number of steps, or None where seconds alone are the limit.
    longest
        Number of steps to which training that still gains may be stretched, or None.
    validation_size, validation_divergence
        How many rows choices are made by, at most, and by which divergence their log-density is known.
    fewest_validated
        With a deadline the time left may allow of fewer rows, down to so many; None keeps to all.
    of_subsets
        True learns any columns given any others (`liouville.mixed.Subsets`).
    num_fills
        So many times the gaps of a row are filled by draws of what the training before it has learned, from whose
        weights this one goes on; 0 learns from rows as they are.
    of_questions
        True validates by such questions; False by the log-density of rows.
    has_fronts
        True where trees may stand in front of a target.
    longest_race
        Share of the schedule to which the best two kinds race where the one behind would catch up.
    """

    preprocess: list[str]
    flow: FlowSpec
    objective: AbstractObjective
    options: Options
    max_iter: int | None
    validation_size: int
    validation_divergence: AbstractDivergence
    noise: NoiseSpec | None = None
    longest: int | None = None
    fewest_validated: int | None = None
    of_subsets: bool = False
    of_questions: bool = False
    num_fills: int = 0
    has_fronts: bool = False
    longest_race: float = 0.0


@dataclasses.dataclass
class Candidate:
    """A kind of preprocessing in training: its trainer, and what was prepared for it, such as its frame."""

    preprocess: str
    prepared: Prepared
    trainer: Trainer
    weigh: Callable[[Density], Density] | None = None

    def density(self, params: PyTree) -> Density:
        """Return the density with these parameters."""
        return framed(self.trainer.flow(params), self.prepared.frame)

    def best(self) -> Density:
        """Return the density of the best weights."""
        density = self.density(self.trainer.best_params)
        return density if self.weigh is None else self.weigh(density)


def framed(flow: Any, frame: AbstractFrame) -> Density:
    """Return what is trained as a density: an exact frame takes no part in training."""
    return flow if isinstance(flow, Density) else Density(flow, frame)


def prepare(preprocess: str, split: AnySplit, plan: Plan, budget: Budget, seed: int, start: PyTree = None) -> Candidate:
    """Fit the frame of a kind, and make its trainer; `start` are weights to go on from, None draws them."""
    prepared = split.fit_frame(preprocess, plan, seed, budget.deadline)
    frame, questions, weigh = prepared.frame, prepared.questions, None
    rows, weights = split.validation_rows, split.validation_weight
    if prepared.weighed_by is not None:
        by = {"weight": weights, "divergence": plan.validation_divergence}
        weigh = partial(weighed, questions=prepared.weighed_by, **by)

    def score(flow: Transformed | Density, num: int) -> tuple[np.ndarray, evaluation.EvaluationInfo]:
        density = with_divergence(framed(flow, frame), plan.validation_divergence)
        if questions is None:
            given = None if prepared.given is None else prepared.given[:num]
            log_prob, info = evaluation.score(density, rows[:num], given)
        else:
            log_prob, info = evaluation.score(density.core, questions.points[:num], questions.condition[:num])
            log_prob = log_prob + questions.change[:num]
        # A weighted mean as a plain one: rows carry their share of the weight, of those that are scored.
        weight = weights[:num]
        return log_prob * (weight if num >= len(rows) else weight / weight.mean()), info

    trainer = Trainer(
        # Where no noise is drawn, points are made once, and the core alone is trained: one program for all kinds.
        prepared.build,
        plan.objective,
        prepared.data,
        # As many as have chosen before.
        lambda flow: score(flow, len(trainer.best_rows) or num)[0],
        options=plan.options,
        budget=budget,
        seed=seed,
    )
    if start is not None:
        trainer.start_from(start)
    num = len(rows)
    if budget.deadline is not None and plan.fewest_validated is not None:
        timed = partial(score, trainer.best_flow())
        found = validated_in_time(timed, min(num, plan.fewest_validated), num, budget.deadline)
        num, trainer.least_validate_seconds = found
    return Candidate(preprocess, prepared, trainer, weigh)


def weighed(density: Density, questions: Questions, weight: np.ndarray, divergence: AbstractDivergence) -> Density:
    """Return a density of any columns given any others whose flow has the share that makes questions most likely.

    What stands beside the flow has the rest; the share is found by steps of EM.
    """
    core = density.core
    if core.beside is None or core.core is None:
        return density
    share_of = lambda core, share: eqx.tree_at(lambda core: core.beside.share, core, np.asarray(float(share)))
    few, quick = slice(0, _MOST_WEIGHED), with_divergence(core, divergence)
    asked = questions.points[few], questions.condition[few]
    of_flow, of_mixture = (evaluation.score(share_of(quick, share), *asked)[0] for share in (1.0, 0.0))
    are_told = np.isfinite(of_flow) & np.isfinite(of_mixture) & (of_flow != of_mixture)
    ahead, weight, share = (of_flow - of_mixture)[are_told], weight[few][are_told], 0.5
    for _ in range(_WEIGHING_STEPS if are_told.any() else 0):
        share = np.average(expit(ahead + logit(share)), weights=weight)
    return dataclasses.replace(density, core=share_of(core, np.clip(share, _LEAST_SHARE, 1 - _LEAST_SHARE)))


def validated_in_time(score: Callable[[int], Any], few: int, most: int, deadline: float) -> tuple[int, float]:
    """Return how many rows, at most, can be scored in a small share of the time left, and in how many seconds."""
    score(1)
    # Compiled by now.
    start = time.perf_counter()
    _, info = score(few)
    end = time.perf_counter()
    # A flow that has learned takes more evaluations than the first one, which may be known in closed form.
    a_row = (end - start) / few * max(1.0, _SOLVE_EVALUATIONS / info.num_evaluations.max())
    num = int(np.clip(_VALIDATION_SHARE * (deadline - end) / a_row, few, most))
    return num, num * a_row


class Race:
    """Kinds of preprocessing in training, and the one that wins.

    Each kind is trained through the first part of its schedule, the best two further. A kind beats one that is named
    before it, and is simpler, only where it is clearly better. The winner goes on from where it is, so the race costs
    the time of the losers alone. A race of one kind has no legs.

    Parameters
    ----------
    names
        Names, the simplest first.
    prepare
        Function of a kind that returns its candidate, not trained yet.
    longest
        Share of the schedule to which the best two go on where the one behind would catch up, as it gains.
    """

    def __init__(self, names: list[str], prepare: Callable[[str], Candidate], longest: float = 0.0):
        self.names, self.prepare, self.longest = names, prepare, longest
        # Mean log-likelihoods of the finalists, leg by leg.
        self.marks: list[list[float]] = []
        self.candidates: dict[str, Candidate] = {}
        self.goal, self.finalists, self.winner = None, [], None
        self.saved: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {}
        self.keep: Callable[[], None] = lambda: None

    def run(self) -> Candidate:
        """Return the winner."""
        if self.winner is None:
            self._run_legs()
            self.winner = self.best().preprocess
        return self._prepared(self.winner)

    def _run_legs(self) -> None:
        first = self._prepared(self.names[0]).trainer
        if len(self.names) == 1 or first.budget.is_over():
            return
        if self.goal is None:
            self.goal = leg_goal(first, len(self.names))
        run_leg(first, self.goal)
        for name in self.names[1:]:
            if first.budget.is_over():
                return
            run_leg(self._prepared(name).trainer, self.goal, pace=first)
        self.finalists = self.finalists or [
            candidate.preprocess for candidate in finalists([*self.candidates.values()])
        ]
        if len(self.finalists) > 1 and not first.budget.is_over():
            self._run_final(*(self.candidates[name].trainer for name in self.finalists))

    def _run_final(self, one: Trainer, other: Trainer) -> None:
        """Run the best two further, and further yet while the one behind gains more than it lags."""
        goal, leg = _FINAL_LENGTH * cast(float, self.goal), 0
        self._mark(0, one, other)
        while True:
            run_leg(one, goal)
            run_leg(other, goal, pace=one)
            leg += 1
            self._mark(leg, one, other)
            before, after = (self.marks[at][0] - self.marks[at][1] for at in (leg - 1, leg))
            # It gains as much again in the next leg, which is twice as long as all before.
            catches_up = abs(after) < np.sign(after) * (before - after)
            if goal >= self.longest or not catches_up or one.budget.is_over():
                return
            goal = min(_FINAL_LENGTH * goal, self.longest)

    def _mark(self, leg: int, *trainers: Trainer) -> None:
        """Note how likely the finalists' held-out rows are after a leg, unless a race that goes on has it noted."""
        if leg == len(self.marks):
            self.marks.append([float(np.mean(trainer.best_rows)) for trainer in trainers])

    def _prepared(self, name: str) -> Candidate:
        if name not in self.candidates:
            candidate = self.candidates[name] = self.prepare(name)
            candidate.trainer.keep = self.keep
            if name in self.saved:
                candidate.trainer.restore(*self.saved[name])
            else:
                candidate.trainer.validate()
        return self.candidates[name]

    def best(self) -> Candidate:
        """Return the best candidate so far."""
        able = self.finalists or [name for name, one in self.candidates.items() if one.trainer.best_rows.size]
        best, *others = (self.candidates[name] for name in ([self.winner] if self.winner else able))
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
        return {name: candidate.trainer.arrays() for name, candidate in self._going_on()}

    def facts(self) -> dict[str, Any]:
        """Return what else it needs to go on, in JSON's types."""
        trainers = {name: candidate.trainer.facts() for name, candidate in self._going_on()}
        own = {"goal": self.goal, "finalists": self.finalists, "winner": self.winner, "marks": self.marks}
        return {**own, "trainers": trainers}

    def _going_on(self) -> list[tuple[str, Candidate]]:
        return [(name, candidate) for name, candidate in self.candidates.items() if self.winner in (None, name)]

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Take up what `arrays`, by the names that `checkpoint.named_arrays` gives them, and `facts` returned."""
        self.goal, self.finalists, self.winner = facts["goal"], facts["finalists"], facts["winner"]
        # A file of an older version has none.
        self.marks = facts.get("marks", [])
        for name, own in facts["trainers"].items():
            start = f"{name}."
            named = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            self.saved[name] = (named, own)


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

"""What all estimators have in common that are fitted by training."""

import abc
import copy
import dataclasses
import time
from typing import Any, Self, cast

import jax
from sklearn.base import BaseEstimator

from ._conditionals import filled
from ._defaults import seed_of
from ._fitting import Given, Stage, TrainingFile, become, run_fit, warn_of_few_steps
from ._model_file import SavedMixin, build_facts, portable_params
from ._progress import Watch, progress_bar
from ._splits import AnySplit, Split
from ._types import parameters
from .bespoke import FittedSteps
from .density import Density
from .mixed import Columns
from .selection import Candidate, Plan, Race
from .training import Budget


class AbstractFitted(SavedMixin, BaseEstimator, abc.ABC):
    """What is learned by training: subclasses say how their data are checked, split and framed."""

    recipe: str
    max_seconds: float | None
    random_state: Any
    verbose: int
    checkpoint: str | None
    flow_: Density
    history_: dict[str, list]
    facts_: dict[str, Any]
    n_iter_: int
    _steps_by_error: dict[float, FittedSteps | None]

    @abc.abstractmethod
    def _check_parameters(self) -> None:
        """Raise for a parameter that has no meaning."""

    @abc.abstractmethod
    def _plan(self, shape: tuple[int, ...], columns: Columns | None = None) -> Plan:
        """Return how data of a shape are fitted, and of these columns where they are not all continuous."""

    @abc.abstractmethod
    def _split(self, given: Given, plan: Plan, seed: int) -> AnySplit:
        """Return what to train on, and what to choose by."""

    @abc.abstractmethod
    def _facts_of_data(self, given: Given) -> dict[str, Any]:
        """Return what is worth knowing of the data."""

    def _shown(self, watch: Watch, given: Given) -> Watch:
        """Return what the progress bar shows of a training."""
        return watch

    def _fit(self, given: Given, started: float, callback: Any) -> Self:
        """Train one density after the other on data that were checked, and keep them."""
        seed, stages = seed_of(self.random_state), self._stages(given)
        # What fails leaves the estimator as it was.
        learned, done = copy.copy(self), []
        try:
            for place, stage in enumerate(stages):
                for file, race in done:
                    # What comes behind it may be interrupted: this need not be learned again.
                    file.write(race, is_over=True)
                done.append(learned._learn(place, stage, given, seed, started, callback))
        except KeyboardInterrupt:
            become(self, learned)
            raise
        become(self, learned)
        for file, _ in done:
            file.discard()
        return self

    def _learn(
        self, place: int, stage: Stage, given: Given, seed: int, started: float, callback: Any
    ) -> tuple[TrainingFile, Race]:
        """Train one of the densities of a fit, and keep it; return the file that its training has written, and it."""
        plan, split = stage.plan, self._split(given, stage.plan, seed)
        start = None
        if plan.num_fills:
            # What the stage before has learned draws what is missing, and is where this one goes on.
            split, start = filled(cast(Split, split), self.flow_, plan.num_fills, seed), parameters(self.flow_.core)
            plan = dataclasses.replace(plan, preprocess=[self.facts_["preprocess"]])
        identity = {"parameters": portable_params(self), "rows": len(given.arrays[0]), "seed": seed}
        path = self.checkpoint if place == 0 or self.checkpoint is None else f"{self.checkpoint}.{place}"
        file = TrainingFile(path, identity, *given.arrays)
        take = lambda one: self._keep(stage.name, one, plan, given, seed, time.perf_counter() - started)
        deadline = None if self.max_seconds is None else started + stage.ends_at * self.max_seconds
        budget = Budget(plan.max_iter, deadline)
        with progress_bar(self.verbose, stage.what) as bar:
            told = callback if stage.name == "flow_" else None
            look: dict[str, Any] = {"watch": self._shown(bar, given), "callback": told}
            race = run_fit(split, plan, budget, seed, file=file, take=take, **look, start=start)
        warn_of_few_steps(race, self.max_seconds, started)
        return file, race

    def _stages(self, given: Given) -> list[Stage]:
        """Return how each of the densities of a fit is learned, one after the other."""
        return [Stage("flow_", self._plan(given.rows.shape))]

    def _keep(self, name: str, candidate: Candidate, plan: Plan, given: Given, seed: int, seconds: float) -> None:
        """Take up what a training has learned, by the name of its stage."""
        trainer = candidate.trainer
        for old in ("feature_names_in_", "subsets_", "given_", "given_columns_"):
            vars(self).pop(old, None)
        vars(self).update(given.columns)
        self.flow_, self._steps_by_error = candidate.best(), {}
        self.history_, self.n_iter_ = dict(trainer.history), int(trainer.state.step)
        self.facts_ = {
            "rows": len(given.arrays[0]),
            **self._facts_of_data(given),
            "preprocess": candidate.preprocess,
            "recipe": self.recipe,
            # All that the density is built by: a file does not ask what a recipe's defaults are when it is read.
            **build_facts(candidate.prepared.build),
            "numbers": sum(leaf.size for leaf in jax.tree.leaves(trainer.best_params)),
            "batch_size": plan.options.batch_size,
            "learning_rate": plan.options.learning_rate,
            "weight_decay": plan.options.weight_decay,
            "steps": self.n_iter_,
            "best_step": trainer.best_step,
            "validation_rows": len(trainer.best_rows),
            "validation_nll": trainer.best_nll,
            "validation_is_exact": plan.validation_divergence.is_exact,
            "skipped_steps": int(trainer.state.skipped),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "seconds": round(seconds, 3),
            "seed": seed,
        }

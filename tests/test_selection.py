"""The race between kinds of preprocessing."""

import dataclasses
import types

import equinox as eqx
import jax
import numpy as np

from liouville import FlowDensity, evaluation
from liouville._defaults import affordable_validation, resolve
from liouville._splits import Split
from liouville.density import Density
from liouville.divergences import Exact, Hutchinson
from liouville.flows import FlowSpec
from liouville.selection import Candidate, Race, finalists, prepare
from liouville.training import Budget


class Racer:
    """A trainer whose validation log-density follows a curve of the step, the same for all rows but for noise."""

    def __init__(self, curve, seed=0):
        self.curve, self.noise = curve, 0.01 * np.random.default_rng(seed).normal(size=400)
        self.state, self.progress = types.SimpleNamespace(step=0), 0.0
        self.budget = Budget(max_iter=10_000)
        self.first_rows = self.best_rows = np.zeros(0)

    def expected_steps(self):
        return 10_000

    def train_to(self, goal, budget=None):
        self.state.step = round(goal * (budget or self.budget).max_iter)
        self.progress = goal
        self.validate()

    def keep(self):
        pass

    def validate(self):
        rows = self.curve(self.state.step) + self.noise
        self.first_rows = self.first_rows if self.first_rows.size else rows
        self.best_rows = rows


def run_race(curves, longest=0.0):
    racers = {name: Racer(curve, seed) for seed, (name, curve) in enumerate(curves.items())}
    winner = Race(list(curves), lambda kind: Candidate(kind, None, racers[kind]), longest).run()
    return winner.preprocess, {name: racer.state.step for name, racer in racers.items()}


def test_a_kind_that_starts_behind_and_learns_wins():
    winner, steps = run_race({"slow": lambda s: -2.5 + s / 600, "ahead": lambda s: -1.0 + 0 * s})
    assert winner == "slow"
    assert steps["slow"] == steps["ahead"] > 800


def test_a_kind_that_lags_and_does_not_learn_is_not_trained_further():
    winner, steps = run_race(
        {"good": lambda s: s / 600, "bad": lambda s: -3.0 + 0 * s, "worse": lambda s: -4.0 + 0 * s}
    )
    assert winner == "good"
    assert steps["good"] == steps["bad"] == steps["worse"]


def test_kinds_race_on_while_the_one_behind_gains_more_than_it_lags():
    saturating = lambda gain, scale: lambda s: -1.0 + gain * (1 - np.exp(-s / scale))
    kinds = {"ahead": saturating(1.7, 300), "late": saturating(1.8, 1300)}
    winner, steps = run_race(kinds)
    assert (winner, steps["late"]) == ("ahead", 2400)
    winner, steps = run_race(kinds, longest=0.5)
    assert (winner, steps["ahead"], steps["late"]) == ("late", 5000, 5000)
    # What does not catch up is not raced for long.
    winner, steps = run_race({**kinds, "late": saturating(0.9, 300)}, longest=0.5)
    assert (winner, steps["late"]) == ("ahead", 2400)


def test_at_most_two_kinds_are_in_the_final():
    _, steps = run_race({name: lambda s, k=k: s / 600 + 0.01 * k for k, name in enumerate("abcd")})
    assert sorted(steps.values())[1] < sorted(steps.values())[2] == sorted(steps.values())[3]


def test_the_simpler_kind_stays_without_clear_evidence():
    winner, _ = run_race({"simple": lambda s: s / 600, "bent": lambda s: s / 600 + 1e-4})
    assert winner == "simple"


def test_finalists_keep_the_order_of_simplicity():
    candidates = [Candidate(name, None, Racer(lambda s, k=k: s + k)) for k, name in enumerate("ab")]
    for candidate in candidates:
        candidate.trainer.validate()
        candidate.trainer.state.step = 5
        candidate.trainer.validate()
    assert [candidate.preprocess for candidate in finalists(candidates)] == ["a", "b"]


def test_one_kind_runs_no_race():
    winner, steps = run_race({"only": lambda s: s / 600})
    assert winner == "only" and steps == {"only": 0}


def test_validation_is_exact_unless_columns_are_many():
    rows, divergence = affordable_validation(FlowSpec(5, width=64, depth=3))
    assert isinstance(divergence, Exact) and rows > 1000
    rows, divergence = affordable_validation(FlowSpec(63, width=256, depth=2))
    assert isinstance(divergence, Hutchinson) and 400 < rows < 600
    # Discrete layers are exact whatever their size.
    assert isinstance(affordable_validation(FlowSpec(63, width=256, depth=2, layer="planar"))[1], Exact)


def test_estimated_validation_agrees_with_the_exact_one():
    rng = np.random.default_rng(0)
    rows = rng.standard_t(3, size=(600, 6))
    split = Split(rows[:300], np.ones(300), rows[300:], np.ones(300))
    flow = FlowSpec(6, width=16, depth=1)(jax.random.key(0))
    noise = 0.3 * np.random.default_rng(1).normal(size=(6, 16)).astype(np.float32)
    rest = lambda f: f.bijection.vector_field.rest.outer.weight
    flow = eqx.tree_at(rest, flow, noise)
    plan = resolve(FlowDensity(width=16, depth=1), 600, 6)
    plan = dataclasses.replace(plan, validation_divergence=Hutchinson())
    candidate = prepare("whiten", split, plan, Budget(max_iter=1), seed=0)
    exact = evaluation.score(Density(flow, candidate.prepared.frame), split.validation_rows)[0]
    off = candidate.trainer.validate_fn(flow) - exact
    assert np.std(off) > 0.05
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(len(off))

"""Rows of several kinds of numbers given another row, which may have gaps."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from liouville import evaluation
from liouville.flows import FlowSpec, MixedSpec
from liouville.mixed import Column, FactoredObjective, Mixed, fit_mixed
from liouville.objectives import FlowMatching
from liouville.training import Budget, Options, Trainer, TrainingData

COLUMNS = (Column("code", 2), Column("whole", lowest=0.0), Column("continuous"))


def law(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw what is given, a category and a number that a third of the rows lack, and yes or no, a count, an amount."""
    rng = np.random.default_rng(seed)
    kind, x = rng.integers(0, 2, num), rng.normal(size=num)
    is_yes = rng.random(num) < expit(2 * x)
    count = rng.poisson(3 + 4 * kind)
    amount = np.sin(x) + 0.3 * (1 + kind) * rng.normal(size=num)
    given = np.stack([kind, np.where(rng.random(num) < 1 / 3, np.nan, x)], axis=1)
    return given, np.stack([is_yes, count, amount], axis=1).astype(float)


def log_prob_of_law(given: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the log-probabilities, over all that a number could be where it is not known."""
    grid = np.linspace(-6, 6, 801)
    kind, x = given.T
    weight = np.where(np.isnan(x)[:, None], stats.norm.pdf(grid) * (grid[1] - grid[0]), np.eye(1, len(grid)))
    x = np.where(np.isnan(x)[:, None], grid, np.nan_to_num(x)[:, None])
    is_yes, count, amount = (column[:, None] for column in rows.T)
    prob = np.where(is_yes == 1, expit(2 * x), expit(-2 * x)) * stats.norm.pdf(
        amount, np.sin(x), 0.3 * (1 + kind[:, None])
    )
    return np.log((weight * prob).sum(1)) + stats.poisson.logpmf(rows[:, 1], 3 + 4 * kind)


def build(rows: np.ndarray):
    frame, points = fit_mixed("standardize", rows, np.ones(len(rows)), COLUMNS)
    spec = MixedSpec.fit(FlowSpec(1, width=32, depth=2), frame, points, np.ones(len(rows)))
    # What is given is a category and a number.
    return frame, points, MixedSpec(**{**vars(spec), "given": ((2,), 1)})


@functools.cache
def trained():
    with jax.enable_x64(False):
        given, rows = law(6000, 0)
        frame, points, spec = build(rows)
        trainer = Trainer(
            spec, FactoredObjective(FlowMatching()), TrainingData.pad(points, np.ones(len(rows)), given),
            lambda flow: evaluation.score(flow, points[:300], given[:300])[0], options=Options(3e-3, batch_size=512),
            budget=Budget(max_iter=1200), seed=0,
        )  # fmt: skip
        return frame, trainer.run([0.6, 1.0]).best_flow()


def log_prob(flow: Mixed, frame, rows: np.ndarray, given: np.ndarray) -> np.ndarray:
    points, change = frame.encode(rows)
    return evaluation.score(flow, points, given)[0] + change


def test_it_learns_what_depends_on_what_is_given_gaps_and_all():
    frame, flow = trained()
    given, rows = law(3000, 1)
    gap = log_prob_of_law(given, rows) - log_prob(flow, frame, rows, given)
    assert -4 * gap.std() / np.sqrt(len(gap)) < gap.mean() < 0.05


@pytest.mark.parametrize("given", [[0.0, 0.5], [1.0, np.nan], [np.nan, np.nan]])
def test_masses_and_densities_add_up_to_one_whatever_is_given(given):
    frame, flow = trained()
    amounts = np.linspace(-4, 4, 161)
    rows = np.array(list(itertools.product(range(2), range(40), amounts)))
    prob = np.exp(log_prob(flow, frame, rows, np.tile(given, (len(rows), 1)))).reshape(2, 40, -1)
    assert np.trapezoid(prob, amounts, axis=-1).sum() == pytest.approx(1, abs=3e-3)


def test_draws_have_the_law_that_is_given():
    frame, flow = trained()
    points, info = evaluation.sample(flow, 6000, np.tile([1.0, 0.7], (6000, 1)), seed=0)
    drawn = frame.decode(points)
    assert not info.status.any()
    mean = np.array([expit(1.4), 7.0, np.sin(0.7)])
    spread = np.array([np.sqrt(expit(1.4) * expit(-1.4)), np.sqrt(7.0), 0.6])
    # Standard errors of the draws, and of the some 400 rows that it was trained on whose condition is nearly this.
    allowed = 4 * spread / np.sqrt(6000) + 3 * spread / np.sqrt(400)
    np.testing.assert_array_less(np.abs(drawn.mean(0) - mean), allowed)
    assert np.abs(drawn.std(0) / spread - 1).max() < 0.1


def test_what_is_given_reaches_all_parts():
    """Each part of the log-probability is another under another condition."""
    flow = build(law(400, 2)[1])[2](jax.random.key(0))
    leaves, tree = jax.tree.flatten(flow)
    noisy = [leaf + 0.2 * jax.random.normal(jax.random.key(i), leaf.shape) if isinstance(leaf, jax.Array) else leaf
             for i, leaf in enumerate(leaves)]  # fmt: skip
    flow = jax.tree.unflatten(tree, noisy)
    one, two = (flow.hidden(jnp.asarray(given)) for given in ([0.0, 1.0], [0.0, jnp.nan]))
    codes, numbers = jnp.zeros(1), jnp.zeros(1)
    assert flow.codes.log_prob(codes, flow.of_codes_condition(one)) != flow.codes.log_prob(
        codes, flow.of_codes_condition(two)
    )
    assert not np.allclose(flow.told(codes, one), flow.told(codes, two))
    assert not np.allclose(flow.context(codes, numbers, one), flow.context(codes, numbers, two))

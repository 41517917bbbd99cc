"""Rows of several kinds of numbers: one log-probability that sums and integrates to 1."""

import dataclasses
import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from liouville import evaluation
from liouville.bijections import CNF
from liouville.density import Density
from liouville.distributions import Transformed
from liouville.flows import FlowSpec, MixedSpec
from liouville.integrate import Integrator
from liouville.mixed import (
    Cells,
    Codes,
    Column,
    Expected,
    FactoredObjective,
    Grid,
    MaskedNormal,
    Mixed,
    find_columns,
    fit_mixed,
)
from liouville.mixed._cells import log_normal_mass
from liouville.objectives import FlowMatching
from liouville.training import Budget, Options, Trainer, TrainingData
from liouville.vector_fields import MLP, Masked, Preconditioned

SHARES, RATE, ZERO = np.array([0.5, 0.3, 0.2]), np.array([2.0, 6.0, 12.0]), np.array([0.4, 0.1, 0.01])
WIDTH = 32


def law(num: int, seed: int) -> np.ndarray:
    """Draw rows: a category, whether the amount is zero, a count, the logarithm of an amount (0 where it is zero)."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, num, p=SHARES)
    count, is_zero = rng.poisson(RATE[kind]), rng.random(num) < ZERO[kind]
    amount = 0.1 * count - 1 + 0.4 * rng.normal(size=num)
    return np.stack([kind, is_zero, count, np.where(is_zero, 0, amount)], axis=1).astype(float)


def log_prob_of_law(rows: np.ndarray) -> np.ndarray:
    kind, is_zero, count, amount = rows.T
    kind = kind.astype(int)
    density = np.log1p(-ZERO[kind]) + stats.norm.logpdf(amount, 0.1 * count - 1, 0.4)
    return (
        np.log(SHARES[kind]) + stats.poisson.logpmf(count, RATE[kind]) + np.where(is_zero, np.log(ZERO[kind]), density)
    )


def make(rows: np.ndarray, key) -> Mixed:
    """Return a distribution of such rows, not trained."""
    keys = jax.random.split(key, 4)
    shares = [np.bincount(rows[:, j].astype(int)) / len(rows) for j in range(2)]
    expected = Expected(rows[:, 2:3].mean(0), rows[:, 2:3].std(0))
    cells = Cells(expected, Grid([0.0], [np.inf]), told=WIDTH, width=WIDTH, depth=1, key=keys[0])
    field = Masked(Preconditioned(MLP((1,), width=WIDTH, depth=1, cond_shape=(1 + WIDTH,), key=keys[1])))
    core = Transformed(MaskedNormal((1,), (1 + WIDTH,)), CNF(field))
    return Mixed(Codes(shares, width=WIDTH, key=keys[2]), cells, core, (None, 1), width=WIDTH, key=keys[3])


@functools.cache
def trained() -> Mixed:
    with jax.enable_x64(False):
        rows = law(6000, 1)
        score = lambda flow: evaluation.score(flow, rows[:300])[0]
        trainer = Trainer(
            lambda key: make(rows, key), FactoredObjective(FlowMatching()), TrainingData.pad(rows, np.ones(len(rows))),
            score, options=Options(3e-3, batch_size=512), budget=Budget(max_iter=1500), seed=0,
        )  # fmt: skip
        return trainer.run([0.6, 1.0]).best_flow()


def test_it_learns_a_law_of_a_category_a_count_and_an_amount_with_zeros():
    test = law(3000, 2)
    log_prob, info = evaluation.score(trained(), test)
    gap = log_prob_of_law(test) - log_prob
    assert not info.status.any()
    assert -4 * gap.std() / np.sqrt(len(gap)) < gap.mean() < 0.05


def test_masses_and_densities_add_up_to_one():
    """The sum over codes and counts of the integral over the amount, zeros counted once."""
    amounts = np.linspace(-4, 4, 161)
    rows = np.array(list(itertools.product(range(3), [0], range(40), amounts)))
    zeros = np.array(list(itertools.product(range(3), [1], range(40), [0.0])))
    density = np.exp(evaluation.score(trained(), rows)[0]).reshape(3, 40, -1)
    mass = np.trapezoid(density, amounts, axis=-1).sum() + np.exp(evaluation.score(trained(), zeros)[0]).sum()
    assert mass == pytest.approx(1, abs=3e-3)


def test_draws_have_the_law():
    drawn, info = evaluation.sample(trained(), 8000, seed=0)
    truth = law(8000, 5)
    assert not info.status.any()
    assert set(np.unique(drawn[:, :2])) == {0, 1, 2}
    np.testing.assert_array_equal(drawn[:, 2], np.round(drawn[:, 2]))
    assert drawn[:, 2].min() == 0 and not drawn[drawn[:, 1] == 1, 3].any()
    error = np.sqrt(truth.var(0) * 2 / 8000)
    np.testing.assert_array_less(np.abs(drawn.mean(0) - truth.mean(0)), 4 * error + 0.03)
    for kind in range(3):
        few, true = drawn[drawn[:, 0] == kind], truth[truth[:, 0] == kind]
        assert abs(few[:, 1].mean() - true[:, 1].mean()) < 0.05
        assert abs(few[:, 2].mean() - true[:, 2].mean()) < 0.06 * RATE[kind] + 0.1


def test_codes_sum_to_one_and_each_sees_those_before_it():
    shares = [[0.5, 0.25, 0.25], [0.9, 0.1], [0.2, 0.3, 0.5]]
    codes = Codes(shares, width=8, key=jax.random.key(0))
    outer = [jax.random.normal(jax.random.key(j), part.shape) for j, part in enumerate(codes.outer)]
    codes = eqx.tree_at(lambda c: c.outer, codes, tuple(outer))
    rows = jnp.array(list(itertools.product(range(3), range(2), range(3))), float)
    prob = np.exp(codes.log_prob(rows)).reshape(3, 2, 3)
    assert prob.sum() == pytest.approx(1, abs=1e-5)
    # The first is independent of the others; the last is not.
    first = jax.nn.softmax(jnp.log(jnp.asarray(shares[0])) + codes._log_shares(0, jnp.zeros(8)) * 0)
    last = prob / prob.sum(-1, keepdims=True)
    assert np.ptp(last, axis=(0, 1)).min() > 1e-3 and first.shape == (3,)
    drawn = np.asarray(codes.sample(jax.random.key(1), (20_000,)), int)
    found = np.bincount(np.ravel_multi_index(tuple(drawn.T), (3, 2, 3)), minlength=18) / 20_000
    np.testing.assert_array_less(np.abs(found - prob.ravel()), 5 * np.sqrt(prob.ravel() / 20_000) + 1e-4)
    assert np.isneginf(codes.log_prob(jnp.array([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.0]]))).all()


@pytest.mark.parametrize("scale", [0.8, 5.0, 2e4])
def test_the_mass_of_a_cell_is_that_of_the_normal_where_nothing_is_learned(scale):
    """Cells wide and narrow beside the spread, far in both tails, where distances count as their logarithms.

    The lowest reaches to minus infinity.
    """
    expected, grid = Expected([10 * scale], [scale]), Grid([round(6 * scale)], [np.inf])
    cells = Cells(expected, grid, told=1, width=8, depth=1, key=jax.random.key(0))
    n = np.unique(np.round(np.linspace(6 * scale, 16 * scale, 41)))
    edges = 4 * np.arcsinh((n[:, None] + [-0.5, 0.5] - 10 * scale) / scale / 4)
    upper = edges[:, 0] > 0
    mass = np.where(
        upper, stats.norm.sf(edges[:, 0]) - stats.norm.sf(edges[:, 1]), np.diff(stats.norm.cdf(edges))[:, 0]
    )
    mass[0] = stats.norm.cdf(edges[0, 1])
    found = cells.log_prob(jnp.asarray(n, jnp.float32)[:, None], jnp.zeros(2))
    np.testing.assert_allclose(found, np.log(mass), atol=5e-3)
    assert np.isneginf(cells.log_prob(jnp.array([n[0] - 1]), jnp.zeros(2)))


COLUMNS = (
    Column("continuous", atoms=(0.0, 50.0), edges=(0.0, np.inf)),
    Column("code", levels=3),
    Column("whole", step=0.5, lowest=0.0, atoms=(99.0,)),
    Column("continuous", edges=(-1.0, 1.0)),
    Column("continuous"),
)


def odd_rows(num: int, seed: int = 0) -> np.ndarray:
    """Draw rows: an amount, zero or capped at times; a code; halves, at times a mark; a share; a number far off."""
    rng = np.random.default_rng(seed)
    amount, kind = rng.lognormal(1.0, 0.6, num), rng.choice(3, num, p=SHARES)
    amount = np.where(rng.random(num) < 0.3, 0.0, np.where(rng.random(num) < 0.1, 50.0, amount))
    halves = np.where(rng.random(num) < 0.2, 99.0, 0.5 * rng.poisson(3 + kind))
    return np.stack([amount, kind, halves, rng.uniform(-1, 1, num), 1e6 + 5 * rng.normal(size=num)], axis=1)


@pytest.mark.parametrize("preprocess", ["whiten", "gaussian_margins", "gaussian_radius"])
def test_a_frame_takes_columns_apart_and_puts_them_together(preprocess):
    rows = odd_rows(2000)
    frame, points = fit_mixed(preprocess, rows, np.ones(2000), COLUMNS)
    assert frame.levels == (3, 3, 2) and frame.switches == (2, 0, None, None) and points.shape == (2000, 7)
    np.testing.assert_allclose(frame.decode(points), rows, rtol=1e-9)
    np.testing.assert_array_equal(points[:, 0], np.select([rows[:, 0] == 0, rows[:, 0] == 50], [1, 2], 0))
    np.testing.assert_array_equal(points[:, 1], rows[:, 1])
    on = points[:, 0] == 0
    assert not points[~on, 4].any() and abs(points[on, 4].mean()) < 0.01 and abs(points[on, 4].std() - 1) < 0.05
    # Of a row on an atom the other columns' log-determinant is left.
    change = frame.encode(rows)[1]
    alone, _ = fit_mixed(preprocess, rows[:, 3:], np.ones(2000), COLUMNS[3:]) if preprocess == "whiten" else (None, 0)
    if alone is not None:
        both = np.stack([rows[:, 4], 2 * np.arctanh(rows[:, 3])])
        joint = -np.linalg.slogdet(np.cov(both, ddof=0))[1] / 2 + np.log(2 / (1 - rows[:, 3] ** 2))
        np.testing.assert_allclose(change[~on], joint[~on], atol=1e-9)


def test_log_determinants_are_those_of_finite_differences():
    rows = odd_rows(3000)
    frame, _ = fit_mixed("gaussian_margins", rows, np.ones(3000), COLUMNS)
    row = np.array([3.0, 1.0, 1.5, 0.3, 1e6 + 2.0])
    slopes = []
    for j, step in ((0, 1e-4), (3, 1e-4), (4, 1e-3)):
        up, down = row.copy(), row.copy()
        up[j], down[j] = row[j] + step, row[j] - step
        slopes.append((frame.encode(up)[0][4:] - frame.encode(down)[0][4:]) / (2 * step))
    assert frame.encode(row)[1] == pytest.approx(np.linalg.slogdet(slopes)[1], abs=1e-4)


def test_what_cannot_be_is_impossible():
    rows = odd_rows(500)
    frame, _ = fit_mixed("standardize", rows, np.ones(500), COLUMNS)
    wrong = np.repeat(rows[:1], 5, axis=0)
    wrong[:, 0], wrong[0, 0], wrong[1, 3], wrong[2, 2], wrong[3, 0] = 2.0, -1.0, 1.0, 0.3, 50.0
    assert np.isneginf(frame.encode(wrong)[1]).tolist() == [True, True, True, False, False]
    spec = MixedSpec.fit(FlowSpec(3, width=8, depth=1), frame, frame.encode(rows)[0], np.ones(len(rows)))
    density = Density(spec(jax.random.key(0)), frame)
    bad = np.array([[2.0, 3.0, 1.0, 0.0, 1e6], [2.0, 0.0, -0.5, 0.0, 1e6], [2.0, 0.0, 1.0, 0.0, 1e6]])
    assert np.isneginf(evaluation.score(density, bad)[0]).tolist() == [True, True, False]
    for ask in (evaluation.to_base, evaluation.gradient, lambda d, r: evaluation.paths(d, r, 3)):
        with pytest.raises(TypeError, match="Expected a flow, got Mixed, whose rows"):
            ask(density, rows)
    with pytest.raises(ValueError, match="Expected a code with levels, whole or continuous"):
        Column("code")


def test_a_table_has_one_log_probability_in_its_own_units():
    """What nothing has learned of yet is a product of shares, masses and densities: its integral is 1, in any unit."""
    rows = odd_rows(2000)
    units = rows * [1000.0, 1, 1, 1, 1]
    scaled = (dataclasses.replace(COLUMNS[0], atoms=(0.0, 50_000.0)), *COLUMNS[1:])
    found = []
    for table, columns in ((rows, COLUMNS), (units, scaled)):
        frame, points = fit_mixed("gaussian_margins", table, np.ones(2000), columns)
        spec = MixedSpec.fit(FlowSpec(3, width=8, depth=1), frame, points, np.ones(2000))
        found.append(Density(spec(jax.random.key(0)), frame))
    log_prob, in_units = (evaluation.score(d, t)[0] for d, t in zip(found, (rows, units), strict=True))
    on = np.isin(rows[:, 0], [0.0, 50.0])
    np.testing.assert_allclose((log_prob - in_units)[~on], np.log(1000), atol=1e-3)
    np.testing.assert_allclose((log_prob - in_units)[on], 0, atol=1e-3)
    # Over the first column alone, its atoms counted once, the others fixed: the probability of the others.
    amounts = np.geomspace(1e-3, 400, 4000)
    line = np.repeat([[1.0, 0.0, 1.5, 0.2, 1e6]], 4002, axis=0)
    line[:, 0] = [*amounts, 0.0, 50.0]
    prob = np.exp(evaluation.score(found[0], line)[0])
    whole = np.trapezoid(prob[:-2], amounts) + prob[-2:].sum()
    others = prob[-2] / ((rows[:, 0] == 0).mean())
    assert whole / others == pytest.approx(1, abs=2e-3)
    drawn, info = evaluation.sample(found[0], 2000, seed=0)
    assert not info.status.any() and drawn[:, 0].min() == 0 and np.abs(drawn[:, 3]).max() < 1
    np.testing.assert_allclose((drawn[:, 0] == 50).mean(), (rows[:, 0] == 50).mean(), atol=0.03)
    assert np.all(drawn[:, 2] % 0.5 == 0) and (drawn[:, 2] == 99).any()


RNG = np.random.default_rng(7)
NORMAL = RNG.normal(size=4000)
POSITIVE = {"edges": (0.0, np.inf)}
FOUND = {
    "normal": (NORMAL, Column("continuous")),
    "positive": (np.exp(NORMAL), Column("continuous", edges=(0.0, np.inf))),
    "finely rounded": (np.round(NORMAL, 3), Column("continuous")),
    "coarsely rounded": (np.round(NORMAL, 1), Column("whole", step=0.1)),
    "tiny": (1e-8 * NORMAL, Column("continuous")),
    "coarse, of half the digits": (np.round(NORMAL, 1).astype(np.float32), Column("whole", step=0.1)),
    "counts": (RNG.poisson(5, 4000), Column("whole", lowest=0.0)),
    "signed counts": (RNG.poisson(5, 4000) - 8, Column("whole")),
    "zeros among amounts": (
        np.where(NORMAL > 0, np.exp(NORMAL), 0),
        Column("continuous", atoms=(0.0,), **POSITIVE),
    ),
    "few zeros": (np.r_[0.0, np.exp(NORMAL)], Column("continuous", atoms=(0.0,), **POSITIVE)),
    "a cap": (np.minimum(NORMAL, 1.5), Column("continuous", atoms=(1.5,), edges=(-np.inf, 1.5))),
    "zeros among counts": (
        np.where(NORMAL > 0, 5 + RNG.poisson(30, 4000), 0),
        Column("whole", atoms=(0.0,), lowest=0.0),
    ),
    "zeros and ones": (1.0 * (NORMAL > 1.5), Column("whole", atoms=(0.0, 1.0), lowest=0.0)),
    "few rows": (NORMAL[:9], Column("continuous")),
}


@pytest.mark.parametrize("name", FOUND)
def test_columns_are_found_to_be_what_they_are(name):
    values, expected = FOUND[name]
    assert find_columns(np.asarray(values, float)[:, None]) == (expected,)


def test_columns_are_what_is_said_of_them():
    rows = np.stack([np.arange(500) % 3, np.arange(500)], axis=1).astype(float)
    assert find_columns(rows, codes={0: 3}, whole=[1]) == (Column("code", 3), Column("whole", lowest=0.0))
    assert find_columns(rows)[1] == Column("continuous", atoms=(0.0,), edges=(0.0, np.inf))


def test_a_mass_in_the_tails_keeps_its_digits():
    low, high = np.array([-9.0, 8.0, -0.1, -np.inf, 5.0]), np.array([-8.9, 8.2, 0.1, -7.0, 5.0001])
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    expected = np.log(stats.norm.cdf(b) - stats.norm.cdf(a))
    found = log_normal_mass(jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_a_masked_column_is_no_part_of_the_density():
    """A field of two columns, one of them held still, has the density of the other alone; nothing moves it."""
    inner = MLP((2,), width=8, depth=1, cond_shape=(2,), key=jax.random.key(0))
    inner = eqx.tree_at(lambda f: f.outer.weight, inner, 0.3 * jax.random.normal(jax.random.key(1), (2, 8)))
    flow = Transformed(MaskedNormal((2,), (2,)), CNF(Masked(inner), integrator=Integrator.adaptive(1e-6, 1e-6)))
    mask, axis = jnp.array([1.0, 0.0]), np.linspace(-8, 8, 400)
    rows = jnp.stack([jnp.asarray(axis), jnp.zeros(400)], axis=1)
    assert np.trapezoid(np.exp(flow.log_prob(rows, mask)), axis) == pytest.approx(1, abs=1e-3)
    drawn = flow.sample(jax.random.key(2), (50,), mask)
    assert not np.asarray(drawn[:, 1]).any() and np.asarray(drawn[:, 0]).all()
    with pytest.raises(ValueError, match="Expected a field of vectors whose conditions begin with a mask"):
        Masked(MLP((2,), key=jax.random.key(0)))


def test_a_whole_number_that_is_switched_off_is_no_part_of_the_probability():
    """Nor does what stands in its place change anything; it is drawn as 0."""
    keys = jax.random.split(jax.random.key(0), 3)
    codes = Codes([[0.6, 0.4]], width=8, key=keys[0])
    expected, grid = Expected([4.0, 2.0], [2.0, 1.0]), Grid([0.0, -np.inf], [np.inf, np.inf])
    cells = Cells(expected, grid, told=8, width=8, depth=1, key=keys[1])
    flow = Mixed(codes, cells, None, (0, None), width=8, key=keys[2])
    grid = jnp.array(list(itertools.product([0], range(14), range(-4, 9))), float)
    on, off = (
        np.exp(flow.log_prob(grid)).sum(),
        np.exp(flow.log_prob(grid.at[:, :2].set(jnp.array([1.0, 0.0]))[:13])).sum(),
    )
    np.testing.assert_allclose([on, off], [0.6, 0.4], atol=2e-3)
    row = jnp.array([1.0, 0.0, 3.0])
    assert flow.log_prob(row) == flow.log_prob(row.at[1].set(9.0))
    drawn = np.asarray(flow.sample(jax.random.key(1), (300,)))
    assert not drawn[drawn[:, 0] == 1, 1].any() and drawn[drawn[:, 0] == 0, 1].any()


def test_parts_that_do_not_fit_are_refused():
    grid = Grid([-np.inf], [np.inf])
    cells = Cells(Expected([0.0], [1.0]), grid, told=3, width=8, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"Expected conditions of shape \(5,\) and \(4,\), got \(4,\) and None; try"):
        Mixed(None, cells, None, width=4, key=jax.random.key(0))
    with pytest.raises(ValueError, match="Expected positive shares of one level or more"):
        Codes([[0.5, 0.0]], key=jax.random.key(0))


@pytest.mark.parametrize("unseen", [1.0, 0.3, 1e-5])
def test_cells_of_a_grid_follow_each_other_and_are_found_again(unseen):
    """Places are where the widths add up to, and every place in a cell leads back to its number."""
    seen = (3.0, 4.0, 9.0, 20.0)
    grid = Grid([-np.inf, 0.0], [np.inf, 50.0], [seen if unseen < 1 else (), ()], [unseen, 1.0])
    numbers = np.stack([np.arange(-5.0, 31.0), np.arange(36.0)], axis=1)
    places, widths = grid.places(numbers), grid.widths(numbers)
    np.testing.assert_allclose(np.diff(places, axis=0), (widths[1:] + widths[:-1]) / 2, atol=1e-12)
    is_seen = np.isin(numbers[:, 0], seen) | (numbers[:, 0] < 3) | (numbers[:, 0] > 20)
    np.testing.assert_array_equal(widths[:, 0], np.where(is_seen, 1.0, unseen))
    for share in (-0.49, 0.0, 0.49):
        np.testing.assert_array_equal(grid.numbers(places + share * widths), numbers)
        found = jax.vmap(grid.numbers)(jnp.asarray(places + 0 * widths, jnp.float32))
        np.testing.assert_array_equal(found, numbers)

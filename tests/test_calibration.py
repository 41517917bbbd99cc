"""Calibration: exact posteriors pass as often as is said, and each fault is seen where it is."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from liouville import ConditionalFlowDensity
from liouville.calibration import expected_coverage, local_c2st, sbc_ranks, uniformity


class Gaussian:
    """The posterior of means under a unit normal prior, each seen once with a unit normal error; or a wrong one."""

    def __init__(self, shift=0.0, width=1.0):
        self.shift, self.width = shift, width

    def law(self, X):
        # Completing the square: the posterior's mean is half of what was seen, its variance a half.
        wrong = lambda fault: fault(X) if callable(fault) else fault
        return stats.norm(X / 2 + wrong(self.shift), np.sqrt(0.5) * wrong(self.width))

    def sample(self, X, n_samples, random_state):
        return self.law(X).rvs((n_samples, *X.shape), random_state=random_state)

    def log_prob(self, X, y):
        return self.law(X).logpdf(y).sum(axis=1)


def simulated(num: int, seed: int, columns: int = 2):
    """Return what was seen, and the means."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(num, columns))
    return means + rng.normal(size=means.shape), means


TESTS = [sbc_ranks, expected_coverage]


@pytest.mark.parametrize("check", TESTS)
def test_the_exact_posterior_passes_as_often_as_is_said(check):
    found = [check(Gaussian(), *simulated(150, seed), num_draws=49, random_state=seed) for seed in range(40)]
    p_values = np.concatenate([one.p_values for one in found])
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert np.mean([one.passes for one in found]) > 0.93


@pytest.mark.parametrize("check", TESTS)
def test_faults_of_a_posterior_are_seen(check):
    X, y = simulated(600, 0)
    narrow, wide = (check(Gaussian(width=width), X, y) for width in (0.7, 1.5))
    assert not narrow.passes and not wide.passes
    if check is expected_coverage:
        # Too narrow a density has too little in its regions, too wide a one too much.
        assert np.all(narrow.shares[40:80] < narrow.low[40:80, None])
        assert np.all(wide.shares[40:80] > wide.high[40:80, None])
    of_one = check(Gaussian(shift=np.array([0.4, 0.0])), X, y)
    assert not of_one.passes
    if check is sbc_ranks:
        assert of_one.p_values[0] < 1e-3 < of_one.p_values[1] and of_one.names == ("y0", "y1")
        # Draws are too high, so truths are low among them.
        assert of_one.shares[50, 0] > of_one.high[50]


def test_coverage_is_the_closed_form_of_too_narrow_a_law():
    X, y = simulated(4000, 1, columns=1)
    found = expected_coverage(Gaussian(width=0.5), X, y, num_draws=400)
    truth = 2 * stats.norm.cdf(0.5 * stats.norm.ppf((1 + found.grid) / 2)) - 1
    np.testing.assert_allclose(found.shares[:, 0], truth, atol=4 * np.sqrt(0.25 / 4000) + 1 / 400)


def test_the_band_holds_all_levels_together():
    """By draws of its own, not those by which it was found; and it is the one that p-values go by."""
    rng = np.random.default_rng(0)
    band = uniformity(rng.uniform(size=250), level=0.9)
    inside = []
    for _ in range(3000):
        shares = np.searchsorted(np.sort(rng.uniform(size=250)), band.grid, side="right") / 250
        inside.append(np.all((shares >= band.low) & (shares <= band.high)))
    assert abs(np.mean(inside) - 0.9) < 4 * np.sqrt(0.09 / 3000) + 4 * np.sqrt(0.09 / 5000)
    for seed in range(40):
        one = uniformity(np.random.default_rng(seed).uniform(size=250), level=0.6)
        assert one.passes == bool(((one.shares[:, 0] >= one.low) & (one.shares[:, 0] <= one.high)).all())
    assert uniformity([0.5]).passes and uniformity([0.5]).grid.tolist() == [0.5]


def test_several_columns_pass_together_as_often_as_is_said():
    rng = np.random.default_rng(0)
    passes = [uniformity(rng.uniform(size=(60, 8)), level=0.8).passes for _ in range(100)]
    assert np.mean(passes) > 0.8 - 4 * np.sqrt(0.16 / 100)


def test_numbers_count_among_those_that_they_are_compared_with():
    """So that no p-value is 0: the least is one of 5000 draws and the numbers themselves."""
    assert uniformity(np.full(99, 0.5)).p_values.tolist() == [1 / 5001]


class Letters:
    """Each of three letters once, given any row."""

    def sample(self, X, n_samples, random_state):
        return np.broadcast_to(np.array(["a", "b", "c"], object)[:, None, None], (n_samples, len(X), 1))


def test_letters_of_truths_and_draws_are_in_one_order():
    """Truths have fewer of them: one that is last among three draws has two below it, and is equal to the third."""
    found = sbc_ranks(Letters(), np.zeros((50, 1)), pd.Series(["c"] * 50, name="letter"), num_draws=3)
    assert ((found.values >= 2 / 4) & (found.values <= 1)).all() and found.names == ("letter",)


class Mixed:
    """A category, a count and a truth value, of frames."""

    def __init__(self, rates):
        self.rates = rates

    def drawn(self, num, n, seed):
        rng = np.random.default_rng(seed)
        letters = rng.choice(["a", "b", "c"], (num, n), p=[0.2, 0.5, 0.3]).astype(object)
        return np.stack([letters, rng.poisson(self.rates, (num, n)), rng.random((num, n)) < 0.3], axis=2)

    def sample(self, X, n_samples, random_state):
        return self.drawn(n_samples, len(X), random_state)


def test_ties_of_counts_and_categories_are_any_rank():
    X = pd.DataFrame({"x": np.zeros(400)})
    p_values = []
    for seed in range(30):
        law = Mixed(1.0)
        y = pd.DataFrame(law.drawn(1, 400, 10_000 + seed)[0], columns=["letter", "count", "is"]).infer_objects()
        found = sbc_ranks(law, X, y, num_draws=30, random_state=seed)
        p_values.append(found.p_values)
    assert found.names == ("letter", "count", "is")
    assert np.all([stats.kstest(column, "uniform").pvalue > 1e-3 for column in np.transpose(p_values)])
    wrong = sbc_ranks(Mixed(1.4), X, y)
    assert not wrong.passes and wrong.p_values[1] < 0.001 < wrong.p_values[0]


def test_a_local_test_is_as_strict_as_it_says():
    p_values = []
    for seed in range(16):
        X, y = simulated(120, seed, columns=1)
        found = local_c2st(Gaussian(), X, y, [0.5], level=0.9, num_nulls=9, num_draws=100, random_state=seed)
        assert found.passes == (found.statistics[0] <= found.high[0]) and found.null.shape == (9, 1)
        # Of ten that are as good as each other a tenth is one.
        assert found.high[0] == found.null.max()
        p_values.append(found.p_values[0])
    assert np.isin(np.round(10 * np.array(p_values)), np.arange(1, 11)).all()
    # Of steps of a tenth the distribution function is never above that of a uniform number.
    assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > 1e-3
    assert np.mean(p_values) < 0.75


def test_a_local_test_sees_a_fault_where_it_is():
    X, y = simulated(2000, 0, columns=1)
    wrong = Gaussian(width=lambda X: np.where(X > 1, 0.5, 1.0))
    found = local_c2st(wrong, X, y, [[-1.0], [0.0], [2.0]], num_nulls=60)
    assert (found.p_values > 0.05).tolist() == [True, True, False] and not found.passes
    assert found.statistics[2] > found.high[2] and (found.statistics[:2] <= found.high[:2]).all()
    assert local_c2st(Gaussian(), X, y, [[-1.0], [0.0], [2.0]], num_nulls=60).passes


def test_what_cannot_be_tested_is_refused():
    X, y = simulated(20, 0)
    with pytest.raises(ValueError, match=r"Expected targets of shape \(20, 2\), .* got \(20, 1\)"):
        sbc_ranks(Gaussian(), X, y[:, 0])
    with pytest.raises(ValueError, match=r"Expected draws, got NaN"):
        sbc_ranks(Gaussian(shift=np.nan), X, y)
    with pytest.raises(ValueError, match="Expected 39 nulls or more, for a level of 0.95 at 2 observations, got 30"):
        local_c2st(Gaussian(), X, y, X[:2], num_nulls=30)
    with pytest.raises(ValueError, match="Expected a level above 0"):
        expected_coverage(Gaussian(), X, y, level=95)
    with pytest.raises(ValueError, match="Expected numbers between 0 and 1"):
        uniformity([0.5, np.nan])
    with pytest.raises(ValueError, match="Expected log-densities, got NaN"):
        nan = Gaussian()
        nan.log_prob = lambda X, y: np.full(len(X), np.nan)
        expected_coverage(nan, X, y)
    days = pd.DataFrame({"a": pd.date_range("2020-01-01", periods=20), "b": y[:, 1]})
    with pytest.raises(TypeError, match="try dates as numbers"):
        sbc_ranks(Gaussian(), X, days)


def test_a_fit_of_frames_is_tested_as_it_is():
    """Rows with a category, targets of text and numbers: what it returns is what is taken."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"kind": rng.choice(["a", "b"], 300), "size": rng.normal(size=300)})
    y = pd.DataFrame({"colour": rng.choice(["red", "blue"], 300), "price": rng.normal(size=300)})
    fast = {"max_iter": 20, "width": 8, "depth": 1, "preprocess": "standardize", "front": "none", "random_state": 0}
    density = ConditionalFlowDensity(**fast).fit(X, y)
    assert sbc_ranks(density, X, y, num_draws=9).values.shape == (300, 2)
    assert expected_coverage(density, X, y, num_draws=9).names == ("highest-density region",)
    assert local_c2st(density, X, y, X[:1], num_nulls=19, num_draws=20).statistics.shape == (1,)


def test_a_level_of_many_columns_is_told():
    """Zeros are no uniform numbers, in however many columns."""
    for columns, level in ((60, 0.99), (6, 0.999)):
        assert not uniformity(np.zeros((200, columns)), tuple(map(str, range(columns))), level=level).passes
    for level in (0.99999, 1.0, "a"):
        with pytest.raises(ValueError, match="Expected a level"):
            uniformity(np.zeros((20, 60)), level=level)


def test_truths_and_draws_that_are_missing_are_refused():
    class Density:
        def sample(self, X, n_samples, random_state):
            return np.where(X > 1, np.nan, X) + np.random.default_rng(0).normal(size=(n_samples, *X.shape))

    X, y = np.zeros((30, 1)), np.zeros(30)
    with pytest.raises(ValueError, match="Expected draws, got NaN"):
        local_c2st(Density(), X, y, [[2.0]], num_nulls=20)
    for check in (sbc_ranks, expected_coverage):
        with pytest.raises(ValueError, match="got one in row 7, column 'y'"):
            check(Density(), X, np.where(np.arange(30) == 7, np.nan, y))
        with pytest.raises(ValueError, match="got one in row 7, column 'y'"):
            check(Density(), X, np.where(np.arange(30) == 7, np.nan, y).astype(np.float32))

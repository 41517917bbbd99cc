"""Location and scale by trees, as plain arrays, by trees that have not seen the row."""

import numpy as np
import pytest
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor

from liouville import front
from liouville._conditions import Conditions
from liouville.front import Trees, fit_front, from_normal, to_normal
from liouville.mixed import Column


@pytest.fixture(autouse=True)
def one_set(monkeypatch):
    """Fit one set of trees: several, of few rows, take as many times as long."""
    monkeypatch.setattr(front, "_MOST_REPEATS", 1)


def law(num: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw rows with gaps, a number, and its mean and spread."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num, 4))
    rows[:, 3] = rng.integers(0, 3, num)
    mean, spread = np.sin(2 * rows[:, 0]) + rows[:, 3], 0.1 + 0.4 * (rows[:, 1] > 0)
    y = mean + spread * rng.normal(size=num)
    rows[rng.random(num) < 0.2, 2] = np.nan
    return rows, y, mean, spread


@pytest.mark.parametrize("gap", [False, True])
def test_trees_say_what_the_models_say_that_they_are_of(gap):
    rows, y, *_ = law(1500, 0)
    if gap:
        rows[np.random.default_rng(1).random(rows.shape) < 0.3] = np.nan
    models = [HistGradientBoostingRegressor(max_iter=20, random_state=k).fit(rows[k::2], y[k::2]) for k in range(2)]
    fresh = law(3000, 2)[0]
    # On edges, and where trees that have seen no gap have no side for one.
    fresh[:3] = [rows[0], np.full(4, np.nan), [1e9, -1e9, np.nan, 5.0]]
    expected = np.mean([model.predict(fresh) for model in models], axis=0)
    np.testing.assert_allclose(Trees.mean(models)(fresh), expected, rtol=1e-12, atol=1e-12)


def test_location_and_scale_are_found_and_distances_have_the_scale():
    rows, y, mean, spread = law(4000, 3)
    found = fit_front(rows, y, np.ones(4000))
    # In units of the scale distances have the tails that were found: their median is that of Student's t.
    assert found.front.tail > 8
    off = np.abs(y - found.location) / found.scale
    assert np.median(off) == pytest.approx(stats.t.ppf(0.75, found.front.tail), rel=0.05)
    fresh, z, true_mean, true_spread = law(2000, 4)
    location, scale = found.front(fresh)
    assert np.mean((location - true_mean) ** 2) < 0.1 * np.var(z - true_mean)
    assert np.corrcoef(np.log(scale), np.log(true_spread))[0, 1] > 0.9
    # Of rows that nothing was fitted to they are as far off as of those that were held out.
    assert abs(np.std((z - location) / scale) - 1) < 0.15


@pytest.mark.parametrize("tail", [1.5, 3.0, 100.0])
def test_tails_are_those_of_students_t(tail):
    """The map takes Student's t to a normal variable: by SciPy's distribution functions, and by differences."""
    u = np.array([-40.0, -3.0, -0.1, 0.0, 0.7, 12.0])
    z, log_slope = to_normal(u, np.asarray(tail))
    np.testing.assert_allclose(stats.norm.cdf(z), stats.t.cdf(u, tail), rtol=1e-9)
    np.testing.assert_allclose(from_normal(z, np.asarray(tail)), u, rtol=1e-8, atol=1e-12)
    slope = (to_normal(u + 1e-5, np.asarray(tail))[0] - to_normal(u - 1e-5, np.asarray(tail))[0]) / 2e-5
    np.testing.assert_allclose(log_slope, np.log(slope), atol=1e-5)


def test_heavy_tails_are_found():
    rows, y, mean, spread = law(3000, 8)
    heavy = mean + spread * np.random.default_rng(9).standard_t(3, 3000)
    assert 2 < fit_front(rows, heavy, np.ones(3000)).front.tail < 5


def test_copies_of_a_row_are_of_one_fold():
    """Of noise alone trees that have seen a copy of a row would know it by heart."""
    rng = np.random.default_rng(5)
    rows, y = rng.normal(size=(400, 3)), rng.normal(size=400)
    found = fit_front(np.tile(rows, (2, 1)), np.tile(y, 2), np.ones(800), copies=2)
    assert abs(np.corrcoef(found.location, np.tile(y, 2))[0, 1]) < 0.15


def test_no_row_is_described_by_trees_that_have_seen_it():
    """Trees know noise by heart: of noise alone they know nothing of the others'."""
    rng = np.random.default_rng(5)
    rows, y = rng.normal(size=(600, 3)), rng.normal(size=600)
    found = fit_front(rows, y, np.ones(600))
    assert abs(np.corrcoef(found.location, y)[0, 1]) < 0.15
    # Nor is it when a flow is told of the rows of the fit; of new ones it is told what all trees say.
    continuous = Column("continuous")
    conditions, told = Conditions.fit(rows, np.ones(600), (continuous,) * 3, (continuous,), True, found)
    assert abs(np.corrcoef(told.location, y)[0, 1]) < 0.15
    np.testing.assert_array_equal(conditions(rows).location, found.front(rows)[0])


def test_what_several_sets_of_trees_say_is_their_mean(monkeypatch):
    rows, y, mean, spread = law(300, 7)
    one = fit_front(rows, y, np.ones(300))
    monkeypatch.setattr(front, "_MOST_REPEATS", 3)
    three = fit_front(rows, y, np.ones(300))
    assert len(three.front.location.roots) > 2 * len(one.front.location.roots)
    for found in (one, three):
        assert np.mean((found.location - mean) ** 2) < 0.3 * np.var(mean)
        assert 0.5 < np.median(found.scale / spread) < 2


def test_weights_of_zero_leave_rows_out():
    rows, y, _, spread = law(1000, 6)
    weight = np.r_[np.ones(500), np.zeros(500)]
    wrong = np.where(weight > 0, y, 1e3)
    found = fit_front(rows, wrong, weight).front
    location, scale = found(rows)
    assert np.abs(location).max() < 10
    # Scale and tails are those of the others, too.
    assert found.tail > 2 and 0.5 < np.median(scale / spread) < 2


def test_a_number_that_does_not_vary_is_no_fault():
    found = fit_front(np.arange(30.0)[:, None], np.full(30, 2.0), np.ones(30))
    location, scale = found.front(np.array([[3.0], [np.nan]]))
    np.testing.assert_allclose(location, 2.0)
    assert np.isfinite(scale).all()


@pytest.mark.parametrize("unit", [1e-6, 1e6, 1e200])
def test_trees_know_no_unit(unit):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(400, 2))
    y = np.sin(2 * x[:, 0]) + 0.3 * rng.normal(size=400)
    one, other = (fit_front(x, scale * y, np.ones(400)) for scale in (1.0, unit))
    # Sums of rounded numbers may place a split elsewhere.
    np.testing.assert_allclose(other.location / unit, one.location, atol=0.02)
    np.testing.assert_allclose(other.scale / unit, one.scale, rtol=0.05)
    np.testing.assert_allclose(other.front(x)[0] / unit, one.front(x)[0], atol=0.02)
    np.testing.assert_allclose(other.front(x)[1] / unit, one.front(x)[1], rtol=0.05)


def test_what_is_far_out_has_a_density():
    with np.errstate(all="raise"):
        found = front.log_student(np.array([0.5, 1e200]), 3.0)
    np.testing.assert_allclose(found[0], stats.t(3.0).logpdf(0.5), rtol=1e-12)
    # The tail falls as the fourth power.
    expected = stats.t(3.0).logpdf(1e50) - 4 * np.log(1e150)
    np.testing.assert_allclose(found[1], expected, rtol=1e-12)

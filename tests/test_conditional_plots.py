"""Pictures of targets given rows: what is drawn is what the density, and calibration, say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from liouville import ConditionalFlowDensity, plots
from liouville._conditional_plots import _target_names
from liouville._targets import check_targets
from liouville.calibration import uniformity

TINY = {"max_iter": 20, "width": 8, "depth": 1, "preprocess": "standardize", "front": "none", "random_state": 0}
RNG = np.random.default_rng(0)
X = pd.DataFrame({"kind": RNG.choice(["a", "b"], 300), "count": RNG.poisson(4.0, 300), "size": RNG.normal(size=300)})
PRICE = pd.Series(X["size"] + (X["kind"] == "a") + RNG.normal(size=300), name="price")


@pytest.fixture(scope="module")
def density():
    return ConditionalFlowDensity(**TINY).fit(X, PRICE)


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("column", ["count", "size"])
def test_a_fan_has_the_quantiles_of_one_row(density, column):
    figure = plots.plot_fan(density, X, column, PRICE, row=3)
    (axes,) = figure.axes
    places, median = axes.lines[0].get_data()
    rows = X.iloc[[3] * len(places)].assign(**{column: places.astype(X[column].dtype)})
    np.testing.assert_allclose(median, density.predict_quantiles(rows, 0.5)[:, 0], rtol=1e-5, atol=1e-5)
    points, *bands = axes.collections
    for band, alpha in zip(bands, ([0.05, 0.95], [0.25, 0.75]), strict=True):
        drawn, (low, high) = band.get_datalim(axes.transData), density.predict_quantiles(rows, alpha).T
        np.testing.assert_allclose([drawn.y0, drawn.y1], [low.min(), high.max()], rtol=1e-4, atol=1e-5)
    # Each target stands over its own row: whole numbers are moved a little.
    x, y = points.get_offsets().T
    assert np.abs(x - X[column]).max() < (0.4 if column == "count" else 1e-9)
    np.testing.assert_array_equal(y, PRICE)
    assert (axes.get_xlabel(), axes.get_ylabel()) == (column, "price")
    assert texts(figure) == ["data", "90 %", "50 %", "median"]


def test_a_fan_over_a_category_has_bars(density):
    axes = plots.plot_fan(density, X, "kind").axes[0]
    rows = X.iloc[[0, 0]].assign(kind=["a", "b"])
    for bars, alpha in zip(axes.containers, ([0.05, 0.95], [0.25, 0.75]), strict=True):
        ends = [[bar.get_y(), bar.get_y() + bar.get_height()] for bar in bars]
        np.testing.assert_allclose(ends, density.predict_quantiles(rows, alpha), rtol=1e-5, atol=1e-5)
    medians = [line[:, 1] for line in axes.collections[0].get_segments()]
    np.testing.assert_allclose(medians, density.predict_quantiles(rows, [0.5, 0.5]), rtol=1e-5, atol=1e-5)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "b"]


def test_the_truth_is_marked_in_a_posterior_of_each_kind():
    y = pd.DataFrame({"letter": RNG.choice(["p", "q"], 300), "price": PRICE})
    several = ConditionalFlowDensity(**TINY).fit(X, y)
    figure = plots.plot_posterior(several, X[:1], pd.DataFrame({"letter": ["q"], "price": [7.0]}), num=50)
    assert len(figure.axes) == 4 and len(figure.axes[2].collections[0].get_offsets()) == 50
    x, y = (line.get_data() for line in figure.axes[2].lines)
    assert x[0] == [1, 1] and y[1] == [7, 7]
    # On the diagonal, too, where it is one line of the column's own.
    assert [figure.axes[panel].lines[-1].get_xdata() for panel in (0, 3)] == [[1, 1], [7, 7]]
    # The truth is seen, wherever draws are.
    assert figure.axes[2].get_ylim()[1] > 7 and texts(figure) == ["draws", "truth"]
    assert figure.axes[2].get_ylabel() == "price" and figure.axes[2].get_xlabel() == "letter"
    assert texts(plots.plot_posterior(several, X[:1], num=50)) == ["draws"]
    with pytest.raises(ValueError, match=r"Expected one row, .* got 2"):
        plots.plot_posterior(several, X[:2])


def test_bars_of_exact_numbers_are_in_the_band_as_often_as_is_said():
    rng, inside = np.random.default_rng(0), []
    for _ in range(200):
        axes = plots.plot_pit(rng.uniform(size=300), level=0.9).axes[0]
        heights = axes.patches[1].get_data().values
        low, high = axes.patches[0].get_y(), axes.patches[0].get_y() + axes.patches[0].get_height()
        inside.append(np.all((heights > low - 1e-9) & (heights < high + 1e-9)))
    # Bonferroni's bound and whole numbers are on the safe side.
    assert 0.87 < np.mean(inside) < 0.99
    ends, num = np.round(np.array([low, high]) * 300 / len(heights)), len(heights)
    outside = stats.binom.cdf(ends[0] - 1, 300, 1 / num) + stats.binom.sf(ends[1], 300, 1 / num)
    assert 0.1 / 4 < num * outside < 0.1
    with pytest.raises(ValueError, match="Expected numbers between 0 and 1"):
        plots.plot_pit([0.5, 1.5])


def test_curves_of_calibration_are_shares_minus_levels():
    found = uniformity(RNG.uniform(size=(200, 2)) ** 2, ("left", "right"))
    figure = plots.plot_calibration(found)
    lines = figure.axes[0].lines[1:]
    for line, shares in zip(lines, found.shares.T, strict=True):
        np.testing.assert_allclose(line.get_xydata()[1:-1], np.stack([found.grid, shares - found.grid], axis=1))
    assert texts(figure) == ["99 % band", "left", "right"]
    # A curve is in the band where its shares are between the band's ends.
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    for k, level in enumerate(found.grid):
        sides = band[np.isclose(band[:, 0], level), 1] + level
        np.testing.assert_allclose([sides.min(), sides.max()], [found.low[k], found.high[k]])


def test_targets_without_names_are_numbered():
    named = lambda y: _target_names(
        SimpleNamespace(target_columns_=check_targets(y, y, ConditionalFlowDensity(), {})[1])
    )
    two = RNG.normal(size=(50, 2))
    assert (named(two[:, 0]), named(two)) == (["y"], ["y0", "y1"])
    assert named(pd.DataFrame(two, columns=["left", "right"])) == ["left", "right"]


def test_what_cannot_be_drawn_is_refused(density):
    with pytest.raises(
        ValueError, match=r"Expected a column of .*, got 'prize'; try one of \['kind', 'count', 'size'\]"
    ):
        plots.plot_fan(density, X, "prize")
    with pytest.raises(ValueError, match=r"Expected the number of one of \d+ rows, got 10000; try 0"):
        plots.plot_fan(density, X, "size", row=10_000)


def test_a_band_of_no_level_is_refused():
    for level in (95, 0, "a"):
        with pytest.raises(ValueError, match="Expected a level"):
            plots.plot_pit([0.2, 0.5], level=level)

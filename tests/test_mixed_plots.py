"""Pictures of tables of several kinds of columns: heights are probabilities and densities, ticks names and dates."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import dates
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from typer.testing import CliRunner

from liouville import FlowDensity, plots
from liouville._axes import DATA, scale_of
from liouville.callbacks import DensityMovie, TensorBoardLog
from liouville.cli import app
from liouville.mixed import Columns

TINY = {"max_iter": 30, "width": 8, "depth": 1, "preprocess": "standardize", "random_state": 0}


def table(num: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "kind": rng.choice(["dog", "a rather long name of a cat", "cow"], num, p=[0.5, 0.3, 0.2]),
            "count": rng.poisson(9.0, num),
            "amount": rng.lognormal(size=num) * (rng.random(num) < 0.7),
            "letter": rng.choice(list("abcdefghijklmnopqrstuvwxyz"), num),
            "day": pd.Timestamp("2020-01-31") + pd.to_timedelta(rng.integers(0, 900, num), unit="D"),
            "size": rng.normal(size=num),
        }
    )


TABLE = table()


def drawn(name: str, with_data: bool = True):
    """Return a fit of one column, and its figure."""
    column = TABLE[[name]]
    density = FlowDensity(**TINY).fit(column)
    return density, plots.plot_density(density, column if with_data else None)


def ticks(axis) -> list[str]:
    return [label.get_text().replace("\n", " ") for label in axis.get_ticklabels()]


def heights(container) -> np.ndarray:
    return np.array([bar.get_height() for bar in container])


def test_bars_of_levels_are_their_probabilities():
    density, figure = drawn("kind")
    (axes,) = figure.axes
    shares, masses = map(heights, axes.containers)
    levels = pd.DataFrame({"kind": list(density.columns_.fields[0].levels)})
    np.testing.assert_allclose(masses, np.exp(density.score_samples(levels)), rtol=1e-6)
    np.testing.assert_allclose(shares, TABLE["kind"].value_counts(normalize=True).sort_index())
    np.testing.assert_allclose([shares.sum(), masses.sum()], 1, rtol=1e-5)
    assert ticks(axes.xaxis) == list(levels["kind"]) and axes.get_ylabel() == "probability"


def test_of_many_levels_the_most_frequent_are_drawn():
    _, figure = drawn("letter", with_data=False)
    assert len(figure.axes[0].containers[1]) == 20
    assert figure.axes[0].get_xlabel() == "letter (20 most frequent of 26 levels)"


def test_whole_numbers_have_bars_beside_their_probabilities():
    density, figure = drawn("count")
    (axes,) = figure.axes
    numbers, masses = axes.lines[0].get_data()
    shares = heights(axes.containers[0])
    np.testing.assert_allclose(masses, np.exp(density.score_samples(pd.DataFrame({"count": numbers.astype(int)}))))
    np.testing.assert_allclose(shares, [np.mean(TABLE["count"] == number) for number in numbers])
    assert 0.99 < shares.sum() <= 1 and 0.95 < masses.sum() < 1.001


def test_dates_are_a_line_of_probabilities_over_dates():
    density, figure = drawn("day")
    (axes,) = figure.axes
    days, masses = axes.lines[0].get_data()
    cells = pd.DataFrame({"day": pd.to_datetime([day.date() for day in dates.num2date(days)])})
    np.testing.assert_allclose(masses, np.exp(density.score_samples(cells)))
    (bars,) = axes.patches
    # A histogram of shares per day: days in a bin times heights are all rows that are shown.
    assert 0.99 < np.sum(bars.get_data().values * np.diff(bars.get_data().edges)) <= 1
    figure.draw_without_rendering()
    assert "2021" in ticks(axes.xaxis) and axes.get_ylabel() == "probability of each date"


def test_atoms_are_stems_and_the_rest_a_density():
    density, figure = drawn("amount")
    left, right = figure.axes
    mass = np.exp(density.score_samples(pd.DataFrame({"amount": [0.0]})))
    share, model = (float(line.get_ydata()[0]) for line in right.lines)
    np.testing.assert_allclose([share, model], [np.mean(TABLE["amount"] == 0), mass[0]], rtol=1e-6)
    np.testing.assert_allclose(np.trapezoid(*left.lines[0].get_data()[::-1]), 1 - model, rtol=0.02)
    (bars,) = left.patches
    in_bars = np.sum(bars.get_data().values * np.diff(bars.get_data().edges))
    np.testing.assert_allclose(in_bars, 1 - share, atol=0.01)
    assert bars.get_data().edges[0] == 0
    assert (left.get_ylabel(), right.get_ylabel()) == ("density", "probability")


def test_a_lowest_number_that_has_much_does_not_make_the_rest_flat():
    """A model has on 0 all that would lie below."""
    counts = pd.DataFrame({"n": np.random.default_rng(0).geometric(0.004, 400) - 1})
    density = FlowDensity(**TINY).fit(counts)
    left, right = plots.plot_density(density, counts).axes
    np.testing.assert_allclose(right.lines[1].get_ydata(), np.exp(density.score_samples(pd.DataFrame({"n": [0]}))))
    assert 0 not in left.lines[0].get_xdata()


@pytest.fixture(scope="module")
def several():
    return FlowDensity(**TINY).fit(TABLE)


def test_a_corner_of_all_kinds(several):
    figure = plots.plot_corner(several, TABLE)
    figure.draw_without_rendering()
    assert len(figure.axes) == 36
    panel = lambda i, j: figure.axes[6 * i + j]
    assert ticks(panel(5, 0).xaxis) == ["a rather lo…", "cow", "dog"]
    letters = TABLE["letter"].value_counts().sort_index().nlargest(7)
    assert ticks(panel(3, 0).yaxis) == [*sorted(letters.index), "other"]
    for i in (0, 1, 3):
        assert all(abs(heights(bars).sum() - 1) < 0.01 for bars in panel(i, i).containers)
    (blue, _) = panel(2, 2).lines
    assert blue.get_ydata()[1] == np.mean(TABLE["amount"] == 0) and blue.get_transform() != panel(2, 2).transData
    assert panel(2, 2).texts[0].get_text() == f"{100 * blue.get_ydata()[1]:.0f} %"
    assert "2021" in ticks(panel(4, 0).yaxis)
    # Codes are moved by up to 0.3 of a step, what is continuous is not.
    x, y = panel(5, 0).collections[0].get_offsets().T
    moved = np.abs(x - np.round(x)).max()
    assert 0.25 < moved <= 0.3 and set(TABLE["size"]) <= set(np.asarray(y))
    # Data are blue, samples are not; on the diagonal a column's histogram is its own.
    is_blue = (panel(5, 0).collections[0].get_facecolors()[:, :3] == to_rgb(DATA)).all(axis=1)
    assert set(TABLE["size"]) == set(np.asarray(y)[is_blue])
    bars = panel(5, 5).patches[0].get_xy()
    edges = np.unique(bars[:, 0])
    of_column = np.histogram(TABLE["size"], edges, density=True)[0]
    np.testing.assert_allclose(bars[1:-1:2, 1], of_column, rtol=1e-6)


def test_a_level_that_was_not_there_is_among_the_others(several):
    other = TABLE.assign(kind=["horse", *TABLE["kind"][1:]])
    with pytest.warns(UserWarning, match="Expected levels that the fit has seen"):
        figure = plots.plot_corner(several, other, ["kind", "size"])
    np.testing.assert_allclose(heights(figure.axes[0].containers[0])[-1], 1 / len(other))
    assert ticks(figure.axes[2].xaxis)[-1] == "other"


def test_what_needs_densities_is_refused(tmp_path):
    two = TABLE[["kind", "size"]]
    density = FlowDensity(**TINY).fit(two)
    with pytest.raises(ValueError, match=r"Expected one column, or two that are continuous, got 'kind' .* corner plot"):
        plots.plot_density(density, two)
    for draw in (plots.plot_trajectories, plots.plot_field):
        with pytest.raises(AttributeError, match=r"Expected continuous columns alone, got others \('kind'\)"):
            draw(density)
    refused = r"Expected two continuous columns, got levels, whole numbers or values that many rows share"
    limits = ((0.0, 2.0), (-3.0, 3.0))
    for callback in (DensityMovie(tmp_path / "a.gif", limits), TensorBoardLog(tmp_path / "runs", picture_seconds=0)):
        with pytest.raises(ValueError, match=refused):
            FlowDensity(**TINY).fit(two, callback=callback)


def test_the_command_line_draws_two_columns_as_a_corner(tmp_path):
    two, model = TABLE[["kind", "size"]], tmp_path / "model.safetensors"
    FlowDensity(**TINY).fit(two).save(model)
    two.to_csv(tmp_path / "two.csv", index=False)
    run = lambda *args: CliRunner().invoke(app, ["plot", str(model), "-o", str(tmp_path / "a.png"), *args])
    assert "corner of" in run("--data", str(tmp_path / "two.csv")).stderr
    assert (tmp_path / "a.png").stat().st_size > 3000
    result = run("--kind", "field")
    assert result.exit_code == 2 and "--kind density or corner" in " ".join(result.stderr.split())


def test_places_of_a_grid_and_names_of_alike_levels():
    values = np.arange(5) * 0.1
    (field,) = Columns(pd.DataFrame({"x": np.tile(values, 60)}), {"x": ("grid", 0.1)}).fields
    scale = scale_of(field, np.tile(values, 60), 8)
    moved = np.abs(scale.scattered(values, np.random.default_rng(0)) - values)
    assert 0.01 < moved.max() <= 0.03
    (field,) = Columns(pd.DataFrame({"x": [f"number of town {i}" for i in (1, 2, 2, 2, 1, 1)]})).fields
    axes = Figure().subplots()
    scale_of(field, np.array([0.0, 1.0]), 8).write(axes.xaxis, 3, is_small=True)
    assert ticks(axes.xaxis) == ["num…f town 1", "num…f town 2"]

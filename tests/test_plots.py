"""Pictures: each is drawn, written whole, and shows the numbers of the density."""

import numpy as np
import pytest

from liouville import FlowDensity, evaluation, plots
from liouville._axes import wrapped

FAST = {"max_iter": 20, "width": 8, "depth": 1, "preprocess": "standardize", "random_state": 0}


def fitted(columns: int) -> tuple[FlowDensity, np.ndarray]:
    rows = np.random.default_rng(0).normal(size=(200, columns)) * np.arange(1, columns + 1)
    return FlowDensity(**FAST).fit(rows), rows


@pytest.fixture(scope="module")
def line():
    return fitted(1)


@pytest.fixture(scope="module")
def plane():
    return fitted(2)


def test_a_curve_is_the_density(line):
    density, rows = line
    axes = plots.plot_density(density, rows).axes[0]
    x, y = axes.lines[0].get_data()
    np.testing.assert_allclose(y, np.exp(density.score_samples(x[:, None])), rtol=1e-5)
    assert 0.9 < np.trapezoid(y, x) <= 1.01


def test_a_map_shows_log_densities(plane):
    density, rows = plane
    figure = plots.plot_density(density, rows, num=20)
    (image,) = [image for axes in figure.axes for image in axes.images]
    values = image.get_array()
    assert values.shape == (20, 20)
    assert values.max() <= density.score_samples([[0.0, 0.0]])[0] + 0.2


@pytest.mark.slow
def test_corner_has_a_panel_for_each_pair():
    density, rows = fitted(3)
    figure = plots.plot_corner(density, rows)
    assert len(figure.axes) == 9
    assert sum(axes.axison for axes in figure.axes) == 6
    with pytest.raises(ValueError, match="Expected 1 to 8 columns among"):
        plots.plot_corner(density, rows, ["x9"])
    with pytest.raises(ValueError, match="Expected one or two columns, got 3"):
        plots.plot_density(density, rows)


def test_the_legend_of_one_column_is_beside_its_panel(line):
    figure = plots.plot_corner(*line)
    figure.draw_without_rendering()
    legend, panel = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert not legend.overlaps(panel)


def test_long_names_are_broken():
    lines = wrapped("a_rather_long_name_of_a_column").split("\n")
    assert len(lines) > 1 and max(map(len, lines)) <= 16


@pytest.mark.parametrize("which", ["line", "plane"])
def test_trajectories_end_at_the_samples(which, request):
    density, _ = request.getfixturevalue(which)
    axes = plots.plot_trajectories(density, num=10, num_times=5).axes[0]
    ends = axes.collections[-1].get_offsets()
    samples = density.sample(10, random_state=0)
    np.testing.assert_allclose(ends[:, -1], samples[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_training_is_drawn_and_written(plane, tmp_path, suffix):
    path = tmp_path / f"training.{suffix}"
    plots.save(plots.plot_training(plane[0].history_), path)
    assert path.stat().st_size > 3000


def test_other_formats_are_refused(plane, tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.pdf or \.svg"):
        plots.save(plots.plot_training(plane[0].history_), tmp_path / "training.txt")
    assert not list(tmp_path.iterdir())


def test_a_field_is_drawn_in_the_units_of_the_table(plane, line):
    density, _ = plane
    rows, step = density.sample(5, random_state=1), 1e-3
    # Along a path the difference of two times is the velocity between them.
    paths = density.trajectory(rows, num_times=1001)
    found = evaluation.velocity(density.flow_, paths[500], 0.5)
    np.testing.assert_allclose(found, (paths[501] - paths[499]) / (2 * step), rtol=0.02, atol=2e-3)
    for fitted_, time in ((density, 0.25), (line[0], 0.5)):
        figure = plots.plot_field(fitted_, time, num=12)
        (image,) = figure.axes[0].images
        assert image.get_array().shape == (12, 12) and np.all(np.isfinite(image.get_array()))
    assert figure.axes[0].get_xlabel() == "time t" and figure.axes[0].get_xlim() == (0, 1)


def test_a_field_that_is_not_there_is_refused(plane):
    with pytest.raises(ValueError, match=r"Expected a time from 0 \(base\) to 1 \(data\), got 1.5; try time=0.5"):
        plots.plot_field(plane[0], 1.5)
    with pytest.raises(ValueError, match="Expected one or two columns, got 3; try plot_trajectories"):
        plots.plot_field(fitted(3)[0])

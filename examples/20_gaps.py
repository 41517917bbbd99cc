"""A table with gaps: what was missing, drawn beside the truth, and two columns given the others."""

import numpy as np
from example import Example
from matplotlib.figure import Figure
from scipy import stats

from liouville import FlowDensity

NAMES = ("rain", "wind", "heat", "dust")
WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[0.0, 0.0, 0.0, 0.0], [2.5, -1.5, 1.0, -2.0], [-2.0, 1.0, 2.5, 2.0]])
COVARIANCES = [
    np.eye(4) + 0.6 * np.outer(side, side) for side in np.array([[1, 1, 0, 0], [1, -1, 1, 0], [0, 1, -1, 1]])
]
BLUE, RED, GREY = "#0072B2", "#D55E00", "0.45"
# Two columns are asked for, the other two are given.
ASKED, GIVEN = [2, 3], [0, 1]


def law(num: int, seed: int) -> np.ndarray:
    """Draw rows of a mixture of three Gaussians."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, num, p=WEIGHTS)
    return np.stack([rng.multivariate_normal(MEANS[k], COVARIANCES[k]) for k in kind])


def log_prob(rows: np.ndarray, columns: list[int]) -> np.ndarray:
    """Return the law's log-density of some columns."""
    parts = [
        np.log(w) + stats.multivariate_normal(m[columns], c[np.ix_(columns, columns)]).logpdf(rows[:, columns])
        for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
    ]
    return np.logaddexp.reduce(parts)


def with_gaps(rows: np.ndarray, seed: int) -> np.ndarray:
    """Remove cells: the more rain, the oftener the other instruments fail."""
    chance = np.where(rows[:, :1] > 0, 0.6, 0.1)
    is_gap = np.random.default_rng(seed).random(rows.shape) < chance
    is_gap[:, 0] = False
    return np.where(is_gap, np.nan, rows)


def draw_columns(truth: np.ndarray, holes: np.ndarray, full: np.ndarray) -> Figure:
    """Draw each column: as it was before cells were removed, what is left, and with the gaps drawn."""
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    looks = [("before cells were removed", truth, GREY), ("what is left", holes, BLUE), ("gaps drawn", full, RED)]
    for j, axes in enumerate(figure.subplots(1, 3)):
        place = j + 1
        ends = np.quantile(truth[:, place], [0.002, 0.998])
        for name, rows, colour in looks:
            values = rows[:, place][~np.isnan(rows[:, place])]
            axes.hist(values, 40, range=ends, density=True, histtype="step", color=colour, lw=1.5, label=name)
        axes.set(xlabel=NAMES[place], yticks=[])
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def draw_pairs(density: FlowDensity, rows: np.ndarray, num: int) -> Figure:
    """Draw two columns given the others, of a few rows, over the lines of equal density of the law."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    line = np.linspace(-6, 7, 90)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    for axes, row in zip(figure.subplots(1, len(rows), sharex=True, sharey=True), rows, strict=True):
        given = np.full((num, 4), np.nan)
        given[:, GIVEN] = row[GIVEN]
        drawn = density.sample(given=given, random_state=0)
        axes.scatter(*drawn[:, ASKED].T, s=4, color=RED, alpha=0.5, linewidths=0, label="draws", rasterized=True)
        points = np.tile(row, (len(grid), 1))
        points[:, ASKED] = grid
        prob = np.exp(log_prob(points, [0, 1, 2, 3]) - log_prob(points, GIVEN)).reshape(90, 90)
        axes.contour(line, line, prob, levels=prob.max() * np.array([0.03, 0.2, 0.6]), colors=GREY, linewidths=1)
        said = ", ".join(f"{NAMES[j]} {row[j]:.1f}" for j in GIVEN)
        axes.set(title=f"given {said}", xlabel=NAMES[ASKED[0]])
    figure.axes[0].set_ylabel(NAMES[ASKED[1]])
    return figure


def main() -> None:
    """Run the example."""
    example = Example("20_gaps", "Gaps, and some columns given others", "no paper: a table as people have them")
    train, test = law(example.size(8000, 300), 0), law(example.size(2000, 100), 1)
    holes = with_gaps(train, 2)
    density = FlowDensity(missing="ignore", max_iter=example.size(None, 20), random_state=0).fit(holes)
    example.figure("cells missing", f"{np.isnan(holes).mean():.0%}")
    full = density.impute(holes, random_state=0)
    for j in (1, 2, 3):
        means = [f"{np.nanmean(rows[:, j]):.2f}" for rows in (train, holes, full)]
        example.figure(f"mean of {NAMES[j]}: truth, what is left, gaps drawn", ", ".join(means))
    gaps = with_gaps(test, 3)
    draws = density.impute(gaps, num_draws=example.size(100, 10), random_state=0)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    is_gap = np.isnan(gaps)
    example.figure(
        "90 % intervals that hold what was removed", f"{((test >= low) & (test <= high))[is_gap].mean():.1%}"
    )
    for asked, given in (([0, 1, 2, 3], []), (ASKED, GIVEN), (ASKED, []), ([1], [0, 2, 3])):
        truth = log_prob(test, asked + given) - (log_prob(test, given) if given else 0)
        gap = truth - density.log_prob(test, target=asked, given=given)
        name = " and ".join(NAMES[j] for j in asked) + (
            f" given {' and '.join(NAMES[j] for j in given)}" if given else ""
        )
        example.figure(f"nats above the truth, {name}", f"{gap.mean():.3f} +- {gap.std() / len(gap) ** 0.5:.3f}")
    example.picture(draw_columns(train, holes, full), "columns")
    example.picture(draw_pairs(density, test[:3], example.size(600, 60)), "pairs")
    example.end()


if __name__ == "__main__":
    main()

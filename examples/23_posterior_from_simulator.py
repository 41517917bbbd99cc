"""A posterior from simulations alone: two moons, whose truth is two crescents, and tests of how exact it is."""

import numpy as np
from example import Example

from liouville import ConditionalFlowDensity, plots
from liouville.calibration import expected_coverage, local_c2st, sbc_ranks

SEEN = np.zeros((1, 2))
MEAN, SPREAD, OFFSET = 0.1, 0.01, 0.25


def simulate(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw parameters from the prior, uniform on a square, and what is seen of each."""
    rng = np.random.default_rng(seed)
    parameters = rng.uniform(-1, 1, size=(num, 2))
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, num), MEAN + SPREAD * rng.normal(size=num)
    crescent = np.stack([radius * np.cos(angle) + OFFSET, radius * np.sin(angle)], axis=1)
    return crescent + shift(parameters), parameters


def shift(parameters: np.ndarray) -> np.ndarray:
    """Return where parameters move the crescent."""
    total, difference = parameters.sum(axis=1), parameters[:, 1] - parameters[:, 0]
    return np.stack([-np.abs(total), difference], axis=1) / np.sqrt(2)


def true_posterior(seen: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Draw parameters given what is seen: the simulator is solved for them, draws outside of the prior are left out."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, 2 * num), MEAN + SPREAD * rng.normal(size=2 * num)
    total = np.sqrt(2) * (radius * np.cos(angle) + OFFSET - seen[0]) * rng.choice([-1, 1], 2 * num)
    difference = np.sqrt(2) * (seen[1] - radius * np.sin(angle))
    found = np.stack([total - difference, total + difference], axis=1) / 2
    return found[(np.abs(found) <= 1).all(axis=1)][:num]


def say(example: Example, name: str, found) -> None:
    """Print whether a test is passed, and its p-values."""
    said = ", ".join(f"{p:.3f}" for p in found.p_values)
    example.figure(name, f"{'passes' if found.passes else 'fails'} at {found.level:.0%}, p-values {said}")


def main() -> None:
    """Run the example."""
    paper = "Greenberg, Nonnenmacher, Macke: Automatic posterior transformation, 2019; Lueckmann and others, 2021"
    example = Example("23_posterior_from_simulator", "A posterior from simulations: two moons", paper)
    X, y = simulate(example.size(10_000, 300), 0)
    new, truth = simulate(example.size(1000, 60), 1)
    prior = {0: ("bounded", -1, 1), 1: ("bounded", -1, 1)}
    small = {"max_iter": 20, "width": 8, "depth": 1} if example.fast else {}
    density = ConditionalFlowDensity(target_columns=prior, random_state=0, **small).fit(X, y)
    example.figure("steps", str(density.n_iter_))
    example.figure("NLL of 1000 new simulations", -density.score(new, truth))
    drawn, exact = density.sample(SEEN, 2000, random_state=0)[:, 0], true_posterior(SEEN[0], 2000, 0)
    example.figure("draws within the prior", f"{(np.abs(drawn) <= 1).all(axis=1).mean():.1%}")
    upper = [f"{(points.sum(axis=1) > 0).mean():.3f}" for points in (drawn, exact)]
    example.figure("share of the upper crescent: draws, truth", ", ".join(upper))
    spreads = [f"{np.std(np.abs(points.sum(axis=1))):.4f}" for points in (drawn, exact)]
    example.figure("spread of |sum of parameters|: draws, truth", ", ".join(spreads))
    ranks = sbc_ranks(density, new, truth, num_draws=example.size(100, 9))
    say(example, "simulation-based calibration", ranks)
    some = slice(example.size(300, 20))
    coverage = expected_coverage(density, new[some], truth[some], num_draws=example.size(50, 5))
    say(example, "expected coverage", coverage)
    local = local_c2st(density, new, truth, SEEN, num_nulls=example.size(60, 19), num_draws=example.size(1000, 50))
    say(example, "local two-sample test at what is seen", local)
    example.picture(plots.plot_posterior(density, new[:1], truth[:1]), "posterior")
    example.picture(plots.plot_calibration(ranks), "ranks")
    example.picture(plots.plot_calibration(coverage), "coverage")
    example.end()


if __name__ == "__main__":
    main()

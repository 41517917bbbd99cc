"""A regression with intervals: a flow beside a linear Gaussian and boosted quantiles."""

import numpy as np
from example import Example
from scipy import stats
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits

from liouville import ConditionalFlowDensity, plots
from liouville.calibration import uniformity
from liouville.metrics import likelihood

COVERAGE, QUANTILES = 0.9, np.linspace(0.05, 0.95, 19)


def split(seed: int = 0):
    """Return rows and targets to learn from, and others: scikit-learn's table of diabetes patients, in random order."""
    table = load_diabetes(as_frame=True, scaled=False)
    order = np.random.default_rng(seed).permutation(len(table.data))
    rows, progress = table.data.rename(columns={"bmi": "body mass index"}), table.target.rename("progress in a year")
    return (*((rows.iloc[part], progress.iloc[part]) for part in np.split(order, [342])),)


def pinball(y: np.ndarray, quantiles: np.ndarray) -> float:
    """Return twice the mean pinball loss over the levels, of which the CRPS is the integral."""
    below = y[:, None] - quantiles
    return float(2 * np.mean(np.maximum(QUANTILES * below, (QUANTILES - 1) * below)))


def boosted(X, y, new, num: int) -> np.ndarray:
    """Return quantiles by one model of trees for each, put in order."""
    make = lambda q: HistGradientBoostingRegressor(loss="quantile", quantile=q, max_iter=num, max_leaf_nodes=4)
    # The table is small: threads would wait for each other.
    with threadpool_limits(1):
        return np.sort(np.stack([make(q).fit(X, y).predict(new) for q in QUANTILES], axis=1), axis=1)


def report(example: Example, name: str, y: np.ndarray, quantiles: np.ndarray, log_prob: np.ndarray | None) -> None:
    """Print how sharp and how honest quantiles are; what has no density has no NLL."""
    if log_prob is not None:
        found = likelihood(name, log_prob)
        example.figure(f"{name}: NLL", f"{found.nll:.3f} ({found.std_error:.3f}) nats")
    example.figure(f"{name}: pinball loss, twice the mean", pinball(y, quantiles), 2)
    inside = (y >= quantiles[:, 0]) & (y <= quantiles[:, -1])
    width = np.mean(quantiles[:, -1] - quantiles[:, 0])
    example.figure(f"{name}: {COVERAGE:.0%} intervals hold, mean width", f"{inside.mean():.1%}, {width:.1f}")


def main() -> None:
    """Run the example."""
    example = Example("22_regression_with_intervals", "A regression with intervals", "no paper: p(y | x) of a table")
    (X, y), (new, truth) = split()
    truths = truth.to_numpy()
    density = ConditionalFlowDensity(max_iter=example.size(None, 20), random_state=0).fit(X, y)
    example.figure("front", density.facts_["front"])
    report(example, "flow", truths, density.predict_quantiles(new, QUANTILES), density.log_prob(new, truth))
    example.figure("flow: CRPS", float(density.crps(new, truth).mean()), 2)
    line = LinearRegression().fit(X, y)
    spread = np.sqrt(np.sum((y - line.predict(X)) ** 2) / (len(X) - X.shape[1] - 1))
    law = stats.norm(line.predict(new)[:, None], spread)
    report(example, "linear Gaussian", truths, law.ppf(QUANTILES), law.logpdf(truths[:, None])[:, 0])
    z = (truths - law.mean()[:, 0]) / spread
    closed = spread * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    example.figure("linear Gaussian: CRPS", float(closed.mean()), 2)
    report(example, "boosted quantiles", truths, boosted(X, y, new, example.size(100, 5)), None)
    pit = density.cdf(new, truth)
    kolmogorov = stats.kstest(pit, "uniform").pvalue
    uniform = {"known_params": {"loc": 0, "scale": 1}, "statistic": "ad", "n_mc_samples": 999}
    anderson = stats.goodness_of_fit(stats.uniform, pit, **uniform).pvalue
    example.figure("flow: p-values of PIT, Kolmogorov, Anderson", f"{kolmogorov:.2f}, {anderson:.2f}")
    example.figure("flow: PIT within its 99 % band", "yes" if uniformity(pit).passes else "no")
    example.picture(plots.plot_fan(density, new, "body mass index", truth), "fan")
    example.picture(plots.plot_pit(pit), "pit")
    example.end()


if __name__ == "__main__":
    main()

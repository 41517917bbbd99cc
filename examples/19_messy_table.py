"""One messy table, from a CSV file to a density: levels, counts, dates, sums, zeros, caps and rounded amounts."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from example import Example
from matplotlib.figure import Figure
from scipy import stats

from liouville import FlowDensity, plots
from liouville.data import read_table

SHOPS, SHARES = np.array(["Harbour", "Market", "Station"]), np.array([0.5, 0.3, 0.2])
# Of each shop: how often a customer is a member, adults and children in a group, and how many pay nothing.
MEMBERS, ADULTS, CHILDREN, FREE = (0.2, 0.5, 0.35), (1.5, 3.0, 6.0), (0.5, 2.0, 1.0), (0.4, 0.1, 0.0)
DAYS, FIRST, CAP = 120, pd.Timestamp("2025-03-01"), 30.0


def orders(num: int, seed: int) -> pd.DataFrame:
    """Draw rows of a known law."""
    rng = np.random.default_rng(seed)
    shop = rng.choice(3, num, p=SHARES)
    adults, children = rng.poisson(np.take(ADULTS, shop)), rng.poisson(np.take(CHILDREN, shop))
    paid = np.exp(2 + 0.1 * (adults + children) + 0.5 * rng.normal(size=num))
    paid = np.where(rng.random(num) < np.take(FREE, shop), 0.0, np.minimum(paid, CAP))
    return pd.DataFrame(
        {
            "day": (FIRST + pd.to_timedelta(rng.integers(0, DAYS, num), "D")).strftime("%Y-%m-%d"),
            "shop": SHOPS[shop],
            "member": rng.random(num) < np.take(MEMBERS, shop),
            "adults": adults,
            "children": children,
            "guests": adults + children,
            "paid": paid,
        }
    )


def true_log_prob(frame: pd.DataFrame) -> np.ndarray:
    """Return the law's own log-probabilities: masses but for amounts between 0 and the cap, which have a density."""
    shop = np.searchsorted(SHOPS, frame["shop"].to_numpy(str))
    adults, children = frame["adults"].to_numpy(), frame["children"].to_numpy()
    member = np.where(frame["member"], np.take(MEMBERS, shop), 1 - np.take(MEMBERS, shop))
    counts = stats.poisson.logpmf(adults, np.take(ADULTS, shop)) + stats.poisson.logpmf(
        children, np.take(CHILDREN, shop)
    )
    paid, free = frame["paid"].to_numpy(), np.take(FREE, shop)
    law = stats.lognorm(0.5, scale=np.exp(2 + 0.1 * (adults + children)))
    with np.errstate(divide="ignore"):
        mass = np.where(paid == 0, np.log(free), np.log1p(-free) + law.logsf(CAP))
        amount = np.where(
            (paid == 0) | (paid == CAP), mass, np.log1p(-free) + law.logpdf(np.where(paid > 0, paid, 1.0))
        )
    return np.log(SHARES[shop]) + np.log(member) - np.log(DAYS) + counts + amount


def draw_scores(truth: np.ndarray, found: np.ndarray) -> Figure:
    """Draw the density's log-probabilities against the law's."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.scatter(truth, found, s=4, alpha=0.3, color="#0072B2", linewidths=0, rasterized=True)
    low, high = np.quantile(truth, [0.001, 1])
    axes.plot([low, high], [low, high], color="#D55E00", lw=1.2)
    axes.set(
        xlabel="the law's log-probability (nats)", ylabel="the density's (nats)", xlim=(low, high), ylim=(low, high)
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Run the example."""
    example = Example("19_messy_table", "One messy table, from CSV to density", "no paper: a table as people have them")
    path = Path(example.folder) / "orders.csv"
    train, test = orders(example.size(8000, 400), 0), orders(example.size(4000, 100), 1)
    train.to_csv(path, index=False)
    table = read_table(path).frame()
    density = FlowDensity(max_iter=example.size(None, 20), random_state=0).fit(table)
    path.unlink()
    print(density)
    example.figure("columns", ", ".join(sorted({field.column.kind for field in density.columns_.fields})))
    flow, alone = density.evaluate(test, train=train)
    truth, found = true_log_prob(test), density.score_samples(test)
    gap = truth - found
    example.figure("truth's NLL", -truth.mean())
    example.figure("NLL", flow.nll)
    example.figure("NLL of columns that know nothing of each other", alone.nll)
    example.figure("gap to the truth", f"{gap.mean():.4f} +- {gap.std() / len(gap) ** 0.5:.4f}")
    sums = test.assign(guests=test["guests"] + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lost = density.score_samples(test) - density.score_samples(sums)
    example.figure("nats that a wrong sum of guests costs, median", float(np.median(lost)), 1)
    drawn = density.sample(example.size(4000, 200), random_state=0).to_pandas()
    sums_hold = (drawn["adults"] + drawn["children"] == drawn["guests"]).mean()
    example.figure("draws whose guests are the sum", f"{sums_hold:.1%}")
    shares = [f"{(rows['paid'] == 0).mean():.3f}" for rows in (test, drawn)]
    example.figure("shares that pay nothing: rows, draws", ", ".join(shares))
    example.picture(plots.plot_corner(density, test, ["shop", "adults", "guests", "paid"]), "corner")
    example.picture(draw_scores(truth, found), "scores")
    example.end()


if __name__ == "__main__":
    main()

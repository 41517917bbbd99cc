"""``liouville demo``: a target whose truth is known, and a real table, with figures and pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._common import check_place, say

if TYPE_CHECKING:
    import numpy as np

    from ..estimators import FlowDensity
    from ..metrics import Likelihood

# Of the tables that ship with scikit-learn, breast cancer is the one with continuous columns, few repeated
# values and some hundred rows: iris and diabetes are rounded to few values, wine has 178 rows for 13 columns.
# These six columns are left of its thirty because the others are zero in several rows, nearly functions
# of these (perimeter and area of the radius), or errors and extremes of the same six.
COLUMNS = ("radius", "texture", "smoothness", "compactness", "symmetry", "fractal dimension")
TEST_SHARE = 0.2


def run_demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for pictures.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data and of the fits.")] = 0,
) -> None:
    """Fit six Gaussians and a real table; print NLLs beside truth and baselines; write pictures."""
    output.mkdir(parents=True, exist_ok=True)
    check_place(output / "six_gaussians_density.png")
    pictures = [*six_gaussians(output, seed), *real_table(output, seed)]
    say("pictures: " + ", ".join(str(path) for path in pictures))


def six_gaussians(output: Path, seed: int) -> list[Path]:
    """Fit a target whose log-density is known; return the pictures that were written."""
    import numpy as np

    from .. import plots
    from ..data import six_gaussians as make_target
    from ..metrics import likelihood, table_of

    target, rng = make_target(), np.random.default_rng(seed)
    train, test = target.sample(rng, 16_384), target.sample(rng, 4_000)
    estimator, log_prob, baselines = fit_and_score(train, test, None, seed)
    truth = target.log_prob(test)
    report(f"{target.name}: {len(train)} rows x 2 columns", estimator, len(test))
    typer.echo(table_of([likelihood("truth", truth), likelihood("flow", log_prob), *baselines], 2))
    # Row by row the noise of the test rows cancels: this figure is far sharper than the table's.
    gap = likelihood("gap", log_prob - truth)
    typer.echo(f"flow above truth, row by row: {gap.nll:.4f} +- {gap.std_error:.4f} nats")
    figures = {
        "density": plots.plot_density(estimator, train),
        "trajectories": plots.plot_trajectories(estimator),
        "training": plots.plot_training(estimator.history_),
    }
    return save_all(figures, output, "six_gaussians")


def real_table(output: Path, seed: int) -> list[Path]:
    """Fit a real table, with a fifth of it held out; return the pictures that were written."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    from .. import plots

    table: Any = load_breast_cancer()
    names = [f"mean {name}" for name in COLUMNS]
    rows = table.data[:, [list(table.feature_names).index(name) for name in names]]
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    held_out = int(TEST_SHARE * len(rows))
    train, test = rows[held_out:], rows[:held_out]
    estimator, log_prob, baselines = fit_and_score(train, test, names, seed)
    from ..metrics import likelihood, table_of

    report(f"breast cancer: {len(train)} rows x {len(names)} columns", estimator, held_out)
    typer.echo(table_of([likelihood("flow", log_prob), *baselines], len(names)))
    figures = {
        "corner": plots.plot_corner(estimator, named(train, names)),
        "training": plots.plot_training(estimator.history_),
    }
    return save_all(figures, output, "breast_cancer")


def fit_and_score(
    train: "np.ndarray", test: "np.ndarray", names: list[str] | None, seed: int
) -> tuple["FlowDensity", "np.ndarray", "list[Likelihood]"]:
    """Return a fitted density, its log-densities of the test rows in nats, and the baselines' likelihoods."""
    from ..estimators import FlowDensity
    from ..metrics import evaluate_baselines

    estimator = FlowDensity(random_state=seed, verbose=1).fit(named(train, names))
    log_prob = estimator.score_samples(named(test, names))
    return estimator, log_prob, evaluate_baselines(train, test, seed)


def named(rows: "np.ndarray", names: list[str] | None) -> Any:
    """Return rows as a frame whose columns have names, where there are some."""
    import pyarrow as pa

    return rows if names is None else pa.table(dict(zip(names, rows.T, strict=True)))


def report(title: str, estimator: "FlowDensity", num_test: int) -> None:
    """Print what was fitted, above its table."""
    facts = estimator.facts_
    typer.echo(f"\n{title}, fitted in {facts['seconds']:.0f} s (preprocess {facts['preprocess']})")
    typer.echo(f"scored on {num_test} rows that no fit has seen:")


def save_all(figures: dict, output: Path, prefix: str) -> list[Path]:
    """Write figures as PNG files into a folder; return their paths."""
    from .. import plots

    paths = {output / f"{prefix}_{name}.png": figure for name, figure in figures.items()}
    for path, figure in paths.items():
        plots.save(figure, path)
    return list(paths)

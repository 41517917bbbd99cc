"""``liouville evaluate``: how good a density is, beside what anybody has at hand."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from ._common import Columns, Data, DropMissing, Model, load, names_in, say, table_file, taken_by


def run_evaluate(
    model: Model,
    data: Data,
    train: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Table to fit the baselines on, for example that of the fit.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the baselines.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Of pictures: draws of the noise for a tighter bound.")] = 1,
    exact: Annotated[
        int, typer.Option(min=0, help="Of pictures: how many are measured by the exact divergence too.")
    ] = 0,
    columns: Columns = None,
    drop_missing: DropMissing = False,
) -> None:
    """Print the NLL of a table beside that of a Gaussian, a Gaussian mixture and a kernel density.

    Of pictures, print the bits per dimension, with how they were measured.

    DATA should be rows that the fit has not seen. Without --train the baselines are fitted on a random
    half of DATA, and everything is scored on the other half. Columns are found by the names of the fit, or by
    --columns in the order of the fit.
    """
    estimator = load(model)
    asked = taken_by(
        estimator.evaluate,
        train=("--train", train),
        num_draws=("--draws", draws if draws > 1 else None),
        num_exact=("--exact", exact or None),
    )
    chosen = taken_by(
        estimator._read, columns=("--columns", names_in(columns)), drop_missing=("--drop-missing", drop_missing)
    )
    rows = estimator._read(table_file(data), **chosen)
    if "train" in inspect.signature(estimator.evaluate).parameters:
        if train is None:
            fitted, rows = halves(rows, estimator._check(rows), seed)
            names = f"a random half of {data}", "the others"
        else:
            fitted, names = estimator._read(table_file(train), **chosen), (train, data)
        say(f"baselines fitted on {names[0]} ({len(fitted)} rows); all scored on {names[1]} ({len(rows)} rows)")
        if len(fitted) <= estimator.n_features_in_ or len(rows) < 2:
            raise ValueError(
                f"Expected more rows than columns for the baselines and 2 to score, got {len(fitted)} and {len(rows)} "
                f"rows of {estimator.n_features_in_} columns; try more rows."
            )
        asked["train"] = fitted
    typer.echo(estimator._lines(estimator.evaluate(rows, **asked, random_state=seed)))


def halves(table: Any, rows, seed: int) -> tuple[Any, Any]:
    """Return two random halves of a table, given as numbers too; copies of a row are on one side."""
    from .._copies import in_random_order

    index, distinct = in_random_order(rows, seed)
    half = distinct < (distinct[-1] + 1) // 2
    taken = lambda some: table.take(some) if hasattr(table, "schema") else table[some]
    return taken(index[half]), taken(index[~half])

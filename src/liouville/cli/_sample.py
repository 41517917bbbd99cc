"""``liouville sample``: draw rows."""

from typing import Annotated

import typer

from ._common import Error, Model, Output, load


def run_sample(
    model: Model,
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="Number of rows.")] = 1000,
    output: Output = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same rows.")] = None,
    error: Error = None,
) -> None:
    """Draw rows, under the names of the columns that the model was fitted on."""
    from ..data import check_output, column_names, write_table

    check_output(output)
    estimator = load(model)
    write_table(output, estimator.sample(num, random_state=seed, error=error), column_names(estimator))

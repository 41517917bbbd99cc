"""``liouville sample``: draw rows or pictures."""

from typing import Annotated

import typer

from ._common import Error, Model, Output, check_place, load


def run_sample(
    model: Model,
    num: Annotated[
        int | None,
        typer.Option("--num", "-n", min=1, help="Number of rows or pictures.", show_default="1000 rows, 64 pictures"),
    ] = None,
    output: Output = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same rows.")] = None,
    error: Error = None,
) -> None:
    """Draw rows, under the names of the columns that the model was fitted on; or pictures.

    Pictures go to a PNG file, side by side, or to NPY or NPZ as bytes.
    """
    check_place(output, model)
    estimator = load(model)
    try:
        estimator._check_output(output)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None
    drawn = estimator._draw(num or estimator._num_drawn, seed, error)
    estimator._write(output, drawn)

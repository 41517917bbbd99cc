"""``liouville sample``: draw rows or pictures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ._common import Error, Model, Output, check_place, load, table_file


def run_sample(
    model: Model,
    num: Annotated[
        int | None,
        typer.Option("--num", "-n", min=1, help="Number of rows or pictures.", show_default="1000 rows, 64 pictures"),
    ] = None,
    output: Output = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same rows.")] = None,
    error: Error = None,
    given: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE", help="Rows whose missing values, and columns that are not there, are drawn given the rest."
        ),
    ] = None,
) -> None:
    """Draw rows, under the names of the columns that the model was fitted on; or pictures.

    With --given, as many rows as that table has, each with what it has there, of models fitted with --conditionals or
    --missing ignore. Pictures go to a PNG file, side by side, or to NPY or NPZ as bytes.
    """
    check_place(output, model, given)
    estimator = load_to_draw(model, output)
    if given is not None:
        if num is not None or error is not None:
            raise typer.BadParameter("Expected no --num and --error with --given, each of whose rows is drawn once.")
        write_given(estimator, given, output, seed)
        return
    drawn = estimator._draw(num or estimator._num_drawn, seed, error)
    estimator._write(output, drawn)


def load_to_draw(model: Path, output: Path | None) -> Any:
    """Return the model in a file, whose draws can be written to the output."""
    estimator = load(model)
    try:
        estimator._check_output(output)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None
    return estimator


def write_given(estimator: Any, given: Path, output: Path | None, seed: int | None, **chosen: Any) -> None:
    """Write rows of a table with what they lack drawn."""
    if not hasattr(estimator, "impute"):
        raise typer.BadParameter("Expected a model of a table, got one of pictures; try another.")
    import numpy as np

    rows = estimator._read(table_file(given), some=True)
    drawn = estimator._draw_given(rows, seed, **chosen)
    number = None if len(drawn) == 1 else np.repeat(np.arange(len(drawn)), drawn.shape[1])
    estimator._write(output, drawn.reshape(-1, drawn.shape[2]), number)

"""``liouville sample``: draw rows or pictures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ._common import Error, Model, Output, check_place, load, table_file


def run_sample(
    model: Model,
    num: Annotated[
        int | None,
        typer.Option(
            "--num",
            "-n",
            min=1,
            help="Number of rows or pictures; of targets given rows, of draws for each row.",
            show_default="1000 rows, 64 pictures, 1 draw",
        ),
    ] = None,
    output: Output = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same rows.")] = None,
    error: Error = None,
    given: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Rows whose missing values, and columns that are not there, are drawn given the rest; or targets.",
        ),
    ] = None,
) -> None:
    """Draw rows, under the names of the columns that the model was fitted on; or pictures.

    With --given, as many rows as that table has, each with what it has there, of models fitted with --conditionals or
    --missing ignore; of models fitted with --target the targets, one table of draws behind the other. Pictures go to a
    PNG file, side by side, or to NPY or NPZ as bytes.
    """
    from .._defaults import seed_of

    check_place(output, model, given)
    estimator = load_to_draw(model, output, "FlowDensity", "ImageDensity", "ConditionalFlowDensity")
    if hasattr(estimator, "target_columns_"):
        if given is None or error is not None:
            raise typer.BadParameter("Expected --given with rows, and no --error, for targets given rows.")
        rows = estimator._read(table_file(given))
        write_draws(estimator, estimator._drawn(estimator._told_of(rows), num or 1, seed_of(seed)), output)
        return
    if given is not None:
        if num is not None or error is not None:
            raise typer.BadParameter("Expected no --num and --error with --given, each of whose rows is drawn once.")
        write_given(estimator, given, output, seed)
        return
    drawn = estimator._draw(num or estimator._num_drawn, seed, error)
    estimator._write(output, drawn)


def load_to_draw(model: Path, output: Path | None, *kinds: str) -> Any:
    """Return the model in a file, of some kinds as of `load`, whose draws can be written to the output."""
    estimator = load(model, *kinds)
    try:
        estimator._check_output(output)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None
    return estimator


def write_given(estimator: Any, given: Path, output: Path | None, seed: int | None, **chosen: Any) -> None:
    """Write rows of a table with what they lack drawn."""
    if not hasattr(estimator, "impute"):
        raise typer.BadParameter("Expected a model of a table, got one of pictures; try another.")
    rows = estimator._read(table_file(given), some=True)
    write_draws(estimator, estimator._draw_given(rows, seed, **chosen), output)


def write_draws(estimator: Any, drawn: Any, output: Path | None) -> None:
    """Write tables of draws, of shape ``(num, n, d)``, one behind the other, and numbered where there are several."""
    import numpy as np

    number = None if len(drawn) == 1 else np.repeat(np.arange(len(drawn)), drawn.shape[1])
    estimator._write(output, drawn.reshape(-1, drawn.shape[2]), number)

"""``liouville sample``: draw rows or pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._common import Error, Model, Output, check_place, load, table_only

if TYPE_CHECKING:
    from ..image_density import ImageDensity


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
    from .. import ImageDensity
    from ..data import check_output, column_names, write_table

    check_place(output, model)
    estimator = load(model)
    if isinstance(estimator, ImageDensity) and error is None:
        draw_pictures(estimator, num or 64, output, seed)
        return
    table = table_only(estimator, "--error")
    check_output(output)
    write_table(output, table.sample(num or 1000, random_state=seed, error=error), column_names(table))


def draw_pictures(estimator: "ImageDensity", num: int, output: Path | None, seed: int | None) -> None:
    """Draw pictures into a file."""
    from ..data import check_pictures_file, write_pictures

    if output is None:
        raise typer.BadParameter("Expected --output FILE for pictures; try --output samples.png.")
    check_pictures_file(output)
    write_pictures(output, estimator.sample(num, random_state=seed), estimator.levels)

"""``liouville impute``: a table without gaps, what is missing drawn given what was observed."""

from typing import Annotated

import typer

from ._common import Data, Model, Output, check_place
from ._sample import load_to_draw, write_given


def run_impute(
    model: Model,
    data: Data,
    output: Output = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same values.")] = None,
    draws: Annotated[int, typer.Option(min=1, help="Tables, one behind the other, numbered in a column draw.")] = 1,
) -> None:
    """Write a table whose missing values are drawn given what was observed: draws of the model, and no means.

    The model is one fitted with --missing ignore or --conditionals. Several draws say how uncertain what was filled in
    is.
    """
    check_place(output, model, data)
    write_given(load_to_draw(model, output), data, output, seed, num_draws=draws, has_gaps=False)

"""``liouville predict``: what a target may be, given each row."""

from typing import Annotated

import typer

from ._common import Data, Model, Output, check_place, load, names_in, table_file


def run_predict(
    model: Model,
    data: Data,
    output: Output = None,
    quantiles: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBERS", help="Probabilities, with commas between; repeatable.", show_default="none"),
    ] = None,
) -> None:
    """Write the mean of the target given each row, and quantiles behind it, of a model fitted with --target.

    Quantiles have the headers q0.05 and so on. Columns are found by the names of the fit; the table may have others.
    """
    from ..data import check_output, write_table

    alpha = probabilities(names_in(quantiles) or [])
    check_output(output)
    check_place(output, model, data)
    estimator = load(model, "ConditionalFlowDensity")
    rows = estimator._read(table_file(data))
    found = {"mean": estimator.predict(rows)}
    if alpha:
        values = estimator.predict_quantiles(rows, list(alpha.values()))
        found |= {f"q{text}": column for text, column in zip(alpha, values.T, strict=True)}
    write_table(output, found)


def probabilities(texts: list[str]) -> dict[str, float]:
    """Return numbers by their texts; what is no probability is an error of usage."""
    try:
        found = {text: float(text) for text in texts}
    except ValueError:
        found = {"": 0.0}
    if not all(0 < value < 1 for value in found.values()):
        raise typer.BadParameter(f"Expected --quantiles above 0 and below 1, got {','.join(texts)}; try 0.05,0.5,0.95.")
    return found

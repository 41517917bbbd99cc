"""``liouville score``: the log-density of each row or picture."""

import warnings
from typing import Annotated, Any

import typer

from ._common import (
    MOST_NAMED,
    Columns,
    Data,
    Error,
    Model,
    Output,
    check_place,
    load,
    names_in,
    say,
    table_file,
    taken_by,
)


def run_score(
    model: Model,
    data: Data,
    output: Output = None,
    error: Error = None,
    columns: Columns = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="Columns whose probability is asked for, with commas between; repeatable."),
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Columns that it is conditioned on, likewise.")
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            min=2, help="With --target or --given: make answers consistent by so many draws a row; adds std_error."
        ),
    ] = None,
) -> None:
    """Write the log-density of each row, in nats, under the header log_prob; of pictures, a bound of it.

    A table's columns are found by the names of the fit, or by --columns in the order of the fit; it may have others.
    A missing value is an error, since each row has its score, but for models fitted with --missing.

    With --target, --given or both, that of some columns given others, of models fitted with --conditionals or
    --missing ignore.

    Of a model that was fitted with --target, that of the targets given the other columns: the table has both.

    A row whose solve failed is nan, and named on standard error; the exit code is 0 all the same.
    """
    import numpy as np

    from ..data import check_output, read_rows_and_targets_of, write_table

    check_output(output)
    check_place(output, model, data)
    estimator = load(model, "FlowDensity", "ImageDensity", "ConditionalFlowDensity")
    asked, chosen = names_in(target), names_in(given) or []
    is_of_targets = hasattr(estimator, "target_columns_")
    if is_of_targets:
        options = {"target": asked, "given": chosen or None, "draws": draws, "error": error, "columns": columns or None}
        taken_by(estimator.log_prob, **{name: (f"--{name}", value) for name, value in options.items()})
    elif asked or chosen:
        write_table(output, conditional(estimator, data, asked, chosen, draws, error, columns))
        return
    elif draws is not None:
        raise typer.BadParameter("Expected --target or --given with --draws, got neither; try --target.")
    with warnings.catch_warnings():
        # The estimator names the first failed row; here all are.
        warnings.simplefilter("ignore", RuntimeWarning)
        if is_of_targets:
            found = estimator.log_prob(*read_rows_and_targets_of(estimator, table_file(data)), return_info=True)
        else:
            options = taken_by(estimator._read, columns=("--columns", names_in(columns)))
            found = estimator.score_samples(estimator._read(table_file(data), **options), error=error, return_info=True)
    log_prob, info = found
    write_table(output, {"log_prob": log_prob})
    report_failures(np.flatnonzero(np.isnan(log_prob)), info.messages)


def conditional(estimator: Any, data, target, given: list[str], draws: int | None, error, columns) -> dict[str, Any]:
    """Return the columns to write of the probabilities of some columns given others."""
    if not hasattr(estimator, "log_prob"):
        raise typer.BadParameter("Expected no --target and --given for a model of pictures; try without.")
    if error is not None or columns is not None:
        raise typer.BadParameter("Expected no --error and --columns with --target and --given; try without.")
    from .._conditionals import columns_of

    asked = {"target": estimator._named(target) if target else None, "given": estimator._named(given)}
    columns_of(estimator, **asked)
    # Others need not be in the file.
    names = [*target, *given] if target and hasattr(estimator, "feature_names_in_") else None
    rows = estimator._read(table_file(data), names=names)
    if draws is None:
        return {"log_prob": estimator.log_prob(rows, **asked)}
    log_prob, std_error = estimator.log_prob(rows, **asked, consistent=True, num_draws=draws)
    return {"log_prob": log_prob, "std_error": std_error}


def report_failures(failed, messages: list[str]) -> None:
    """Name the rows that have no log-density, on standard error."""
    for row in failed[:MOST_NAMED]:
        say(f"liouville: warning: row {row} was not solved and is nan: {messages[row]}")
    if len(failed):
        say(f"liouville: warning: {len(failed)} of {len(messages)} rows were not solved; the others are valid")

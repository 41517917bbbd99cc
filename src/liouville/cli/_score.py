"""``liouville score``: the log-density of each row or picture."""

import warnings

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


def run_score(model: Model, data: Data, output: Output = None, error: Error = None, columns: Columns = None) -> None:
    """Write the log-density of each row, in nats, under the header log_prob; of pictures, a bound of it.

    A table's columns are found by the names of the fit, or by --columns in the order of the fit; it may have others.
    A missing value is an error, since each row has its score.

    A row whose solve failed is nan, and named on standard error; the exit code is 0 all the same.
    """
    import numpy as np

    from ..data import check_output, write_table

    check_output(output)
    check_place(output, model, data)
    estimator = load(model)
    with warnings.catch_warnings():
        # The estimator names the first failed row; here all are.
        warnings.simplefilter("ignore", RuntimeWarning)
        rows = estimator._read(table_file(data), **taken_by(estimator._read, columns=("--columns", names_in(columns))))
        log_prob, info = estimator.score_samples(rows, error=error, return_info=True)
    write_table(output, {"log_prob": log_prob})
    report_failures(np.flatnonzero(np.isnan(log_prob)), info.messages)


def report_failures(failed, messages: list[str]) -> None:
    """Name the rows that have no log-density, on standard error."""
    for row in failed[:MOST_NAMED]:
        say(f"liouville: warning: row {row} was not solved and is nan: {messages[row]}")
    if len(failed):
        say(f"liouville: warning: {len(failed)} of {len(messages)} rows were not solved; the others are valid")

"""``liouville score``: the log-density of each row."""

import warnings

from ._common import Data, Error, Model, Output, load, rows_for, say

MOST_NAMED = 10


def run_score(model: Model, data: Data, output: Output = None, error: Error = None) -> None:
    """Write the log-density of each row, in nats, under the header log_prob.

    A row whose solve failed is nan, and named on standard error; the exit code is 0 all the same.
    """
    import numpy as np

    from ..data import as_fitted, check_output, write_table

    check_output(output)
    estimator = load(model)
    with warnings.catch_warnings():
        # The estimator names the first failed row; here all are.
        warnings.simplefilter("ignore", RuntimeWarning)
        rows = as_fitted(estimator, rows_for(estimator, data))
        log_prob, info = estimator.score_samples(rows, error=error, return_info=True)
    write_table(output, log_prob[:, None], ["log_prob"])
    report_failures(np.flatnonzero(np.isnan(log_prob)), info.messages)


def report_failures(failed, messages: list[str]) -> None:
    """Name the rows that have no log-density, on standard error."""
    for row in failed[:MOST_NAMED]:
        say(f"liouville: warning: row {row} was not solved and is nan: {messages[row]}")
    if len(failed):
        say(f"liouville: warning: {len(failed)} of {len(messages)} rows were not solved; the others are valid")

"""Fit a density by default and say where the time goes, then score held-out rows at several tolerances.

Usage: python benchmarks/evaluation.py [TABLE], where TABLE is a file of rows; six Gaussians without one.
The phases are medians of three fits after the first: what the first takes longer is compilation.
The error is the shift of the log-density against a solve at a tolerance of 1e-9, in nats, in float64.
"""

import statistics
import sys
import time
from unittest import mock

import jax
import numpy as np

from liouville import FlowDensity, evaluation
from liouville.data import read_table, six_gaussians
from liouville.flows import with_tolerance

NUM_ROWS = 256
NUM_FITS = 3
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)


def rows_of(argv: list[str]) -> np.ndarray:
    """Return the table that the command line names."""
    if argv:
        return read_table(argv[0]).values
    return six_gaussians().sample(np.random.default_rng(0), 10_000 + NUM_ROWS)


def timed(flow, rows) -> tuple[np.ndarray, evaluation.EvaluationInfo, float]:
    """Score rows twice, and time the second: the first compiles."""
    evaluation.score(flow, rows)
    start = time.perf_counter()
    log_prob, info = evaluation.score(flow, rows)
    return log_prob, info, time.perf_counter() - start


def fit(rows) -> tuple[FlowDensity, float, float]:
    """Return a density, the seconds of its fit, and those of its validations among them."""
    spent, score = [], evaluation.score

    def watched(*args, **kwargs):
        start = time.perf_counter()
        result = score(*args, **kwargs)
        spent.append(time.perf_counter() - start)
        return result

    start = time.perf_counter()
    with mock.patch.object(evaluation, "score", watched):
        density = FlowDensity(random_state=0).fit(rows)
    return density, time.perf_counter() - start, sum(spent)


def main() -> None:
    """Print the fit's phases, then a line for each tolerance."""
    rows = rows_of(sys.argv[1:])
    np.random.default_rng(0).shuffle(rows)
    held_out, rows = rows[:NUM_ROWS], rows[NUM_ROWS:]
    density, first, _ = fit(rows)
    print(f"{density.facts_}")
    total, validation = (
        statistics.median(column) for column in zip(*[fit(rows)[1:] for _ in range(NUM_FITS)], strict=True)
    )
    print(
        f"fit: {first:.1f} s, of it compilation {first - total:.1f}, validation {validation:.1f}, "
        f"steps and all else {total - validation:.1f}; {density.n_iter_ / (total - validation):.0f} steps/s"
    )
    print(f"certify: {density.certify(held_out)}")

    at_default = density.get_params()["rtol"]

    def flow_at(tolerance):
        return with_tolerance(density.flow_, tolerance / at_default)

    with jax.enable_x64(True):
        truth, _ = evaluation.score(flow_at(1e-9), held_out)
    print("tolerance  mean error  max error  evaluations  rows/s  mean error in float64")
    for tolerance in TOLERANCES:
        log_prob, info, seconds = timed(flow_at(tolerance), held_out)
        with jax.enable_x64(True):
            double, _ = evaluation.score(flow_at(tolerance), held_out)
        error = np.abs(log_prob - truth)
        print(
            f"{tolerance:9.0e}  {error.mean():10.1e}  {error.max():9.1e}  "
            f"{info.num_evaluations.mean():11.0f}  {NUM_ROWS / seconds:6.0f}  {np.abs(double - truth).mean():21.1e}"
        )


if __name__ == "__main__":
    main()

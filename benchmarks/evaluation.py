"""Fit a density by default, then score held-out rows at several tolerances: error, cost, rows a second.

Usage: python benchmarks/evaluation.py [TABLE], where TABLE is a file of rows; six Gaussians without one.
The error is the shift of the log-density against a solve at a tolerance of 1e-9, in nats, in float64.
"""

import sys
import time

import jax
import numpy as np

from liouville import FlowDensity, evaluation
from liouville.bijections import Chain
from liouville.data import read_table, six_gaussians
from liouville.distributions import Transformed
from liouville.flows import with_tolerance

NUM_ROWS = 256
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


def main() -> None:
    """Print the fit's phases, then a line for each tolerance."""
    rows = rows_of(sys.argv[1:])
    held_out, rows = rows[:NUM_ROWS], rows[NUM_ROWS:]
    start = time.perf_counter()
    density = FlowDensity(random_state=0).fit(rows)
    print(f"fit: {time.perf_counter() - start:.1f} s, {density.facts_}")
    start = time.perf_counter()
    density.score_samples(held_out)
    print(f"first score of {NUM_ROWS} rows: {time.perf_counter() - start:.1f} s, compilation included")
    print(f"certify: {density.certify(held_out)}")

    core, links = evaluation.split(density.flow_)
    at_default = density.get_params()["rtol"]

    def flow_at(tolerance):
        solved = with_tolerance(core, tolerance / at_default)
        return Transformed(core.base, Chain([solved.bijection, *links]))

    with jax.enable_x64(True):
        truth, _ = evaluation.score(flow_at(1e-9), held_out)
    print("tolerance  mean error  max error  evaluations  rows/s")
    for tolerance in TOLERANCES:
        log_prob, info, seconds = timed(flow_at(tolerance), held_out)
        error = np.abs(log_prob - truth)
        print(
            f"{tolerance:9.0e}  {error.mean():10.1e}  {error.max():9.1e}  "
            f"{info.num_evaluations.mean():11.0f}  {NUM_ROWS / seconds:6.0f}"
        )


if __name__ == "__main__":
    main()

"""Targets given rows, on published splits: log-likelihood, CRPS, coverage and calibration of `ConditionalFlowDensity`.

A data set is an NPZ file with rows ``X``, targets ``y`` and ``tests``, for each split the numbers of its test rows:

    python benchmarks/regression.py concrete.npz energy.npz --splits 5
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.stats import kstest

from liouville import ConditionalFlowDensity


def measured(X: np.ndarray, y: np.ndarray, test: np.ndarray, front: str) -> dict[str, float]:
    """Fit the rows outside of a split's test rows, and return what is found of these."""
    train, start = np.setdiff1d(np.arange(len(y)), test), time.perf_counter()
    density = ConditionalFlowDensity(front=front, random_state=0).fit(X[train], y[train])
    seconds = time.perf_counter() - start
    low, high = density.predict_interval(X[test], coverage=0.9).T
    return {
        "NLL": -density.score(X[test], y[test]),
        "CRPS": float(density.crps(X[test], y[test]).mean()),
        "90 % holds": float(((low <= y[test]) & (y[test] <= high)).mean()),
        "KS p": float(kstest(density.cdf(X[test], y[test]), "uniform").pvalue),
        "RMSE": float(np.sqrt(np.mean((density.predict(X[test]) - y[test]) ** 2))),
        "seconds": seconds,
    }


def main() -> None:
    """Print a line for each data set: means over the splits, with standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--front", choices=("auto", "none", "trees"), default="auto")
    args = parser.parse_args()
    for path in args.files:
        with np.load(path) as data:
            tests = data["tests"][: args.splits]
            found = [measured(data["X"], data["y"], test, args.front) for test in tests]
        cells = []
        for name in found[0]:
            values = np.array([one[name] for one in found])
            cells.append(f"{name} {values.mean():.3f} ({values.std(ddof=1) / np.sqrt(len(values)):.3f})")
        print(f"{path.stem:16} {len(tests)} splits  {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()

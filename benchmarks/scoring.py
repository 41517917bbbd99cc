"""Rows scored and drawn a second, at a stated error of the log-density, by us and by other libraries' CNFs.

Usage: python benchmarks/scoring.py [--targets NAME ...] [--seconds S]
Each is trained for S seconds (our default: as long as it wants), then solved at several settings and compared with a
solve at 1e-9 (torchcfm's, whose field has kinks, 1e-7) in float64 on 256 test rows. `peers/scoring.py` has the other
libraries.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import targets
from run import FOLDER, collect, keep

from liouville import FlowDensity, evaluation
from liouville.flows import with_tolerance

sys.path.insert(0, str(FOLDER / "peers"))
from common import TOLERANCES, main_of_solvers

ERRORS = (1e-2, 1e-3, 2e-4)
OTHERS = ("zuko CNF", "torchcfm")


def liouville_default(train, validation, clock, seed):
    """Fit our default. What its settings are called with: an error, or a tolerance."""
    density = FlowDensity(random_state=seed).fit(np.concatenate([train, validation]))
    at_default = density.get_params()["rtol"]

    def score(rows, setting):
        if setting is None:
            with jax.enable_x64(True):
                values, info = evaluation.score(with_tolerance(density.flow_, 1e-9 / at_default), rows)
            return values, info.num_evaluations
        kind, size = setting
        if kind == "error":
            values, info = density.score_samples(rows, error=size, return_info=True)
        else:
            values, info = evaluation.score(with_tolerance(density.flow_, size / at_default), rows)
        return values, info.num_evaluations

    def draw(num, setting):
        kind, size = ("tolerance", 1e-7) if setting is None else setting
        flow = density._flow(size) if kind == "error" else with_tolerance(density.flow_, size / at_default)
        points, info = evaluation.sample(flow, num, seed=0)
        return points, info.num_evaluations

    settings = {f"error {error:.0e}": ("error", error) for error in ERRORS}
    return {**settings, **{f"{size:.0e}": ("tolerance", size) for size in TOLERANCES[2:]}}, score, draw


METHODS = {"liouville": liouville_default}


def main() -> None:
    """Run each method in a process of its own, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", choices=targets.NAMES, default=("six_gaussians", "power_plant"))
    parser.add_argument("--seconds", type=float, default=120.0, help="of training, for the others")
    parser.add_argument("--data", type=Path, default=FOLDER.parent.parent / "shared/data/tabular", help="of the tables")
    arguments = parser.parse_args()
    for target in arguments.targets:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / f"{target}.npz"
            np.savez(data, **targets.make(target, 0, arguments.data))
            found = collect("scoring.py", METHODS, OTHERS, data, "--seconds", str(arguments.seconds), "--seed", "0")
        keep(f"scoring_{target}", {"runs": found})


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in METHODS:
        main_of_solvers(METHODS, ("liouville", "jax", "diffrax"))
    else:
        main()

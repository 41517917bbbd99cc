"""Targets given rows, on published splits: likelihood, CRPS, intervals and calibration, by us and by other libraries.

Usage: python benchmarks/regression.py [--data FOLDER] [--sets NAME ...] [--methods NAME ...] [--splits N]
[--peers PYTHON] [--again]
A data set is an NPZ file of FOLDER with rows ``X``, targets ``y`` and ``tests``, for each split the numbers of its test
rows. What is there already is not measured again; --again does. Each split is kept as soon as it is measured. Where our
default finds that targets lie on a grid, laws are compared by the masses of its cells. `peers/regression.py` has the
other methods, `peers/predictions.py` what all of them are judged by.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from run import FOLDER, PEERS, RESULTS, collect, keep

from liouville import ConditionalFlowDensity
from liouville.mixed import Columns

sys.path.insert(0, str(FOLDER / "peers"))
from common import machine, write
from predictions import Scores, main_of_predictions

OTHERS = (
    "NGBoost", "NGBoost, stopped early", "quantile forest", "Gaussian process", "mixture density network",
    "linear Gaussian",
)  # fmt: skip
# Its time grows with the cube of the rows.
MOST_ROWS = {"Gaussian process": 2_000}


def liouville(train, y, test, seed):
    """Fit our default."""
    density = ConditionalFlowDensity(random_state=seed).fit(train, y)

    def scores(y: np.ndarray, step: float | None) -> Scores:
        column, log_prob, up_to = density.target_columns_.columns[0], density.log_prob(test, y), density.cdf(test, y)
        mass = np.where(has_mass(column, y), np.exp(log_prob), 0.0)
        return Scores(log_prob, up_to - mass, up_to, density.crps(test, y))

    return scores, "behind trees" if density.facts_["front"] == "trees" else "without trees"


def has_mass(column, y: np.ndarray) -> np.ndarray:
    """Return which targets have a mass and no density."""
    return column.on_atoms(y).any(-1) | (column.kind != "continuous")


METHODS = {"liouville": liouville}


def facts(X: np.ndarray, y: np.ndarray, tests: np.ndarray) -> dict:
    """Return what is said of a data set: its sizes, the step of targets on a grid, and how many others have masses."""
    column = Columns(y[:, None]).columns[0]
    step = column.step if column.kind == "whole" else 0.0
    atoms = 0 if step else int(has_mass(column, y).sum())
    sizes = {"train": len(y) - len(tests[0]), "test": len(tests[0]), "columns": X.shape[1]}
    return {**sizes, "step": step, "atoms": atoms, "runs": {}}


def compare(path: Path, found: dict, arguments: argparse.Namespace) -> None:
    """Measure what is missing of a data set."""
    with np.load(path) as data:
        X, y, tests = data["X"], data["y"].astype(float), data["tests"]
    table = found.setdefault(path.stem, facts(X, y, tests))
    others = {run["machine"] for splits in table["runs"].values() for run in splits.values()} - {machine()}
    if others and not arguments.again:
        print(f"{path.stem}: measured on {min(others)}; passed over, unless --again measures it here")
        return
    for split, test in enumerate(tests[: arguments.splits]):
        rest = np.setdiff1d(np.arange(len(y)), test)
        parts = {"train": X[rest], "y": y[rest], "test": X[test], "test_y": y[test], "step": table["step"]}
        for method in arguments.methods:
            is_there = str(split) in table["runs"].get(method, {}) and not arguments.again
            if is_there or len(rest) > MOST_ROWS.get(method, np.inf):
                continue
            print(f"{path.stem}, split {split}: {method}", flush=True)
            for run in measure(method, parts, arguments.peers):
                table["runs"].setdefault(method, {})[str(split)] = run
                write(arguments.results, found)


def measure(method: str, parts: dict, peers: Path) -> list[dict]:
    """Return the result of one method on one split, or nothing where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "split.npz"
        np.savez(data, **parts)
        names = ([method], []) if method in METHODS else ([], [method])
        return collect("regression.py", *names, data, peers=peers)


def main() -> None:
    """Measure what is missing, one process after the other, then make the page anew."""
    names = (*METHODS, *OTHERS)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = FOLDER.parent.parent / "shared/data"
    parser.add_argument("--data", type=Path, default=shared / "regression", help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", help="some of the data sets, by the names of their files")
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--splits", type=int, default=20, help="of each data set, at most")
    parser.add_argument("--peers", type=Path, default=PEERS, help="Python of the environment of the other libraries")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    arguments = parser.parse_args()
    arguments.results = RESULTS / "regression.json"
    found = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    paths = sorted(arguments.data.glob("*.npz"))
    if not paths:
        print(f"no data sets in {arguments.data}; passed over")
    for path in paths:
        if arguments.sets is None or path.stem in arguments.sets:
            compare(path, found, arguments)
    if found:
        keep("regression", found)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in METHODS:
        main_of_predictions(METHODS, ("liouville", "jax"))
    else:
        main()

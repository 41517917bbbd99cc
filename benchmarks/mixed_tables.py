"""Mixed tables: log-probabilities of held-out rows and the quality of draws, by us and by densities of other kinds.

Usage: python benchmarks/mixed_tables.py [--tables NAME ...] [--seed K] [--output FILE.json]
The tables are bikeshare, diamonds, wage and credit (CSV files in --mixed), and the normal rows of annthyroid (an
archive in --anomaly, with X and y): all its columns have few values (83 to 398 in 6,666 rows), which lie on decimal
grids, so that each is a mass; in thyroid, yeast and cardio repeated values lie on no grid, and have no density. Of wage
its logarithm is left out: together they have none either. Rows with gaps would be left out, and said to be. Of at most
10,000 rows a random fifth is held out, equal rows on one side; rows held out with a level that no other row has are
trained on instead.

`liouville` is FlowDensity() as it comes. It says what columns are: the log-probability is by the counting measure on
levels, whole numbers (grids as well) and atoms, by Lebesgue's on what is left. `mixed_rivals.py` has the others, whose
laws have mass wherever there can be any. The adversarial forest needs `pip install arfpy`; without it, it is passed
over. Draws are judged by gradient-boosted trees that are to tell them from the rows held out: 0.5 is perfect.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import mixed_rivals
import numpy as np
import pandas as pd
import sections
from mixed_columns import encode
from run import FOLDER
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from threadpoolctl import threadpool_limits

from liouville import FlowDensity
from liouville._copies import in_random_order
from liouville.mixed import Columns

sys.path.insert(0, str(FOLDER / "peers"))
from common import machine, write

TABLES = ("bikeshare", "diamonds", "wage", "credit", "annthyroid")
# Functions of other columns, on which there is no density.
LEFT_OUT = {"wage": ["logwage"]}
MOST_ROWS, HELD_OUT = 10_000, 0.2


def load(name: str, mixed: Path, anomaly: Path) -> pd.DataFrame:
    """Return a table, and say how many of its rows have gaps."""
    path = mixed / f"{name}.csv"
    if path.exists():
        frame = pd.read_csv(path).drop(columns=LEFT_OUT.get(name, []))
    else:
        with np.load(next(anomaly.glob(f"*_{name}.npz"))) as found:
            rows = found["X"][found["y"] == 0]
        frame = pd.DataFrame(rows, columns=[f"x{j}" for j in range(rows.shape[1])])
    if gaps := int(frame.isna().any(axis=1).sum()):
        print(f"{name}: {gaps} rows with gaps left out")
    return frame.dropna()


def split(frame: pd.DataFrame, most: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, Columns]:
    """Return rows to train on, rows to test on, and what liouville says that the columns of the former are."""
    order, distinct = in_random_order(Columns(frame).rows(frame), seed)
    order, distinct = order[:most], distinct[:most]
    is_train = distinct < distinct[int((1 - HELD_OUT) * len(order))]
    train, test = frame.iloc[order[is_train]], frame.iloc[order[~is_train]]
    columns = Columns(train)
    codes = [j for j, column in enumerate(columns.columns) if column.kind == "code"]
    is_new = np.any(columns.rows(test)[:, codes] < 0, axis=1)
    train, test = pd.concat([train, test[is_new]]), test[~is_new]
    return train.reset_index(drop=True), test.reset_index(drop=True), Columns(train)


def liouville(train: pd.DataFrame, test: pd.DataFrame, seed: int, params: dict) -> tuple:
    """Our default; as the rivals do, it returns log-probabilities, draws and settings, but of frames."""
    density = FlowDensity(random_state=seed, **params).fit(train)
    log_prob, facts = density.score_samples(test), density.facts_
    said = f"{facts['preprocess']}, best after {facts['best_step']:,} of {facts['steps']:,} steps"
    return log_prob, density.sample(len(test), random_state=seed + 1), said


RIVALS = {
    "adversarial random forest": mixed_rivals.forest,
    "latent classes": mixed_rivals.latent_classes,
    "independent columns": mixed_rivals.independent,
}
METHODS = ("liouville", *RIVALS)


def told_apart(held_out: np.ndarray, drawn: np.ndarray) -> float:
    """Return the area under the curve of trees that tell draws from rows, two folds three times."""
    rows, is_drawn = np.concatenate([held_out, drawn]), np.repeat([0, 1], [len(held_out), len(drawn)])
    folds = RepeatedStratifiedKFold(n_splits=2, n_repeats=3, random_state=0)
    trees = HistGradientBoostingClassifier(random_state=0)
    # Threads of OpenMP that wait for a core that others use take forty times as long as one thread.
    with threadpool_limits(1):
        return float(cross_val_score(trees, rows, is_drawn, cv=folds, scoring="roc_auc").mean())


def measure(name: str, train: pd.DataFrame, test: pd.DataFrame, columns: Columns, arguments) -> dict:
    """Return what one method reaches; its log-probabilities are an array still."""
    numbers = lambda frame: encode(columns.columns, columns.rows(frame))
    start = time.perf_counter()
    if name == "liouville":
        params = {} if arguments.max_iter is None else {"max_iter": arguments.max_iter}
        log_prob, frame, said = liouville(train, test, arguments.seed, params)
        drawn = numbers(frame)
    else:
        with threadpool_limits(1):
            log_prob, drawn, said = RIVALS[name](columns.columns, numbers(train), numbers(test), arguments.seed)
    seconds = time.perf_counter() - start
    auc = told_apart(numbers(test), drawn)
    return {"method": name, "settings": said, "log_prob": log_prob, "auc": auc, "seconds": seconds}


def compare(table: str, arguments: argparse.Namespace) -> dict:
    """Measure all methods on one table."""
    frame = load(table, arguments.mixed, arguments.anomaly)
    train, test, columns = split(frame, arguments.rows, arguments.seed)
    runs = []
    for name in arguments.methods:
        print(f"{table}: {name}", flush=True)
        try:
            runs.append(measure(name, train, test, columns, arguments))
        except ImportError as error:
            print(f"  passed over: {error}", flush=True)
        except Exception as error:  # what fails on one table is said, and the others are measured
            print(f"  failed: {type(error).__name__}: {error}", flush=True)
    kinds = [column.kind for column in columns.columns]
    return {
        "table": table,
        "train": len(train),
        "test": len(test),
        "columns": {kind: kinds.count(kind) for kind in ("code", "whole", "continuous")},
        "atoms": sum(bool(column.atoms) for column in columns.columns),
        **summary(runs),
    }


def summary(runs: list[dict]) -> dict:
    """Return means and differences to liouville, of the rows to which all methods give a probability."""
    if not runs:
        return {"runs": [], "left_out": 0}
    are_finite = np.all([np.isfinite(run["log_prob"]) for run in runs], axis=0)
    error = lambda values: float(values.std(ddof=1) / np.sqrt(len(values)))
    ours = next((run["log_prob"][are_finite] for run in runs if run["method"] == "liouville"), None)
    for run in runs:
        log_prob = run.pop("log_prob")
        known, failed = log_prob[are_finite], int((~np.isfinite(log_prob)).sum())
        run |= {"mean": float(known.mean()), "std_error": error(known), "failed": failed}
        more = None if ours is None else known - ours
        run |= {} if more is None else {"more": float(more.mean()), "more_error": error(more)}
    return {"runs": runs, "left_out": int((~are_finite).sum())}


def main() -> None:
    """Measure, print the tables, and write the figures where one says to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = FOLDER.parent.parent / "shared/data"
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--mixed", type=Path, default=shared / "mixed", help="folder of the CSV files")
    parser.add_argument("--anomaly", type=Path, default=shared / "anomaly", help="folder of the archives")
    parser.add_argument("--rows", type=int, default=MOST_ROWS, help="of each table, at most")
    parser.add_argument("--max-iter", type=int, help="steps of liouville, at most, to try it out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file of the figures, as JSON")
    arguments = parser.parse_args()
    found = {"machine": machine(), "seed": arguments.seed, "max_iter": arguments.max_iter, "tables": []}
    for table in arguments.tables:
        with warnings.catch_warnings():
            # What is new or alone among levels is told by the split, and arfpy's pandas is of long ago.
            warnings.simplefilter("ignore")
            found["tables"].append(compare(table, arguments))
        print("\n".join(sections.mixed_table(found["tables"][-1])), flush=True)
        if arguments.output:
            write(arguments.output, found)


if __name__ == "__main__":
    main()

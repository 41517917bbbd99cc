"""Missing cells: how likely they are given the others, and how good draws of them are, by us and by imputers.

Usage: python benchmarks/gaps.py [--tables NAME ...] [--mice PYTHON] [--seed K] [--output FILE.json]
The tables are power_plant and magic_gamma (archives in --data) and diamonds (a CSV file there), whose columns are
levels, whole numbers and others. Of the rows to train on and of those to test on the same share of cells is removed,
0.3: "random" from everywhere alike; "rule" from all columns but the first, four times as often where that one is above
its median. Methods learn from the former's gaps, and are asked for the latter's, given the cells that are left.

`liouville` is FlowDensity(missing="ignore"). It says what columns are, and so by which measure all log-probabilities
are. `gaps_rivals.py` has the others. Random forests need an environment of their own, with `pip install miceforest
"lightgbm<4.6"`, whose Python --mice names; without it they are passed over.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import gaps_rivals
import mixed_tables
import numpy as np
import sections
from run import FOLDER, RESULTS
from threadpoolctl import threadpool_limits

from liouville import FlowDensity, evaluation
from liouville.mixed import Columns, MixedFrame

sys.path.insert(0, str(FOLDER / "peers"))
from common import machine, write

TABLES, PATTERNS = ("power_plant", "magic_gamma", "diamonds"), ("random", "rule")
SHARE, TIMES = 0.3, 4.0
TRAIN_ROWS, TEST_ROWS, DRAWS = 8_000, 1_000, 100
# Forests take seconds for each draw.
DRAWS_OF_FORESTS = 25


class Task(NamedTuple):
    """A table with gaps: what methods learn from, and what they are asked for."""

    train: Any
    test: Any
    removed: np.ndarray
    table: Columns

    @property
    def gappy(self):
        """The rows to test on without what is asked for."""
        return with_gaps(self.test, self.removed)


def with_gaps(table, removed: np.ndarray):
    """Return a table without some cells; whole numbers stay such beside gaps."""
    if isinstance(table, np.ndarray):
        return np.where(removed, np.nan, table)
    return table.astype({name: "Int64" for name in table.select_dtypes("integer")}).mask(removed)


def load(name: str, data: Path, seed: int) -> tuple[Any, Any]:
    """Return rows to train on and rows to test on."""
    if name == "diamonds":
        frame = mixed_tables.load(name, data / "mixed", data / "anomaly")
        train, test, _ = mixed_tables.split(frame, int(TRAIN_ROWS / (1 - mixed_tables.HELD_OUT)), seed)
        return train, test.iloc[:TEST_ROWS]
    with np.load(data / f"tabular/{name}.npz") as found:
        return found["train"][:TRAIN_ROWS].astype(float), found["test"][:TEST_ROWS].astype(float)


def gaps_of(rng: np.random.Generator, shape: tuple[int, int], pattern: str, first: np.ndarray, median: float):
    """Return which cells are removed: a share of all of them."""
    if pattern == "random":
        return rng.random(shape) < SHARE
    low = 2 * SHARE * shape[1] / (shape[1] - 1) / (1 + TIMES)
    removed = rng.random(shape) < np.where(first > median, TIMES * low, low)[:, None]
    removed[:, 0] = False
    return removed


def task_of(name: str, pattern: str, data: Path, seed: int) -> Task:
    """Return a table from which cells are removed."""
    train, test = load(name, data, seed)
    firsts = [np.asarray(rows)[:, 0].astype(float) for rows in (train, test)]
    rng, median = np.random.default_rng(seed), float(np.median(firsts[0]))
    gaps = [gaps_of(rng, rows.shape, pattern, first, median) for rows, first in zip((train, test), firsts, strict=True)]
    train = with_gaps(train, gaps[0])
    return Task(train, test, gaps[1], Columns(train, missing="ignore"))


def liouville(task: Task, seed: int, params: dict) -> tuple[np.ndarray, np.ndarray, str]:
    """Our default; as the rivals do, it returns log-probabilities, draws and settings."""
    density = FlowDensity(missing="ignore", random_state=seed, **params).fit(task.train)
    flow, rows = density.flow_, task.table.rows(task.test)
    frame = flow.frame
    assert isinstance(frame, MixedFrame)
    # Each row is asked for its own columns, which log_prob does of columns that are the same in all.
    asked, change = frame.encode(np.where(task.removed, rows, np.nan))
    of_asked = task.removed[:, list(frame.owners)]
    given = np.where(of_asked, np.nan, frame.encode(rows)[0])
    log_prob = evaluation.score(flow.core, np.where(of_asked, asked, np.nan), given)[0] + change
    tables = density.impute(task.gappy, num_draws=DRAWS, random_state=seed + 1)
    facts = density.facts_
    steps = f"best after {facts['best_step']:,} of {facts['steps']:,} steps"
    said = f"{facts['preprocess']}, {steps}, {facts['seconds']:.0f} s"
    return log_prob, np.stack([task.table.rows(drawn) for drawn in tables]), said


RIVALS = {
    "Gaussian mixture": gaps_rivals.mixture,
    "iterative imputer": gaps_rivals.iterative_imputer,
    "random forests": gaps_rivals.forest,
    "independent columns": gaps_rivals.independent,
}
METHODS = ("liouville", *RIVALS)


def measure(name: str, task: Task, arguments: argparse.Namespace) -> dict:
    """Return what one method says of each cell that was removed."""
    columns, rows = task.table.columns, task.table.rows(task.test)
    start = time.perf_counter()
    if name == "liouville":
        params = {} if arguments.max_iter is None else {"max_iter": arguments.max_iter}
        log_prob, drawn, said = liouville(task, arguments.seed, params)
    else:
        is_forest = name == "random forests"
        more, draws = ({"python": arguments.mice}, DRAWS_OF_FORESTS) if is_forest else ({}, DRAWS)
        asked = columns, task.table.rows(task.train), rows, task.removed, draws, arguments.seed
        with threadpool_limits(1):
            log_prob, drawn, said = RIVALS[name](*asked, **more)
    seconds = time.perf_counter() - start
    run = {"method": name, "settings": said, "seconds": seconds, "draws": len(drawn), "log_prob": log_prob}
    return run | judged(task, rows, drawn)


def judged(task: Task, rows: np.ndarray, drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Return for each cell CRPS and whether a 90 % interval covers it; NaN where it was not removed or has levels.

    An interval covers a cell whose rank among the draws, ties broken at random, is neither of the lowest nor of the
    highest twentieth: that has probability 0.9 where cell and draws are alike, of whole numbers as well. "levels" is
    the CRPS by the distance that is 0 or 1.
    """
    is_code = np.array([column.kind == "code" for column in task.table.columns])
    is_number, is_level = task.removed & ~is_code, task.removed & is_code
    spread = np.nanstd(task.table.rows(task.train), axis=0)
    fill = lambda where, values: np.where(where, values, np.nan)
    rng, num = np.random.default_rng(0), len(drawn)
    below, same = (drawn < rows).sum(0), (drawn == rows).sum(0)
    rank = (below + rng.integers(0, same + 1) + rng.random(rows.shape)) / (num + 1)
    shares = [(drawn == level).sum(0) for level in range(max((c.levels for c in task.table.columns), default=0))]
    unlike = 1 - sum(share * (share - 1.0) for share in shares) / (num * (num - 1))
    return {
        "crps": fill(is_number, crps(drawn, rows) / spread),
        "covered": fill(is_number, (rank >= 0.05) & (rank <= 0.95)),
        "levels": fill(is_level, 1 - same / num - unlike / 2),
    }


def crps(drawn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the CRPS of the law that draws are of, without bias: that of the draws alone would be too high."""
    num = len(drawn)
    rank = np.arange(1, num + 1).reshape(-1, *[1] * truth.ndim)
    apart = 2 * np.sum((2 * rank - num - 1) * np.sort(drawn, axis=0), axis=0) / (num * (num - 1))
    return np.mean(np.abs(drawn - truth), axis=0) - apart / 2


def per_cell(values: np.ndarray, cells: np.ndarray) -> list[float]:
    """Return a mean over cells and its standard error, from sums over rows, which are independent of each other."""
    mean = values.sum() / cells.sum()
    rest = values - mean * cells
    return [float(mean), float(np.sqrt(np.sum(rest**2) * len(rest) / max(len(rest) - 1, 1)) / cells.sum())]


def summary(task: Task, runs: list[dict]) -> dict:
    """Return means over cells, and differences to liouville, row by row."""
    ours = next((run for run in runs if run["method"] == "liouville"), None)
    scored = [run["log_prob"] for run in runs if run["log_prob"] is not None]
    are_finite = np.all(np.isfinite(scored), axis=0) if scored else np.ones(len(task.removed), bool)
    cells = task.removed.sum(1)
    names = [str(field.name) for field in task.table.fields]
    found = []
    for run in runs:
        one = {key: run[key] for key in ("method", "settings", "seconds", "draws")}
        if run["log_prob"] is not None:
            log_prob, kept = run["log_prob"][are_finite], cells[are_finite]
            one |= {"log_prob": per_cell(log_prob, kept), "failed": int((~np.isfinite(run["log_prob"])).sum())}
            if ours is not None:
                one["log_prob_more"] = per_cell(log_prob - ours["log_prob"][are_finite], kept)
        for key in ("crps", "covered", "levels"):
            values = run[key]
            asked = ~np.isnan(values)
            if not asked.any():
                continue
            one[key] = per_cell(np.nansum(values, axis=1), asked.sum(1))
            one[f"{key}_by_column"] = {
                name: per_cell(np.nan_to_num(column), there)
                for name, column, there in zip(names, values.T, asked.T, strict=True)
                if there.any()
            }
            if ours is not None and key != "covered":
                one[f"{key}_more"] = per_cell(np.nansum(values - ours[key], axis=1), asked.sum(1))
        found.append(one)
    return {"runs": found, "left_out": int((~are_finite).sum())}


def compare(name: str, pattern: str, arguments: argparse.Namespace) -> dict:
    """Measure all methods on one table with gaps of one kind."""
    task, runs = task_of(name, pattern, arguments.data, arguments.seed), []
    for method in arguments.methods:
        print(f"{name}, {pattern}: {method}", flush=True)
        try:
            runs.append(measure(method, task, arguments))
        except ImportError as error:
            print(f"  passed over: {error}", flush=True)
        except Exception as error:  # what fails on one table is said, and the others are measured
            print(f"  failed: {type(error).__name__}: {error}", flush=True)
    kinds = [column.kind for column in task.table.columns]
    return {
        "table": name,
        "pattern": pattern,
        "train": len(task.train),
        "test": len(task.test),
        "cells": int(task.removed.sum()),
        "share": float(task.removed.mean()),
        "columns": {kind: kinds.count(kind) for kind in ("code", "whole", "continuous")},
        **summary(task, runs),
    }


def main() -> None:
    """Measure, print the tables, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--patterns", nargs="+", choices=PATTERNS, default=PATTERNS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--data", type=Path, default=FOLDER.parent.parent / "shared/data", help="folder of the tables")
    parser.add_argument("--mice", type=Path, help="Python of an environment with miceforest")
    parser.add_argument("--max-iter", type=int, help="steps of liouville, at most, to try it out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "gaps.json", help="file of the figures, as JSON")
    arguments = parser.parse_args()
    found = {"machine": machine(), "seed": arguments.seed, "max_iter": arguments.max_iter, "tables": []}
    for name in arguments.tables:
        for pattern in arguments.patterns:
            with warnings.catch_warnings():
                # Trees and levels warn of what is rare; solves that failed are counted.
                warnings.simplefilter("ignore")
                found["tables"].append(compare(name, pattern, arguments))
            print("\n".join(sections.gaps_table(found["tables"][-1])), flush=True)
            write(arguments.output, found)


if __name__ == "__main__":
    main()

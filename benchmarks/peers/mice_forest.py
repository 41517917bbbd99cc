"""Draws of missing cells by miceforest: called as ASKED.npz DRAWN.npz, with training rows, test rows and their gaps.

It needs ``pip install miceforest "lightgbm<4.6"`` in an environment of its own, and nothing else of this folder.
"""

import sys
from importlib.metadata import version

import miceforest
import numpy as np
import pandas as pd

DATASETS, ITERATIONS = 5, 5
_put = miceforest.ImputedData.__setitem__


def put(self, key, values) -> None:
    """Put values of a round, and count it.

    Of new data miceforest 6.0.5 counts no rounds: each would see the random values of the first, and these be returned.
    """
    _put(self, key, values)
    variable, iteration, dataset = key
    if not isinstance(self, miceforest.ImputationKernel):
        self.iteration_tab[variable, dataset] = iteration


miceforest.ImputedData.__setitem__ = put


def frame_of(rows: np.ndarray, is_code: np.ndarray, levels: list[np.ndarray]) -> pd.DataFrame:
    """Return rows as a frame whose codes are categories."""
    frame = pd.DataFrame(rows, columns=[f"x{j}" for j in range(rows.shape[1])])
    for j in np.flatnonzero(is_code):
        frame[f"x{j}"] = pd.Categorical(frame[f"x{j}"], categories=levels[j])
    return frame


def main() -> None:
    """Fit several chains, and draw the test rows' gaps by each of them as often as it takes."""
    with np.load(sys.argv[1]) as found:
        train, test, is_code = found["train"], found["test"], found["is_code"]
        num_draws, seed = int(found["num_draws"]), int(found["seed"])
    levels = [np.unique(column[~np.isnan(column)]) for column in train.T]
    # Levels by their probabilities: matching by log-odds stops where trees are sure of one.
    strategy = {f"x{j}": "fast" for j in np.flatnonzero(is_code) if np.isnan(train[:, j]).any()}
    asked = {"num_datasets": DATASETS, "random_state": seed, "mean_match_strategy": strategy or "normal"}
    kernel = miceforest.ImputationKernel(frame_of(train, is_code, levels), **asked)
    kernel.mice(ITERATIONS, num_threads=1)
    drawn = []
    for repeat in range(num_draws // DATASETS):
        new = kernel.impute_new_data(frame_of(test, is_code, levels), random_state=seed + repeat)
        drawn += [new.complete_data(dataset).astype(float).to_numpy() for dataset in range(DATASETS)]
    said = f"miceforest {version('miceforest')}, {DATASETS} chains, {ITERATIONS} rounds, mean matching"
    np.savez(sys.argv[2], drawn=np.stack(drawn), said=said)


if __name__ == "__main__":
    main()

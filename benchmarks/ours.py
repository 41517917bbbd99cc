"""FlowDensity on one data set, by the peers' protocol: called as their scripts are, with one more choice of time."""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from liouville import FlowDensity

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from common import main

MANY_COLUMNS = 24


def method_of(limited: bool):
    """Return the method: the default as it is, or with a limit of time. It makes its own validation split."""

    def method(train, validation, clock, seed):
        limit = clock.seconds if limited else None
        density = FlowDensity(random_state=seed, max_seconds=limit)
        density.fit(np.concatenate([train, validation]))
        facts, history = density.facts_, density.history_
        # The race's time is not in the winner's history: it is added, so that the clock starts with the fit.
        late = facts["seconds"] - history["seconds"][-1]
        looks = zip(history["seconds"], history["nll"], strict=True)
        curve = [[seconds + late, nll] for seconds, nll in looks if np.isfinite(nll)]
        settings = f"FlowDensity({f'max_seconds={limit:g}' if limited else ''}): {facts['preprocess']}"
        # Adaptive steps would take a quarter of an hour for 25,000 rows of 63 columns.
        error = 1e-2 if facts["columns"] >= MANY_COLUMNS else None
        settings += "" if error is None else f"; scored at an error of {error:g} nats"
        return partial(density.score_samples, error=error), curve, settings

    return method


if __name__ == "__main__":
    main({"liouville": method_of(False), "liouville, equal time": method_of(True)}, ("liouville", "jax"))

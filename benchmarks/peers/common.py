"""What all methods are measured by: one clock, one protocol, one file of results. NumPy alone.

Usage of each script beside this one: SCRIPT METHOD DATA.npz RESULT.json --seconds S --seed K
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

# Shares of the time at which a method in training is looked at: early ones for the curve, late ones for the choice.
LOOKS = (0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Clock:
    """Seconds of training, compilation included; it stands still while a method is looked at."""

    def __init__(self, seconds: float):
        self.seconds, self.start, self.paused = seconds, time.perf_counter(), 0.0

    def now(self) -> float:
        """Return the seconds spent."""
        return time.perf_counter() - self.start - self.paused


class Looks:
    """Watches a method learn: at certain times it validates, and keeps the best state.

    Parameters
    ----------
    validate
        Returns the log-densities of the validation rows.
    keep
        Returns a copy of the method's state.
    """

    def __init__(self, clock: Clock, validate: Callable[[], np.ndarray], keep: Callable[[], object]):
        self.clock, self.validate, self.keep = clock, validate, keep
        self.curve, self.best, self.state = [], np.inf, keep()
        self.due = [share * clock.seconds for share in LOOKS]

    def go_on(self) -> bool:
        """Look, where it is time to; return True until the time is up."""
        now = self.clock.now()
        if now < self.due[0]:
            return True
        while self.due and now >= self.due[0]:
            self.due.pop(0)
        before = time.perf_counter()
        nll = -float(np.mean(self.validate()))
        if nll < self.best:
            self.best, self.state = nll, self.keep()
        self.curve.append([now, nll])
        self.clock.paused += time.perf_counter() - before
        return bool(self.due)


class Standardizer:
    """Centres and scales columns, as every method here is given them."""

    def __init__(self, rows: np.ndarray):
        self.loc, self.scale = rows.mean(0), rows.std(0)
        self.log_det = -np.log(self.scale).sum()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return standardized rows, in float64."""
        return (rows - self.loc) / self.scale


def parser_of(methods: dict[str, Callable]) -> argparse.ArgumentParser:
    """Return what reads a command line: METHOD DATA.npz RESULT.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=methods)
    parser.add_argument("data", type=Path)
    parser.add_argument("result", type=Path)
    return parser


def asked_for(methods: dict[str, Callable]) -> argparse.Namespace:
    """Read the command line: METHOD DATA.npz RESULT.json --seconds S --seed K."""
    parser = parser_of(methods)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_args()


def main(methods: dict[str, Callable], packages: tuple[str, ...]) -> None:
    """Run one method on one data set, and write what it reached.

    A method is called with standardized rows for training and validation, a clock and a seed. It returns a function
    that maps standardized rows to log-densities, its curve, and a text of its settings.
    """
    arguments = asked_for(methods)
    with np.load(arguments.data) as found:
        parts = {key: found[key] for key in ("train", "validation", "test")}
        truth = float(found["truth"]) if "truth" in found else None
    clock = Clock(arguments.seconds)
    units = Standardizer(parts["train"])
    train, validation = units(parts["train"]), units(parts["validation"])
    log_prob, curve, settings = methods[arguments.method](train, validation, clock, arguments.seed)
    seconds, before = clock.now(), time.perf_counter()
    values = np.asarray(log_prob(units(parts["test"])), np.float64) + units.log_det
    write(
        arguments.result,
        {
            "target": arguments.data.stem,
            "truth": truth,
            "method": arguments.method,
            "seed": arguments.seed,
            "budget": arguments.seconds,
            "machine": machine(),
            "settings": settings,
            "versions": {name: version(name) for name in packages},
            "seconds": seconds,
            "curve": [[time, nll - units.log_det] for time, nll in curve],
            **summary(values),
            "score_seconds": time.perf_counter() - before,
        },
    )


def machine() -> str:
    """Return what the figures are measured on, and how many of its cores this process may use."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} core{'s' * (cores != 1)}, {model}"


def summary(log_prob: np.ndarray) -> dict:
    """Return the NLL, its standard error, and the number of rows that have none."""
    finite = np.isfinite(log_prob)
    known = log_prob[finite]
    return {
        "nll": -float(known.mean()),
        "std_error": float(known.std() / np.sqrt(len(known))),
        "failed": int((~finite).sum()),
        "rows": len(log_prob),
    }


def write(path: Path, found: dict) -> None:
    """Write results, under a temporary name first."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(found, indent=1))
    os.replace(temporary, path)


def main_of_steps(methods: dict[str, Callable], packages: tuple[str, ...]) -> None:
    """Time one method's step of maximum likelihood; called as METHOD DATA.npz RESULT.json.

    A method is called with layers (weight and bias), rows and a tolerance, and returns a function that does the step
    and returns the NLL, the gradient as a vector, and the evaluations of the field.
    """
    arguments = parser_of(methods).parse_args()
    with np.load(arguments.data) as found:
        layers = [(found[f"weight{i}"], found[f"bias{i}"]) for i in range(int(found["layers"]))]
        rows, tolerance, repeats = found["rows"], float(found["tolerance"]), int(found["repeats"])
    start = time.perf_counter()
    step = methods[arguments.method](layers, rows, tolerance)
    nll, gradient, evaluations = step()
    first, seconds = time.perf_counter() - start, []
    for _ in range(repeats):
        before = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - before)
    write(
        arguments.result,
        {
            "method": arguments.method,
            "versions": {name: version(name) for name in packages},
            "machine": machine(),
            "rows": list(rows.shape),
            "tolerance": tolerance,
            "first_seconds": first,
            "seconds": seconds,
            "nll": nll,
            "gradient": gradient.tolist(),
            "evaluations": evaluations,
        },
    )


ROWS_TIMED, ROWS_COMPARED, SLOW_SECONDS = 10_000, 256, 5.0
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def main_of_solvers(methods: dict[str, Callable], packages: tuple[str, ...]) -> None:
    """Time scoring and sampling of one method's fit at several settings; called as METHOD DATA.npz RESULT.json.

    A method is called with standardized rows for training and validation, a clock and a seed. It returns settings by
    name, and two functions of a setting. One scores rows: their log-densities and evaluations of the field per row. The
    other draws points from noise of its own, always the same: the points and the evaluations. The setting None is tight
    beyond doubt.
    """
    arguments = asked_for(methods)
    with np.load(arguments.data) as found:
        parts = {key: found[key] for key in ("train", "validation", "test")}
    units = Standardizer(parts["train"])
    clock = Clock(arguments.seconds)
    settings, score, draw = methods[arguments.method](
        units(parts["train"]), units(parts["validation"]), clock, arguments.seed
    )
    test = units(parts["test"])
    rows = np.resize(test, (ROWS_TIMED, test.shape[1]))
    some = rows[:ROWS_COMPARED]
    truth, points = score(some, None)[0], draw(ROWS_COMPARED, None)[0]
    at_points = score(points, None)[0]
    runs = []
    for name, setting in settings.items():
        values, evaluations = score(some, setting)
        drawn, draws = draw(ROWS_COMPARED, setting)
        runs.append(
            {
                "setting": name,
                "score_error": float(np.mean(np.abs(values - truth))),
                "score_evaluations": float(np.mean(evaluations)),
                "score_rows_per_second": ROWS_TIMED / seconds_of(lambda: score(rows, setting)),  # noqa: B023
                "sample_error": float(np.mean(np.abs(score(drawn, None)[0] - at_points))),
                "sample_shift": float(np.mean(np.abs(drawn - points))),
                "sample_evaluations": float(np.mean(draws)),
                "sample_rows_per_second": ROWS_TIMED / seconds_of(lambda: draw(ROWS_TIMED, setting)),  # noqa: B023
            }
        )
    write(
        arguments.result,
        {
            "target": arguments.data.stem,
            "method": arguments.method,
            "machine": machine(),
            "versions": {name: version(name) for name in packages},
            "nll": float(-np.mean(truth)),
            "runs": runs,
        },
    )


def seconds_of(call: Callable, repeats: int = 3) -> float:
    """Return the median time of a call, after a first one; of that one, where it takes long."""
    before = time.perf_counter()
    call()
    spent = [time.perf_counter() - before]
    if spent[0] > SLOW_SECONDS:
        return spent[0]
    spent = []
    for _ in range(repeats):
        before = time.perf_counter()
        call()
        spent.append(time.perf_counter() - before)
    return float(np.median(spent))

"""How time and memory grow: with rows, columns, width and batch; fitted exponents.

Usage: python benchmarks/growth.py [--most-rows N]
Times are medians of repeats. Memory of a step is what XLA sets aside for it beside its arguments; memory of a table's
fit and scoring is the peak of a process of its own. The exponent of each is the slope between the logarithms over the
upper half of the sizes, where fixed costs no longer hide it.
"""

import argparse
import resource
import subprocess
import sys
import time

import equinox as eqx
import jax
import numpy as np
from run import FOLDER, keep

from liouville._types import partition
from liouville.divergences import Exact, Hutchinson
from liouville.flows import FlowSpec
from liouville.integrate import Integrator
from liouville.objectives import Batch, FlowMatching, MaximumLikelihood, TrainedWith

sys.path.insert(0, str(FOLDER / "peers"))
from common import machine, seconds_of

ROWS = (1000, 10_000, 100_000, 1_000_000, 10_000_000)
SIZES = {
    "columns": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "width": (16, 32, 64, 128, 256, 512),
    "batch": (64, 128, 256, 512, 1024, 2048, 4096),
}
AT = {"columns": 4, "width": 64, "batch": 256}
STEPS = Integrator.constant(4)
OBJECTIVES = {
    "step of flow matching": FlowMatching(),
    "step of likelihood, exact": TrainedWith(MaximumLikelihood(), Exact(), STEPS),
    "step of likelihood, Hutchinson": TrainedWith(MaximumLikelihood(), Hutchinson(), STEPS),
}
# What nothing may grow faster than, by the axis and the task; all else is linear.
LIMITS = {
    ("columns", "step of likelihood, exact"): 2.0,
    ("columns", "scoring, exact"): 2.0,
    "width": 2.0,
}


def tasks(columns: int, width: int, batch: int) -> dict:
    """Return compiled functions of no arguments, by name, and the bytes that each sets aside."""
    recipe = FlowSpec(columns, width=width, depth=2)
    flow, rows = recipe(jax.random.key(0)), jax.random.normal(jax.random.key(1), (batch, columns))
    params, static = partition(flow)
    found = {}

    def add(name: str, function, *arguments) -> None:
        compiled = jax.jit(function).lower(*arguments).compile()
        memory = compiled.memory_analysis().temp_size_in_bytes
        found[name] = (lambda: jax.block_until_ready(compiled(*arguments)), memory)

    for name, objective in OBJECTIVES.items():

        def loss(params, x, objective=objective):
            return objective(eqx.combine(params, static), Batch(x), key=jax.random.key(2))[0]

        add(name, jax.value_and_grad(loss), params, rows)
    for name, divergence in (("exact", Exact()), ("Hutchinson", Hutchinson())):

        def score(params, x, divergence=divergence):
            flow = eqx.combine(params, static)
            where = lambda f: (f.bijection.divergence, f.bijection.integrator)
            flow = eqx.tree_at(where, flow, (divergence, STEPS))
            return flow.log_prob(x, key=jax.random.key(3))

        add(f"scoring, {name}", score, params, rows)
    return found


def exponent(sizes, values) -> float:
    """Return the slope between logarithms over the upper half of the sizes."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


def of_axis(axis: str) -> list[dict]:
    """Measure every task along one axis, the others at `AT`."""
    found = {}
    for size in SIZES[axis]:
        for name, (call, memory) in tasks(**{**AT, axis: size}).items():
            once = seconds_of(call, 1)
            seconds = seconds_of(call, 3 if once > 1 else 20)
            found.setdefault(name, []).append((size, seconds, memory))
    return [summary(axis, name, *map(list, zip(*points, strict=True))) for name, points in found.items()]


def summary(axis: str, name: str, sizes: list, seconds: list, memory: list) -> dict:
    """Return one line of the table."""
    limit = LIMITS.get((axis, name), LIMITS.get(axis, 1.0))
    exponents = {"seconds": exponent(sizes, seconds), "memory": exponent(sizes, np.maximum(memory, 1))}
    return {
        "axis": axis,
        "task": name,
        "sizes": list(sizes),
        "seconds": list(seconds),
        "memory": [int(m) for m in memory],
        "exponents": exponents,
        "limit": limit,
    }


def of_rows(most: int) -> list[dict]:
    """Fit and score tables of more and more rows, each in a process of its own."""
    sizes, fits, scores, memory = [n for n in ROWS if n <= most], [], [], []
    for num in sizes:
        run = subprocess.run(
            [sys.executable, __file__, "--table", str(num)], capture_output=True, text=True, check=True
        )
        fit, score, peak = map(float, run.stdout.split())
        fits.append(fit)
        scores.append(score)
        memory.append(peak)
    # What a process needs before there is a table is no growth.
    memory = [peak - 0.99 * memory[0] for peak in memory]
    return [
        summary("rows", "fit of 100 steps", sizes, fits, memory),
        summary("rows", "score_samples, error 1e-2", sizes, scores, memory),
    ]


def one_table(num: int) -> None:
    """Fit and score one table; print the seconds of both, and the peak of memory in bytes."""
    from liouville import FlowDensity

    rows = np.random.default_rng(0).normal(size=(num, 2))
    start = time.perf_counter()
    density = FlowDensity(max_iter=100, width=16, depth=1, preprocess="standardize", random_state=0).fit(rows)
    fitted = time.perf_counter()
    density.score_samples(rows[:10], error=1e-2)
    warm = time.perf_counter()
    density.score_samples(rows, error=1e-2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(fitted - start, time.perf_counter() - warm, peak)


def main() -> None:
    """Measure all axes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most-rows", type=int, default=ROWS[-1])
    parser.add_argument("--table", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.table:
        one_table(arguments.table)
        return
    found = of_rows(arguments.most_rows)
    for axis in SIZES:
        found += of_axis(axis)
    keep("growth", {"machine": machine(), "lines": found, "at": AT})


if __name__ == "__main__":
    main()

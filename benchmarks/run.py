"""Measure all methods on all targets, one process after the other, on the machine at hand.

Usage: python benchmarks/run.py [--quick] [--targets NAME ...] [--methods NAME ...] [--seeds K ...] [--seconds S]
What is there already is not measured again; --again does. Afterwards the tables and plots are made anew.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import report
import sections
import targets

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from common import machine, write

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PEERS = FOLDER.parent / ".venv-peers" / "bin" / "python"
# Which script runs a method, in which environment; in the tables' order.
SCRIPTS = {
    "liouville": (sys.executable, "ours.py"),
    "liouville, equal time": (sys.executable, "ours.py"),
    "torchdyn CNF": (PEERS, "peers/torch_flows.py"),
    "zuko CNF": (PEERS, "peers/torch_flows.py"),
    "torchcfm": (PEERS, "peers/torch_flows.py"),
    "torchcfm OT": (PEERS, "peers/torch_flows.py"),
    "zuko NSF": (PEERS, "peers/torch_flows.py"),
    "zuko MAF": (PEERS, "peers/torch_flows.py"),
    "FlowJAX spline coupling": (PEERS, "peers/flowjax_flows.py"),
    "FlowJAX spline MAF": (PEERS, "peers/flowjax_flows.py"),
    "FlowJAX BNAF": (PEERS, "peers/flowjax_flows.py"),
    "Gaussian mixture": (PEERS, "peers/mixtures.py"),
    "kernel density": (PEERS, "peers/mixtures.py"),
}
# Couplings need a column to look at while they bend another.
NOT_FOR = {("one_dimension", "FlowJAX spline coupling")}
QUICK_TARGETS, QUICK_SECONDS = ("six_gaussians", "power_plant"), 12.0


def measure(method: str, data: Path, result: Path, seconds: float, seed: int) -> None:
    """Run one method in a process of its own; a failure is said, and leaves no result."""
    python, script = SCRIPTS[method]
    command = [str(python), str(FOLDER / script), method, str(data), str(result)]
    start = time.perf_counter()
    run = subprocess.run(
        [*command, "--seconds", str(seconds), "--seed", str(seed)], capture_output=True, text=True, check=False
    )
    if run.returncode:
        print(f"  failed: {(run.stderr.strip().splitlines() or ['without a word'])[-1]}", flush=True)
    else:
        print(f"  {report.one_line(result)}, {time.perf_counter() - start:.0f} s in all", flush=True)


def elsewhere(folder: Path) -> str | None:
    """Return the machine, if it is another one, that has measured a target: times are compared on one machine only."""
    machines = {json.loads(path.read_text())["machine"] for path in folder.glob("*.json")} - {machine()}
    return min(machines, default=None)


def collect(
    script: str, ours: Iterable[str], others: Iterable[str], data: Path, *options: str, peers: Path = PEERS
) -> list[dict]:
    """Run each method of a script, and of the peers' one of that name, in a process of its own; return the results."""
    found, result = [], data.with_suffix(".json")
    runs = [(sys.executable, FOLDER / script, name) for name in ours]
    runs += [(peers, FOLDER / "peers" / script, name) for name in others]
    for python, path, name in runs:
        run = subprocess.run([str(python), str(path), name, str(data), str(result), *options], text=True, check=False)
        if run.returncode == 0:
            found.append(json.loads(result.read_text()))
    return found


def keep(name: str, found: dict) -> None:
    """Write a script's results to its file, print its section, and make the page anew."""
    RESULTS.mkdir(exist_ok=True)
    write(RESULTS / f"{name}.json", found)
    print("\n".join(sections.of_file(RESULTS / f"{name}.json")))
    report.write(RESULTS / "accuracy", SCRIPTS)


def main() -> None:
    """Measure what is missing, then write tables and plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two targets and little time: under 10 minutes")
    parser.add_argument("--targets", nargs="+", choices=targets.NAMES, default=targets.NAMES)
    parser.add_argument("--methods", nargs="+", choices=SCRIPTS, default=tuple(SCRIPTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=120.0, help="of training, for each method")
    parser.add_argument("--data", type=Path, default=FOLDER.parent.parent / "shared/data/tabular", help="of the tables")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    arguments = parser.parse_args()
    results = RESULTS / "accuracy"
    if arguments.quick:
        arguments.targets, arguments.seeds, arguments.seconds = QUICK_TARGETS, [0], QUICK_SECONDS
        results = RESULTS / "quick"
    for name in arguments.targets:
        if name in targets.TABLES and not (arguments.data / f"{name}.npz").exists():
            print(f"{name}: no file in {arguments.data}; passed over")
            continue
        for seed in arguments.seeds:
            compare(name, seed, arguments, results)
    report.write(results, SCRIPTS)


def compare(name: str, seed: int, arguments: argparse.Namespace, results: Path) -> None:
    """Measure the methods on one target with one seed."""
    other = elsewhere(results / name)
    if other is not None and not arguments.again:
        print(f"{name}: measured on {other}; passed over, unless --again measures it here")
        return
    parts = targets.make(name, seed, arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / f"{name}.npz"
        np.savez(data, **parts)
        for method in arguments.methods:
            result = results / name / f"{method.replace(', ', '-').replace(' ', '-')}-{seed}.json"
            if (name, method) in NOT_FOR or (result.exists() and not arguments.again):
                continue
            result.parent.mkdir(parents=True, exist_ok=True)
            print(f"{name}, seed {seed}: {method}", flush=True)
            measure(method, data, result, arguments.seconds, seed)


if __name__ == "__main__":
    main()

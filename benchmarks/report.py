"""Tables and plots of what was measured: README.md, and NLL against wall-clock for each target."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import sections

FOLDER = Path(__file__).parent
OURS = ("liouville", "liouville, equal time")
HEAD = """# Ahead of every peer? Measured side by side

{made} wrote this page. Test NLL in nats, in the units of the data, lower is better: median of {seeds} seed(s), and
their range. Each method runs alone in a process, one after the other, for {budget:g} s of training, compilation
included; its state is chosen on validation rows, looks at them not counted for the peers; log-densities are exact up to
the solvers' tolerances. `liouville` is `FlowDensity()` as it comes, whose time is its own choice; it gets the training
and the validation rows, and splits them itself. Each target is measured on one machine, which it names.

In this table, "ahead" is how far the default ends below the best of the others (in bold where it does not), "reached"
when its validation first reaches what that one's ends at.

| target | default | seconds | best of the others | its NLL | ahead | reached (s) | from the truth |
|---|---|---|---|---|---|---|---|"""


def load(results: Path) -> dict[str, dict[str, list[dict]]]:
    """Return results by target and method."""
    found = defaultdict(lambda: defaultdict(list))
    for path in sorted(results.glob("*/*.json")):
        run = json.loads(path.read_text())
        found[run["target"]][run["method"]].append(run)
    return found


def one_line(path: Path) -> str:
    """Return one result in a line."""
    run = json.loads(path.read_text())
    return f"NLL {run['nll']:.4f} ({run['std_error']:.4f}) after {run['seconds']:.1f} s, {run['failed']} rows failed"


def seconds_to(run: dict, nll: float) -> float | None:
    """Return when a run's validation first reached an NLL, or None."""
    return next((seconds for seconds, value in run["curve"] if value <= nll), None)


def verdict(target: str, methods: dict[str, list[dict]]) -> str:
    """Return how the default stands against the best peer, in a line of the first table."""
    ours, peers = methods.get(OURS[0]), {name: runs for name, runs in methods.items() if name not in OURS}
    if not ours or not peers:
        return ""
    middle = lambda runs: median(run["nll"] for run in runs)
    best = min(peers, key=lambda name: middle(peers[name]))
    theirs, mine = middle(peers[best]), middle(ours)
    # The curves are of validation rows: so is the NLL that is to be reached.
    goal = median(min(value for _, value in run["curve"]) for run in peers[best])
    reached = [seconds_to(run, goal) for run in ours]
    when = "never" if None in reached else f"{median(reached):.1f}"
    gap = "-" if ours[0]["truth"] is None else f"{median(run['nll'] - run['truth'] for run in ours):.4f}"
    behind = "**" if mine > theirs else ""
    return (
        f"| {target.replace('_', ' ')} | {mine:.4f} | {median(run['seconds'] for run in ours):.0f} | {best} "
        f"| {theirs:.4f} | {behind}{theirs - mine:.4f}{behind} | {when} | {gap} |"
    )


def table(methods: dict[str, list[dict]]) -> list[str]:
    """Return the lines of a target's table, best first."""
    lines = [
        "| method | NLL | from the truth | seconds | rows scored a second | settings |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in sorted(methods.items(), key=lambda item: median(run["nll"] for run in item[1])):
        values = [run["nll"] for run in runs]
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(runs) > 1 else ""
        gap = "-" if runs[0]["truth"] is None else f"{median(run['nll'] - run['truth'] for run in runs):.4f}"
        failed = sum(run["failed"] for run in runs)
        failures = f", {failed} rows failed" if failed else ""
        speed = median(run["rows"] / run["score_seconds"] for run in runs)
        shown = f"**{name}**" if name in OURS else name
        seconds = median(run["seconds"] for run in runs)
        lines.append(
            f"| {shown} | {median(values):.4f}{spread}{failures} | {gap} | {seconds:.0f} | {speed:,.0f} "
            f"| {runs[0]['settings']} |"
        )
    return lines


def missing(methods: dict[str, list[dict]], names: Iterable[str]) -> list[str]:
    """Return a line that names the methods without a result, if there are any."""
    without = [name for name in names if name not in methods]
    return [f"Without a result here: {', '.join(without)}.", ""] if without else []


def draw(target: str, methods: dict[str, list[dict]], path: Path) -> None:
    """Draw validation NLL against wall-clock, one seed's run of each method."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    ends = []
    for name, runs in methods.items():
        curve = runs[0]["curve"]
        ends.append(min(value for _, value in curve))
        style = {"lw": 2.5, "zorder": 3, "color": "black"} if name in OURS else {"lw": 1}
        style["ls"] = "--" if name == OURS[1] else "-"
        axes.plot(*zip(*curve, strict=True), marker="o", ms=3, label=name, **style)
    low, high = min(ends), max(ends) + 0.01
    axes.set(
        xscale="log",
        xlabel="seconds of training, compilation included",
        ylabel="validation NLL (nats)",
        title=target.replace("_", " "),
        ylim=(low - 0.1 * (high - low), high + 0.5 * (high - low)),
    )
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(results: Path, names: Iterable[str]) -> None:
    """Write the page beside the results, and the plots; say which of the methods' names have no result."""
    found = load(results)
    runs = [run for methods in found.values() for these in methods.values() for run in these]
    if not runs:
        return
    seeds = len({run["seed"] for run in runs})
    quick = results.name == "quick"
    made = "`make bench-quick`" if quick else "`make bench`"
    budget = max(run["budget"] for run in runs)
    lines = [HEAD.format(made=made, seeds=seeds, budget=budget)]
    lines += [*filter(None, (verdict(target, methods) for target, methods in found.items())), ""]
    page = results / "README.md" if quick else FOLDER / "README.md"
    for target, methods in found.items():
        picture = results / f"{target}.png"
        draw(target, methods, picture)
        link = os.path.relpath(picture, page.parent)
        lines += [
            f"## {target.replace('_', ' ')}\n",
            f"On {'; '.join(sorted({run['machine'] for runs in methods.values() for run in runs}))}.\n",
            *table(methods),
            "",
            *missing(methods, names),
            f"![{target}]({link})\n",
        ]
    if not quick:
        lines += sections.of_folder(results.parent)
    versions = {name: version for run in runs for name, version in run["versions"].items()}
    lines.append("Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".")
    temporary = page.with_suffix(".part")
    temporary.write_text("\n".join(lines) + "\n")
    os.replace(temporary, page)

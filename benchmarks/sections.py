"""Tables of the page behind those of accuracy: lines of Markdown of what a script has written to a file of results."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

# An error of a log-density, in nats, that is good enough for a comparison of speeds.
MOST = 1e-3
# Of ranks that may be uniform.
LEAST_P = 0.01


def likelihood_step(found: dict) -> list[str]:
    """Return milliseconds, evaluations, NLL, and how far the gradient is from the exact one."""
    peers = [run for run in found["runs"] if not run["method"].startswith("liouville")]
    fastest = min(np.median(run["seconds"]) for run in peers)
    first, train = found["runs"][0], found.get("train", 0)
    rows, columns = first["rows"]
    lines = [
        f"## One step of training by likelihood, {columns} columns{', trained' * (train > 0)}",
        "",
        f"`python benchmarks/likelihood_step.py --columns {columns} --train {train}`, on {first['machine']}: "
        f"forward and backward on {rows:,} rows, one field, after {train} steps of training, dopri5 at "
        f"{first['tolerance']:g} but where constant steps are named, which are liouville's default; exact divergence. "
        "Gradients are compared with that by Diffrax in float64 at 1e-9.",
        "",
        "| method | ms a step | times the fastest peer's | evaluations | first step (s) | NLL | gradient off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in found["runs"]:
        middle = float(np.median(run["seconds"]))
        lines.append(
            f"| {run['method']} | {middle * 1e3:.1f} | {middle / fastest:.2f} | {run['evaluations']:.0f} "
            f"| {run['first_seconds']:.1f} | {run['nll']:.5f} | {run['gradient_off']:.1e} |"
        )
    return lines


def scoring(found: dict) -> list[str]:
    """Return each setting, and for each method the fastest whose error is at most `MOST`."""
    first = found["runs"][0]
    lines = [
        f"## Scoring and drawing: {first['target'].replace('_', ' ')}",
        "",
        f"`python benchmarks/scoring.py`, on {first['machine']}: 10,000 rows timed; errors of 256, against a solve at "
        "1e-9 in float64 (torchcfm's, whose field has kinks, at 1e-7). Settings are errors asked for, or tolerances.",
        "",
        "| method | setting | error (nats) | evaluations | rows scored a second | error of draws (nats) | (sd) "
        "| evaluations | rows drawn a second |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in found["runs"]:
        for at in run["runs"]:
            lines.append(
                f"| {run['method']} | {at['setting']} | {at['score_error']:.1e} | {at['score_evaluations']:.0f} "
                f"| {at['score_rows_per_second']:,.0f} | {at['sample_error']:.1e} | {at['sample_shift']:.1e} "
                f"| {at['sample_evaluations']:.0f} | {at['sample_rows_per_second']:,.0f} |"
            )
    lines += ["", f"Fastest at an error of at most {MOST:g} nats:", ""]
    for run in found["runs"]:
        good = [at for at in run["runs"] if at["score_error"] <= MOST]
        if good:
            best = max(good, key=lambda at: at["score_rows_per_second"])
            lines.append(f"- {run['method']}, {best['setting']}: {best['score_rows_per_second']:,.0f} rows a second")
    return lines


def growth(found: dict) -> list[str]:
    """Return ends of each range, and exponents over its upper half."""
    others = ", ".join(f"{name} {size}" for name, size in found["at"].items())
    lines = [
        "## How it grows",
        "",
        f"`python benchmarks/growth.py`, on {found['machine']}: seconds and bytes at the ends of each range, and "
        f"exponents over its upper half. The other sizes are {others}; likelihood steps and scoring take four RK4 "
        "steps. Rows are two columns at width 16.",
        "",
        "| with | what | from, to | seconds | exponent | bytes | exponent | may be |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ends = lambda values, form: f"{values[0]:{form}} to {values[-1]:{form}}"
    for line in found["lines"]:
        lines.append(
            f"| {line['axis']} | {line['task']} | {ends(line['sizes'], ',')} | {ends(line['seconds'], '.2g')} "
            f"| {line['exponents']['seconds']:.2f} | {ends(line['memory'], '.2g')} "
            f"| {line['exponents']['memory']:.2f} | {line['limit']:.0f} |"
        )
    return lines


def roofline(found: dict) -> list[str]:
    """Return each program's rates, and the share of the roof above it."""
    lines = [
        "## Where the roof is",
        "",
        f"`python benchmarks/roofline.py`, on {found['machine']}. Ceilings are measured; XLA counts the bytes as if "
        "nothing stayed in registers.",
    ]
    for name, part in found.items():
        if name != "machine":
            lines += ["", *roof(name, part["ceilings"], part["programs"])]
    return lines


def roof(name: str, tops: dict, programs: list[dict]) -> list[str]:
    """Return the table of one size."""
    lines = [
        f"{name.capitalize()}: " + ", ".join(f"{top} {rate / 1e9:,.0f} G/s" for top, rate in tops.items()) + ".",
        "",
        "| what | ms | Mflop | MB | Gflop/s | flop per byte | share of the roof |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in programs:
        intensity, rate = run["operations"] / run["bytes"], run["operations"] / run["seconds"]
        highest = min(tops["large product"], intensity * tops["cache"])
        mega = {count: f"{run[count] / 1e6:,.1f}" for count in ("operations", "bytes")}
        lines.append(
            f"| {run['name']} | {run['seconds'] * 1e3:.2f} | {mega['operations']} | {mega['bytes']} "
            f"| {rate / 1e9:.0f} | {intensity:.1f} | {rate / highest:.0%} |"
        )
    return lines


def mixed_tables(found: dict) -> list[str]:
    """Return the tables of all tables."""
    lines = [
        "## Mixed tables",
        "",
        f"`python benchmarks/mixed_tables.py`, on {found['machine']}: mean log-probability of held-out rows in nats, "
        "higher is better, of masses and densities alike; how much more it is than liouville's, row by row; and how "
        "well trees tell draws from held-out rows, where 0.5 is not at all. Seconds are of fitting, scoring and "
        "drawing. The forest's settings are those that do best on the test rows, liouville's are its defaults.",
    ]
    return lines + [line for table in found["tables"] for line in ["", *mixed_table(table)]]


def mixed_table(found: dict) -> list[str]:
    """Return the lines of one table."""
    kinds = found["columns"]
    left = f"; {found['left_out']} test rows without a probability left out" if found["left_out"] else ""
    lines = [
        f"### {found['table']}",
        "",
        f"{found['train']:,} rows to train on, {found['test']:,} to test on{left}. Columns: {kinds['code']} of levels, "
        f"{kinds['whole']} of whole numbers, {kinds['continuous']} continuous; {found['atoms']} have atoms.",
        "",
        "| method | log-probability | more than liouville | told apart | seconds | settings |",
        "|---|---|---|---|---|---|",
    ]
    for run in found["runs"]:
        is_told = run["method"] != "liouville" and "more" in run
        more = f"{run['more']:+.3f} ± {run['more_error']:.3f}" if is_told else "-"
        failed = f", {run['failed']} rows failed" if run["failed"] else ""
        lines.append(
            f"| {run['method']} | {run['mean']:.3f} ± {run['std_error']:.3f}{failed} | {more} | {run['auc']:.3f} "
            f"| {run['seconds']:.0f} | {run['settings']} |"
        )
    return lines


def gaps(found: dict) -> list[str]:
    """Return the tables of missing cells, and where liouville is behind or its intervals are off."""
    lines = [
        "## Missing cells",
        "",
        f"`python benchmarks/gaps.py --mice PYTHON`, on {found['machine']}, where PYTHON has miceforest: 30 % of the "
        "cells are removed, of rows to train on and of others to test on, either at random or by a rule: from all "
        "columns but the first, and four times as often where that one is above its median. Log-probabilities are of "
        "a row's removed cells given the others, in nats for each of them, higher is better, of masses and densities "
        "alike; what the imputers draw has none. CRPS is that of cells of numbers, in standard deviations of their "
        "columns, that of levels by the distance that is 0 or 1, lower is better; both are estimated from draws "
        "without bias. The last share is of those cells of numbers that are in 90 % intervals of the draws, by their "
        "ranks among them, ties broken at random. Standard errors take rows for independent. In brackets: how much "
        "more a method has than liouville, row by row. Seconds are of fitting, scoring and drawing, on cores that "
        "others used as well. The mixture is of Gaussians over all numbers times shares of levels, fitted by EM to "
        "the cells that there are; the mass of its whole numbers is the mean density of 64 points in their cells.",
        "",
        *gaps_verdict(found["tables"]),
    ]
    return lines + [line for table in found["tables"] for line in ["", *gaps_table(table)]]


def gaps_verdict(tables: list[dict]) -> list[str]:
    """Return in words where liouville is behind by two standard errors and more, and its intervals are off by three."""
    behind, off = {"log_prob": [], "crps": [], "levels": []}, []
    for table in tables:
        where = f"{table['table']} ({table['pattern']})"
        for run in table["runs"]:
            if run["method"] == "liouville":
                shares = {"all": run["covered"], **run["covered_by_column"]}
                wrong = [f"{key} {100 * x:.1f} %" for key, (x, error) in shares.items() if abs(x - 0.9) > 3 * error]
                off += [f"{where} {', '.join(wrong)}"] if wrong else []
                continue
            for key, found in behind.items():
                more, error = run.get(f"{key}_more", (0.0, 0.0))
                found += [f"{run['method']} on {where}"] if (more if key == "log_prob" else -more) > 2 * error else []
    names = {"log_prob": "log-probability", "crps": "CRPS of numbers", "levels": "CRPS of levels"}
    said = [f"by {names[key]} {', '.join(found) or 'none'}" for key, found in behind.items()]
    return [
        f"Ahead of liouville by more than two standard errors: {'; '.join(said)}.",
        "",
        f"Where liouville's intervals are off 90 % by more than three standard errors, by table and column: "
        f"{'; '.join(off) or 'nowhere'}.",
    ]


def gaps_table(found: dict) -> list[str]:
    """Return the lines of one table with gaps of one kind."""
    kinds = found["columns"]
    left = f"; {found['left_out']} test rows without a probability left out of it" if found["left_out"] else ""
    lines = [
        f"### {found['table']}, {found['pattern']}",
        "",
        f"{found['train']:,} rows to train on, {found['test']:,} to test on, of which {found['cells']:,} cells are "
        f"removed{left}. Columns: {kinds['code']} of levels, {kinds['whole']} of whole numbers, {kinds['continuous']} "
        "continuous.",
        "",
        "| method | log-probability | CRPS | of levels | in 90 % intervals | draws | seconds | settings |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in found["runs"]:
        said = [beside(run, key, digits) for key, digits in (("log_prob", 3), ("crps", 4), ("levels", 4))]
        failed = f", {run['failed']} rows failed" if run.get("failed") else ""
        covered = f"{100 * run['covered'][0]:.1f} ± {100 * run['covered'][1]:.1f} %"
        lines.append(
            f"| {run['method']} | {said[0]}{failed} | {said[1]} | {said[2]} | {covered} | {run['draws']} "
            f"| {run['seconds']:.0f} | {run['settings']} |"
        )
    return lines


def beside(run: dict, key: str, digits: int) -> str:
    """Return a method's mean with its standard error, and in brackets how much more it is than liouville's."""
    mean, more = run.get(key), run.get(f"{key}_more")
    text = "-" if mean is None else f"{mean[0]:.{digits}f} ± {mean[1]:.{digits}f}"
    if mean and more and run["method"] != "liouville":
        text += f" ({more[0]:+.{digits}f} ± {more[1]:.{digits}f})"
    return text


def regression(found: dict) -> list[str]:
    """Return the tables of all data sets with splits."""
    runs = [run for table in found.values() for splits in table["runs"].values() for run in splits.values()]
    machines = "; ".join(sorted({run["machine"] for run in runs}))
    versions = {name: version for run in runs for name, version in run["versions"].items()}
    lines = [
        "## Targets given rows",
        "",
        f"`python benchmarks/regression.py --data FOLDER`, on {machines}: means over splits of data sets in FOLDER, "
        "with standard errors that take splits for independent; in brackets how much more a method has than liouville, "
        "split by split. NLL is in nats in the units of the target, CRPS in its units; both are better lower. The next "
        "share is of test rows in central 90 % intervals. Then in how many splits the ranks that test rows have in "
        "their laws (the probability integral transform) may be uniform, at 1 %, by Kolmogorov and Smirnov (KS) and by "
        "Anderson and Darling (AD), which weighs the tails. A number with a mass has any rank within it, drawn at "
        "random; of such, intervals hold the middle nine tenths of ranks. Seconds are of fitting and of all scores, "
        "compilation included. `liouville` is `ConditionalFlowDensity()` as it comes. A quantile forest has no "
        "density; a Gaussian process is fitted to no more than 2,000 rows.",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".",
    ]
    return lines + [line for name, table in found.items() for line in ["", *regression_table(name, table)]]


def regression_table(name: str, table: dict) -> list[str]:
    """Return the lines of one data set with splits."""
    said = f"{table['train']:,} rows to train on, {table['test']:,} to test on, {table['columns']} columns."
    if table["step"]:
        said += (
            f" Targets lie on a grid of {table['step']:g}: by all methods NLL is that of the mass of a number's cell, "
            "over which densities are integrated, and CRPS that of laws that are rounded to the grid."
        )
    if table["atoms"]:
        said += (
            f" {table['atoms']:,} of all targets are values that many rows share: liouville's NLL is of their masses, "
            "that of the others of densities as elsewhere."
        )
    lines = [
        f"### {name.replace('_', ' ')}",
        "",
        said,
        "",
        "| method | splits | NLL | CRPS | in 90 % intervals | KS | AD | seconds | settings |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in over_splits(table["runs"]):
        passed = [f"{run[key]} of {run['splits']}" for key in ("kolmogorov_smirnov", "anderson_darling")]
        failed = f", {run['failed']} rows failed" if run["failed"] else ""
        covered = f"{100 * run['covered'][0]:.1f} ± {100 * run['covered'][1]:.1f} %"
        lines.append(
            f"| {run['method']} | {run['splits']} | {beside(run, 'nll', 3)}{failed} | {beside(run, 'crps', 3)} "
            f"| {covered} | {passed[0]} | {passed[1]} | {run['seconds'][0]:.1f} ± {run['seconds'][1]:.1f} "
            f"| {run['settings']} |"
        )
    return lines


def over_splits(runs: dict[str, dict[str, dict]]) -> list[dict]:
    """Return each method's means over its splits, and differences to liouville on those that both have; best first."""
    ours, found = runs.get("liouville", {}), []
    for method, splits in runs.items():
        values = lambda key, splits=splits: [run[key] for run in splits.values()]
        one = {"method": method, "splits": len(splits), "settings": "; ".join(dict.fromkeys(values("settings")))}
        one |= {"seconds": with_error(values("seconds")), "failed": sum(values("failed"))}
        for key in ("nll", "crps", "covered"):
            if None in values(key):
                continue
            one[key] = with_error(values(key))
            more = [run[key] - ours[split][key] for split, run in splits.items() if split in ours]
            one |= {f"{key}_more": with_error(more)} if more else {}
        for key in ("kolmogorov_smirnov", "anderson_darling"):
            one[key] = sum(p >= LEAST_P for p in values(key))
        found.append(one)
    return sorted(found, key=lambda run: run["crps"])


def with_error(values: list[float]) -> tuple[float, float]:
    """Return a mean, and its standard error: NaN of one number alone."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(np.mean(values)), float(error)


# By the beginning of a file's name, in the page's order.
SECTIONS: dict[str, Callable[[dict], list[str]]] = {
    "likelihood_step": likelihood_step,
    "scoring": scoring,
    "growth": growth,
    "roofline": roofline,
    "mixed_tables": mixed_tables,
    "gaps": gaps,
    "regression": regression,
}


def of_file(path: Path) -> list[str]:
    """Return the section of one file of results."""
    section = next(section for name, section in SECTIONS.items() if path.name.startswith(name))
    return section(json.loads(path.read_text()))


def of_folder(results: Path) -> list[str]:
    """Return the sections of all files of results in a folder."""
    paths = [path for name in SECTIONS for path in sorted(results.glob(f"{name}*.json"))]
    return [line for path in paths for line in [*of_file(path), ""]]

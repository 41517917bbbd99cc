"""The page of pictures: tables beside what was published, curves, the ablation, and sheets of samples."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

HEAD = """# Pictures, in bits per dimension

`make images` measures and writes this page; every figure below it was printed by its run, on the machine that it names.
Lower is better. Training time counts compilation. The weights are those that were best on held-out training pictures;
the test pictures are used once. Noise is uniform, one draw; probes are Hutchinson's, one for each picture, and the
standard error holds both. With several draws the bound is importance-weighted. The simpler densities see pixels with
uniform noise; the Gaussian and the mixture are fitted to 10,000 pictures at most. MNIST at its own size is measured by
`python benchmarks/images.py --data mnist`: flow matching with `--large`, for a GPU, the others with
`--field concat_squash`, the dense net, since the published one is not for a CPU.
"""
PUBLISHED = """
## What was published

| model | MNIST | hours | CIFAR-10 | hours | ImageNet64 | hours |
|---|---|---|---|---|---|---|
| FFJORD, as published | 0.99 | | 3.40 | 120 or more | | |
| FFJORD, vanilla, run again by RNODE's authors | 0.974 | 68.47 | 3.363 | 91.33 | | |
| RNODE | 0.973 | 24.37 | 3.398 | 31.84 | 3.723 | 64.07 |
| RNODE, longer | | | 3.370 | 63.85 | | |
| Real NVP | 1.06 | | 3.49 | | 3.98 | |
| i-ResNet | 1.05 | | 3.45 | | | |
| Glow | 1.05 | | 3.35 | | 3.81 | |
| Flow++, uniform and variational dequantization | | | 3.28, 3.09 | | -, 3.69 | |
| Residual flow | 0.970 | | 3.280 | | 3.757 | |
| flow matching, U-Net | | | 2.99 (50 draws), 3.11 (1 draw) | | | |

All but the last line are those of RNODE's table (How to train your neural ODE, 2020, table 2). FFJORD and RNODE chose
the weights by the test set and used one probe there, as its code says; the figures of flow matching are its paper's
(2023).
"""


def write(results: Path, page: Path | None) -> None:
    """Print the tables; write them, with plots, to a page, if there is one."""
    speeds = [json.loads(path.read_text()) for path in sorted(results.parent.glob("images-speed/*.json"))]
    lines = [HEAD]
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        if found:
            lines += section(folder, found, page)
    lines += [*(speed(speeds) if speeds else []), PUBLISHED]
    print("\n".join(lines[1:]))
    if page is not None:
        page.write_text("\n".join(lines))


def speed(found: list[dict]) -> list[str]:
    """Return the lines on the speed of training."""
    lines = ["## How fast pictures are learned\n"]
    lines += ["| device | training | pictures | ms/step | pictures/s | TFLOP/s | share of a large product | epoch |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for device in found:
        for case in device["cases"]:
            shape = " x ".join(map(str, case["shape"]))
            name = f"{case['name']}, {case['numbers']:,} numbers"
            cells = [device["device"], name, shape, f"{case['step'] * 1e3:.1f}", *speed_cells(case, device).values()]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def speed_cells(case: dict, device: dict) -> dict[str, str]:
    """Return the figures of one case, as text."""
    cells = {"pictures/s": f"{case['batch'] / case['step']:.0f}", "TFLOP/s": "-", "share": "-"}
    if case["operations"]:
        rate = case["operations"] / case["step"]
        cells |= {"TFLOP/s": f"{rate / 1e12:.2f}", "share": f"{rate / device['products'][case['precision']]:.0%}"}
    return cells | {"epoch": f"{case['epoch']:.0f} s"}


def section(folder: Path, found: list[dict], page: Path | None) -> list[str]:
    """Return the lines of one set of pictures, and draw its plots."""
    found = sorted(found, key=lambda run: run["bits"]["1 draw"]["mean"])
    main = [run for run in found if not run["method"].startswith("RNODE, ")]
    height, width, channels = found[0]["shape"]
    lines = [f"## {folder.name}: {height} x {width} x {channels}\n", *table(main), ""]
    machines = {}
    for run in main:
        machines.setdefault(run["machine"], []).append(run["method"])
    where = "; ".join(f"{', '.join(names)} on {machine}" for machine, names in machines.items())
    lines += [f"Trained on {found[0]['train']:,} pictures: {where}.\n", *notes(main), ""]
    ablation = [run for run in found if run["method"].startswith("RNODE")]
    if len(ablation) > 1:
        lines += ["### RNODE without some of its penalties, in the same time\n", *table(ablation), ""]
    if page is None:
        return lines
    flows = [run for run in main if "curve" in run]
    if flows:
        curves(main).savefig(folder / "curves.png", dpi=110)
        lines.append(f"![Validation bits/dim against seconds]({(folder / 'curves.png').relative_to(page.parent)})\n")
    if len(ablation) > 1:
        bars(ablation).savefig(folder / "ablation.png", dpi=110)
        lines.append(f"![RNODE without penalties]({(folder / 'ablation.png').relative_to(page.parent)})\n")
    for run in flows:
        sheet = folder / f"{run['method'].replace(', ', '-').replace(' ', '-')}.png"
        lines.append(f"Samples, {run['method']}:\n\n![]({sheet.relative_to(page.parent)})\n")
    return lines


def table(found: list[dict]) -> list[str]:
    """Return the table of some methods."""
    names = [
        "method",
        "bits/dim",
        "std. error",
        "seconds",
        "evaluations, training",
        "test",
        "steps",
        "pictures/s",
        "net",
    ]
    names.append("numbers")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for run in found:
        bits, facts = run["bits"]["1 draw"], run.get("facts")
        cells = [run["method"], f"{bits['mean']:.4f}", f"{bits['std_error']:.4f}", f"{run['seconds']:.0f}"]
        if facts:
            cells += [f"{run['training_evaluations']:.0f}", f"{bits['evaluations']:.0f}"]
            speed = facts["steps"] * facts["batch_size"] / run["seconds"]
            cells += [f"{facts['steps']:,}", f"{speed:.0f}", facts["vector_field"], f"{facts['numbers']:,}"]
        lines.append(f"| {' | '.join([*cells, *['-'] * (len(names) - len(cells))])} |")
    return lines


def notes(found: list[dict]) -> list[str]:
    """Return what else the protocol measured of each flow, a line each."""
    lines = []
    for run in found:
        bits = run["bits"]
        if "exact" not in bits:
            continue
        draws = next(name for name in bits if name.endswith("draws"))
        gap = bits["exact"]["mean"] - bits["probes"]["mean"]
        first = next((line for name, line in bits.items() if name.endswith("pictures")), bits["1 draw"])
        lines.append(
            f"- {run['method']}, {first['num_pictures']:,} test pictures: {first['mean']:.4f} with 1 draw, "
            f"{bits[draws]['mean']:.4f} with {draws}, by one probe; the exact divergence of "
            f"{bits['exact']['num_pictures']} pictures {gap:+.4f} against one probe; at a tenth of the tolerance "
            f"log-densities move {run['shift']:.1e} bits/dim; mid-points {bits['mid-points']['mean']:.4f} (no bound)."
        )
    return lines


def curves(found: list[dict]) -> Figure:
    """Draw validation bits per dimension against seconds, and where the simpler densities end."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for run in found:
        if "curve" in run:
            seconds, bits = zip(*run["curve"], strict=True)
            axes.plot(seconds, bits, "o-", ms=4, label=run["method"])
    simpler = [run for run in found if "curve" not in run]
    for style, run in zip((":", "--", "-."), simpler, strict=False):
        axes.axhline(run["bits"]["1 draw"]["mean"], color="0.5", lw=1, ls=style, label=f"{run['method']} (test)")
    # Where a flow starts may be far above all that is worth a look.
    highest = max((1.1 * run["bits"]["1 draw"]["mean"] for run in simpler), default=None)
    axes.set(xlabel="seconds of training", ylabel="validation bits/dim", ylim=(None, highest))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def bars(found: list[dict]) -> Figure:
    """Draw what RNODE reaches without some of its penalties, and at what cost."""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [run["method"].removeprefix("RNODE, ").replace("RNODE", "both penalties") for run in found]
    bits = [run["bits"]["1 draw"] for run in found]
    left.errorbar([b["mean"] for b in bits], names, xerr=[b["std_error"] for b in bits], fmt="o")
    left.set_xlabel("test bits/dim")
    right.barh(names, [b["evaluations"] for b in bits], height=0.5)
    right.set_xlabel("evaluations of the field at test")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure

"""``liouville plot``: pictures of a model."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from ._common import Model, load, rows_for, say, table_only


class Kind(enum.StrEnum):
    """What to draw."""

    density = "density"
    corner = "corner"
    trajectories = "trajectories"
    training = "training"


def run_plot(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="PNG, PDF or SVG file to write.")],
    kind: Annotated[
        Kind | None, typer.Option(help="What to draw.", show_default="density up to 2 columns, else corner")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="TABLE", help="Table to draw beside the samples.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME", help="Column of a corner plot; repeatable.")
    ] = None,
) -> None:
    """Draw the density, samples against data, the paths of the flow, or the course of training."""
    from .. import plots

    plots.check_format(output)
    found = load(model)
    if kind is Kind.training:
        plots.save(plots.plot_training(found.history_), output)
        say(f"{output}: {kind} of {model}")
        return
    estimator = table_only(found, "anything but --kind training")
    kind = kind or (Kind.density if estimator.n_features_in_ <= 2 and not columns else Kind.corner)
    rows = None if data is None else rows_for(estimator, data)
    draw = {
        Kind.density: lambda: plots.plot_density(estimator, rows),
        Kind.corner: lambda: plots.plot_corner(estimator, rows, columns),
        Kind.trajectories: lambda: plots.plot_trajectories(estimator),
    }
    plots.save(draw[kind](), output)
    say(f"{output}: {kind} of {model}")

"""``liouville plot``: pictures of a model."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._common import STANDARD, Model, check_place, load, say, table_file, to_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Kind(enum.StrEnum):
    """What to draw."""

    density = "density"
    corner = "corner"
    trajectories = "trajectories"
    field = "field"
    training = "training"


def run_plot(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="PNG, PDF or SVG file to write, or -.")
    ],
    kind: Annotated[
        Kind | None,
        typer.Option(help="What to draw.", show_default="density of 1 column or 2 continuous ones, else corner"),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="TABLE", help="Table to draw beside the samples, or -.")] = None,
    time: Annotated[float, typer.Option(help="Time of the vector field: 0 is the base, 1 the data.")] = 0.5,
    columns: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME", help="Column of a corner plot; repeatable.")
    ] = None,
) -> None:
    """Draw the density, samples against data, the paths or the vector field of the flow, or the course of training."""
    from .. import plots

    if output != STANDARD:
        plots.check_format(output)
    check_place(output, model, data)
    estimator = load(model)
    if kind is Kind.training:
        save(plots.plot_training(estimator.history_), output, f"{kind} of {model}")
        return
    if len(estimator.flow_.shape) > 1:
        raise typer.BadParameter("Expected --kind training for a model of pictures; try that.")
    is_mixed = estimator.columns_.is_mixed
    # The density of two columns is a map, of continuous ones alone.
    has_density = estimator.n_features_in_ <= (1 if is_mixed else 2)
    kind = kind or (Kind.density if has_density and not columns else Kind.corner)
    if (is_mixed or estimator.columns_.missing == "ignore") and kind in (Kind.trajectories, Kind.field):
        raise typer.BadParameter(
            f"Expected --kind density or corner for columns of several kinds, or with gaps, got {kind}; try corner."
        )
    rows = None if data is None else estimator._read(table_file(data))
    draw = {
        Kind.density: lambda: plots.plot_density(estimator, rows),
        Kind.corner: lambda: plots.plot_corner(estimator, rows, columns),
        Kind.trajectories: lambda: plots.plot_trajectories(estimator),
        Kind.field: lambda: plots.plot_field(estimator, time),
    }
    save(draw[kind](), output, f"{kind} of {model}")


def save(figure: "Figure", output: Path, title: str) -> None:
    """Write a figure to a file, or as PNG to standard output, and say so."""
    from .. import plots

    with to_write(output, ".png") as path:
        plots.save(figure, path)
    say(f"{output}: {title}")

"""``liouville plot``: pictures of a model."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    fan = "fan"
    pit = "pit"
    posterior = "posterior"


# What is drawn of targets given rows.
OF_TARGETS = (Kind.fan, Kind.pit, Kind.posterior)


def run_plot(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="PNG, PDF or SVG file to write, or -.")
    ],
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="What to draw; fan, pit and posterior of targets given rows.",
            show_default="density of 1 column or 2 continuous ones, else corner; fan of 1 target, else posterior",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Table to draw beside the samples, or -; rows with targets, where asked."),
    ] = None,
    time: Annotated[float, typer.Option(help="Time of the vector field: 0 is the base, 1 the data.")] = 0.5,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME", help="Column of a corner plot, repeatable; of a fan."),
    ] = None,
) -> None:
    """Draw the density, samples against data, the paths or the vector field of the flow, or the course of training.

    Of targets given rows: quantiles against a column (fan), how often less was expected (pit), or draws given the first
    row of --data beside its targets (posterior).
    """
    from .. import plots

    if output != STANDARD:
        plots.check_format(output)
    check_place(output, model, data)
    estimator = load(model, "FlowDensity", "ImageDensity", "ConditionalFlowDensity")
    if kind is Kind.training:
        save(plots.plot_training(estimator.history_), output, f"{kind} of {model}")
        return
    is_of_targets = hasattr(estimator, "target_columns_")
    if kind is not None and (kind in OF_TARGETS) != is_of_targets:
        others = [str(one) for one in Kind if (one in OF_TARGETS) == is_of_targets]
        raise typer.BadParameter(f"Expected --kind {' or '.join(others)} for a model of this kind, got {kind}.")
    if is_of_targets:
        kind = kind or (Kind.fan if len(estimator.target_columns_.fields) == 1 else Kind.posterior)
        save(of_targets(estimator, kind, data, columns), output, f"{kind} of {model}")
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


def of_targets(estimator: Any, kind: Kind, data: Path | None, columns: list[str] | None) -> "Figure":
    """Return a picture of targets given the rows of a table."""
    from .. import plots
    from ..data import read_rows_and_targets_of

    if data is None:
        raise typer.BadParameter(f"Expected --data with rows and targets for --kind {kind}.")
    rows, targets = read_rows_and_targets_of(estimator, table_file(data))
    if kind is Kind.pit:
        return plots.plot_pit(estimator.cdf(rows, targets))
    if kind is Kind.posterior:
        return plots.plot_posterior(estimator, rows.slice(0, 1), targets.slice(0, 1))
    chosen = columns or rows.column_names[:1]
    if len(chosen) > 1:
        raise typer.BadParameter(f"Expected one --column for --kind fan, got {len(chosen)}; try {chosen[0]}.")
    return plots.plot_fan(estimator, rows, chosen[0], targets)


def save(figure: "Figure", output: Path, title: str) -> None:
    """Write a figure to a file, or as PNG to standard output, and say so."""
    from .. import plots

    with to_write(output, ".png") as path:
        plots.save(figure, path)
    say(f"{output}: {title}")

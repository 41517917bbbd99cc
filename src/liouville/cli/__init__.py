"""The command line: one file per command. Data go to standard output, all else to standard error."""

import sys
import warnings
from typing import Annotated

import typer

from .._version import __version__
from . import _demo, _evaluate, _fit, _impute, _info, _outliers, _plot, _predict, _recipes, _sample, _score
from ._common import guarded, say


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"liouville {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="liouville",
    help="Density estimation with continuous normalizing flows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    _fit.run_fit,
    _score.run_score,
    _sample.run_sample,
    _impute.run_impute,
    _predict.run_predict,
    _outliers.run_outliers,
    _info.run_info,
    _recipes.run_recipes,
    _evaluate.run_evaluate,
    _plot.run_plot,
    _demo.run_demo,
):
    app.command(command.__name__.removeprefix("run_"))(guarded(command))


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Density estimation with continuous normalizing flows."""


def main() -> None:
    """Run the command line; exit 0, 1 (failed: one line says what), 2 (usage) or 130 (interrupted)."""
    warnings.showwarning = lambda message, *args, **kwargs: say(f"liouville: warning: {message}")
    try:
        # Under `python -m`, too, what a shell completes is the command.
        app(prog_name="liouville")
    except KeyboardInterrupt:
        sys.exit(130)

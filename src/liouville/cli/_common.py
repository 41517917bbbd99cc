"""Arguments, readers and the handling of errors that all commands share."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

    from ..estimators import FlowDensity
    from ..image_density import ImageDensity

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Model file that 'liouville fit' wrote.", show_default=False)
]
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Table: CSV, Parquet, NPY or NPZ; or pictures.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="File to write; standard output where left out."),
]

# Of what went wrong in many places, so many are named.
MOST_NAMED = 10
Error = Annotated[
    float | None,
    typer.Option(
        help="Mean error that is good enough, for example 1e-3: in nats, of drawn rows in standard deviations. Many "
        "rows are then done several times as fast, after some seconds."
    ),
]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose failures are one line on standard error and an exit code."""

    @functools.wraps(command)
    def run(*args, **kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            say("liouville: interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # Who read the output has gone: no failure, but Python must not flush into the pipe at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (typer.Exit, typer.Abort):
            raise
        except (ValueError, TypeError, OSError, RuntimeError, MemoryError) as error:
            say(f"liouville: error: {' '.join(str(error).split()) or type(error).__name__}")
            raise typer.Exit(1) from None

    return run


def load(path: Path) -> "FlowDensity | ImageDensity":
    """Return the model in a file, of a table or of pictures."""
    from .. import FlowDensity, ImageDensity
    from .._model_file import read_model

    return read_model([FlowDensity, ImageDensity], path)


def table_only(estimator: "FlowDensity | ImageDensity", wish: str) -> "FlowDensity":
    """Return the model of a table, or raise where it is one of pictures, which has no such thing."""
    from .. import FlowDensity

    if not isinstance(estimator, FlowDensity):
        raise typer.BadParameter(f"Expected a model of a table for {wish}, got one of pictures; try without.")
    return estimator


def rows_for(estimator: "FlowDensity", path: Path) -> "np.ndarray":
    """Return the rows of a file, the model's columns in the model's order.

    They are found by name, whatever else there is; where file or model has no names, by position.
    """
    from .._errors import DataError
    from ..data import column_names, default_names, read_table

    table, names = read_table(path), column_names(estimator)
    nameless = [columns == default_names(len(columns)) for columns in (table.columns, names)]
    missing = [name for name in names if name not in table.columns]
    if not missing:
        return table.values[:, [table.columns.index(name) for name in names]]
    if not any(nameless):
        raise DataError(
            f"Expected columns {names} in {path}, got none called {missing[0]!r}; try renaming its columns."
        )
    if len(table.columns) != len(names):
        raise DataError(f"Expected {len(names)} columns in {path}, got {len(table.columns)}; try the table of the fit.")
    return table.values


def say(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(line, err=True)

"""Arguments, readers and the handling of errors that all commands share."""

import contextlib
import csv
import functools
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from ._cache import keep_compiled

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Model file that 'liouville fit' wrote.", show_default=False)
]
Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="Table: CSV, TSV (packed or not), Parquet, NPY or NPZ, - for standard input; or pictures.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="File to write; standard output where left out, or -.",
        callback=lambda value: None if value == STANDARD else value,
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="NAMES", help="Columns of the table to read, with commas between them; repeatable."),
]
DropMissing = Annotated[
    bool, typer.Option("--drop-missing", help="Leave out rows of the table with a missing value, and say how many.")
]

# What stands for standard input or output.
STANDARD = Path("-")
# What a model file may hold, and the commands for it.
HELD = {
    "FlowDensity": ("a table", "score, sample, evaluate or plot"),
    "ImageDensity": ("pictures", "score, sample or evaluate"),
    "ConditionalFlowDensity": ("targets given rows (fit --target)", "predict, score, sample or plot"),
    "FlowOutlierDetector": ("outliers (fit --outliers)", "outliers"),
}
# Of what went wrong in many places, so many are named.
MOST_NAMED = 10
Error = Annotated[
    float | None,
    typer.Option(
        help="Mean error that is good enough, for example 1e-3: in nats, of drawn rows in standard deviations. Many "
        "rows are then done several times as fast, after some seconds."
    ),
]


NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Do without programs compiled before, in the user's cache folder.")
]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose failures are one line on standard error and an exit code, and its programs kept."""

    @functools.wraps(command)
    def run(*args, no_cache: bool = False, **kwargs) -> None:
        if not no_cache:
            keep_compiled()
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

    told = inspect.signature(command)
    option = inspect.Parameter("no_cache", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=NoCache)
    run.__signature__ = told.replace(parameters=[*told.parameters.values(), option])  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {**command.__annotations__, "no_cache": NoCache}
    return run


def load(path: Path, *kinds: str) -> Any:
    """Return the estimator in a file, one of some kinds: without any a density, of a table or of pictures.

    Where it is another, the error says which commands take it.
    """
    import liouville

    from .._model_file import read_model

    estimator = read_model([getattr(liouville, name) for name in HELD], path)
    wanted, kind = kinds or tuple(HELD)[:2], type(estimator).__name__
    if kind not in wanted:
        what, commands = HELD[kind]
        raise ValueError(
            f"Expected a model of {' or '.join(HELD[name][0] for name in wanted)}, got one of {what} in {path}; try "
            f"liouville {commands}."
        )
    return estimator


def taken_by(function: Callable, **options: tuple[str, Any]) -> dict[str, Any]:
    """Return by name what was given of options; one that the function does not take is an error of usage.

    Each is what it is called on the command line, and its value, None or False where it was not given.
    """
    given = {name: value for name, (_, value) in options.items() if value is not None and value is not False}
    known = inspect.signature(function).parameters
    for name in given:
        if name not in known:
            raise typer.BadParameter(f"Expected no {options[name][0]} for a model of this kind; try without.")
    return given


def table_file(path: Path) -> Path | BinaryIO:
    """Return what to read a table from: a path, or for ``-`` standard input."""
    return sys.stdin.buffer if path == STANDARD else path


def names_in(lists: list[str] | None) -> list[str] | None:
    """Return names that stand in lists with commas; quotes keep a comma in a name."""
    rows = csv.reader(lists or [], skipinitialspace=True)
    return [name.strip() for row in rows for name in row] or None


def check_place(output: Path | None, *inputs: Path | None) -> None:
    """Raise where a file could not be written, or is one that is read, before the work is done that it is for."""
    from .._files import check_writable

    if output is None or output == STANDARD:
        return
    check_writable(output)
    for path in inputs:
        if path is None:
            continue
        if path.resolve() == output.resolve() or (path.exists() and output.exists() and path.samefile(output)):
            raise typer.BadParameter(f"Expected an output other than what is read, got {output} for both.")


@contextlib.contextmanager
def to_write(output: Path, suffix: str) -> Iterator[Path]:
    """Yield the path of a file to write; for ``-`` one that goes to standard output."""
    if output != STANDARD:
        yield output
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"output{suffix}"
        yield path
        sys.stdout.buffer.write(path.read_bytes())


def say(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(line, err=True)

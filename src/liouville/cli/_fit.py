"""``liouville fit``: learn the density of a table and write it to a file."""

import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._common import Data, say

if TYPE_CHECKING:
    from ..estimators import FlowDensity


def run_fit(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Model file to write.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")] = 0,
    max_seconds: Annotated[float | None, typer.Option(help="Time for fitting.")] = None,
    recipe: Annotated[str, typer.Option(help="How a paper does it: see 'liouville recipes'.")] = "flow_matching",
    objective: Annotated[
        str | None, typer.Option(help="flow_matching or likelihood.", show_default="the recipe's")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter of FlowDensity; repeatable.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File from which an interrupted fit goes on.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Learn the density of a table and write it to a model file."""
    estimator = configured(
        {
            "recipe": recipe,
            "objective": objective,
            "random_state": seed,
            "max_seconds": max_seconds,
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "verbose": 0 if quiet else 1,
            **dict(parse_setting(setting) for setting in settings or []),
        }
    )
    check_target(output, data)
    from ..data import read_table

    try:
        estimator.fit(read_table(data).frame())
    except KeyboardInterrupt:
        if checkpoint is not None and checkpoint.exists():
            say(f"{checkpoint} keeps what was learned: the same command goes on from there")
        raise
    estimator.save(output)
    say(summary(output, estimator.facts_))


def configured(params: dict[str, Any]) -> "FlowDensity":
    """Return the estimator; a value without meaning is an error of usage, found before any data are read."""
    from .._defaults import check_parameters
    from ..estimators import FlowDensity

    estimator = FlowDensity(**params)
    try:
        check_parameters(estimator)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    return estimator


def parse_setting(setting: str) -> tuple[str, Any]:
    """Return the name and the value of ``key=value``, the value in the type of that parameter."""
    from ..estimators import FlowDensity

    name, equals, text = setting.partition("=")
    known = sorted(FlowDensity().get_params())
    if not equals or name not in known:
        raise typer.BadParameter(f"Expected KEY=VALUE with a key among {', '.join(known)}, got {setting!r}.")
    # A seed may be many things in Python, and has no type there; here it is a number.
    kind = typing.get_type_hints(FlowDensity.__init__).get(name, int | None)
    kinds = typing.get_args(kind) or (kind,)
    if types.NoneType in kinds and text.lower() == "none":
        return name, None
    try:
        return name, kinds[0](text)
    except ValueError:
        raise typer.BadParameter(f"Expected a value of type {kinds[0].__name__} for {name}, got {text!r}.") from None


def check_target(output: Path, data: Path) -> None:
    """Raise where the model could not be written, before time is spent on fitting it."""
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise FileNotFoundError(f"Expected a file in a folder that is there, got {output}; try another path.")
    if output.resolve() == data.resolve():
        raise typer.BadParameter(f"Expected a model file other than the table, got {output} for both.")


def summary(output: Path, facts: dict[str, Any]) -> str:
    """Return what came of a fit, in a line."""
    return (
        f"{output}: {facts['rows']} rows x {facts['columns']} columns, "
        f"validation NLL {facts['validation_nll']:.3f} nats, preprocess {facts['preprocess']}, "
        f"{facts['steps']} steps, {facts['seconds']:.1f} s"
    )

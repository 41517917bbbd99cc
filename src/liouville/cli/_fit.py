"""``liouville fit``: learn the density of a table or of pictures and write it to a file."""

import contextlib
import enum
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._errors import did_you_mean
from ._common import MOST_NAMED, Columns, Data, DropMissing, check_place, names_in, say, table_file, to_write

if TYPE_CHECKING:
    from ..estimators import FlowDensity
    from ..image_density import ImageDensity


class Missing(enum.StrEnum):
    """What missing values are."""

    error = "error"
    ignore = "ignore"
    model = "model"


class Kind(enum.StrEnum):
    """What the data are."""

    table = "table"
    image = "image"


Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=KIND",
        help="What a column is: continuous, positive, bounded:A:B, category, integer or grid:STEP, where it should "
        "not be found out; repeatable.",
    ),
]
MissingValues = Annotated[
    Missing | None,
    typer.Option(
        help="What missing values are: error refuses them, ignore learns from what is there, model takes a gap for "
        "a value.",
        show_default="error",
    ),
]
Conditionals = Annotated[
    bool,
    typer.Option(
        "--conditionals", help="Learn any columns given any others, too: score --target, sample --given, impute."
    ),
]


def run_fit(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Model file to write, or -.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")] = 0,
    max_seconds: Annotated[float | None, typer.Option(help="Time for fitting.")] = None,
    kind: Annotated[Kind, typer.Option(help="What DATA are.")] = Kind.table,
    recipe: Annotated[
        str | None,
        typer.Option(help="How a paper does it: see 'liouville recipes'.", show_default="flow matching"),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="Of a table: flow_matching or likelihood.", show_default="the recipe's")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the estimator in Python; repeatable."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of pictures: where samples and curves go as training goes.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File from which an interrupted fit goes on.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    columns: Columns = None,
    kinds: Kinds = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Columns of the table to leave out, likewise.")
    ] = None,
    drop_missing: DropMissing = False,
    missing: MissingValues = None,
    conditionals: Conditionals = False,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="Learn these columns given the others: predict. With commas; repeatable."),
    ] = None,
    outliers: Annotated[bool, typer.Option("--outliers", help="Learn which rows do not belong: outliers.")] = False,
) -> None:
    """Learn the density of a table, or of pictures, and write it to a model file.

    With --target the density of some columns given the others, with --outliers what rows are like. Pictures are a
    folder of PNG or JPEG files, an idx file, NPY or NPZ of bytes, or Parquet with encoded pictures. Ctrl-C ends the fit
    early: what was learned so far is written.
    """
    targets = names_in(target) or []
    estimator_class = class_of(kind, targets, outliers)
    forms = dict(map(parse_kind, kinds or []))
    given = {
        "recipe": recipe,
        "objective": objective,
        "max_seconds": max_seconds,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "columns": {name: form for name, form in forms.items() if name not in targets} or None,
        "target_columns": {name: form for name, form in forms.items() if name in targets} or None,
        "missing": None if missing is None else str(missing),
        "conditionals": conditionals or None,
        **dict(parse_setting(setting, estimator_class) for setting in settings or []),
    }
    params = {name: value for name, value in given.items() if value is not None}
    estimator = configured(estimator_class, {"random_state": seed, "verbose": 0 if quiet else 1, **params})
    check_place(output, data, checkpoint)
    check_place(checkpoint, data)
    chosen: dict[str, Any] = {"columns": names_in(columns), "drop": names_in(drop) or (), "drop_missing": drop_missing}
    if kind is Kind.image and any(chosen.values()):
        raise typer.BadParameter("Expected no --columns, --drop or --drop-missing for pictures; try without.")
    if drop_missing and params.get("missing", "error") != "error":
        raise typer.BadParameter("Expected --missing or --drop-missing, got both; try one of them.")
    try:
        if kind is Kind.image:
            fit_pictures(estimator, data, skip_bad, log)
        else:
            chosen["texts"] = [name for name, form in forms.items() if form == "category"]
            chosen["gaps"] = estimator.get_params().get("missing", "error") != "error"
            fit_table(estimator, data, targets, chosen)
    except KeyboardInterrupt:
        keep(estimator, output, checkpoint)
        raise typer.Exit(130) from None
    with to_write(output, ".safetensors") as path:
        estimator.save(path)
    say(summary(output, estimator.facts_))


def class_of(kind: Kind, targets: list[str], outliers: bool) -> type:
    """Return the estimator that is asked for."""
    from .. import ConditionalFlowDensity, FlowDensity, FlowOutlierDetector, ImageDensity

    asked = {"--kind image": kind is Kind.image, "--target": bool(targets), "--outliers": outliers}
    if sum(asked.values()) > 1:
        both = " and ".join(name for name, is_asked in asked.items() if is_asked)
        raise typer.BadParameter(f"Expected one of {', '.join(asked)}, got {both}; try one of them.")
    if kind is Kind.image:
        return ImageDensity
    return ConditionalFlowDensity if targets else FlowOutlierDetector if outliers else FlowDensity


def fit_table(estimator: Any, data: Path, targets: list[str], chosen: dict[str, Any]) -> None:
    """Fit an estimator to the table of a file, of targets given the other columns."""
    from ..data import read_table

    if chosen["columns"]:
        chosen = {**chosen, "columns": [*chosen["columns"], *(n for n in targets if n not in chosen["columns"])]}
    frame = read_table(table_file(data), **chosen).frame()
    if not targets:
        estimator.fit(frame)
        return
    known = frame.column_names
    if missing := [name for name in targets if name not in known]:
        raise ValueError(
            f"Expected targets among the columns of the table, got {missing[0]!r}{did_you_mean(missing[0], known)}; "
            f"try names among {known[:MOST_NAMED]}."
        )
    if len(targets) == len(known):
        raise ValueError(f"Expected columns beside the targets, got none but {targets}; try fewer targets.")
    estimator.fit(frame.drop_columns(targets), frame.select(targets))


def keep(estimator: "FlowDensity | ImageDensity", output: Path, checkpoint: Path | None) -> None:
    """Write what an interrupted fit has learned, and say so."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        # By the flow: names and number of columns are noted before there is one.
        check_is_fitted(estimator, "flow_")
    except NotFittedError:
        say("liouville: interrupted before the first step: nothing to save")
    else:
        with to_write(output, ".safetensors") as path:
            estimator.save(path)
        say(f"liouville: interrupted: saved what was learned so far to {output}")
    if checkpoint is not None and checkpoint.exists():
        say(f"{checkpoint} keeps what was learned: the same command goes on from there")


def fit_pictures(estimator: "FlowDensity | ImageDensity", data: Path, skip_bad: bool, log: Path | None) -> None:
    """Fit an estimator to the pictures of a file or a folder."""
    from ..callbacks import PictureLog
    from ..data import read_pictures

    # Made first: its folder may be none that can be written.
    written = None if log is None else PictureLog(log)
    pictures = read_pictures(data, skip_bad=skip_bad)
    for line in pictures.skipped[:MOST_NAMED]:
        say(f"liouville: warning: {line}")
    if pictures.skipped:
        say(f"liouville: warning: {len(pictures.skipped)} pictures were left out; {len(pictures.pixels)} were read")
    with written or contextlib.nullcontext():
        estimator.fit(pictures.pixels, callback=written)


def configured(estimator_class: type, params: dict[str, Any]) -> Any:
    """Return the estimator; a value without meaning is an error of usage, found before any data are read."""
    known = estimator_class().get_params()
    for name in params:
        if name not in known:
            raise typer.BadParameter(f"Expected no {name} for {estimator_class.__name__}; try leaving it out.")
    estimator = estimator_class(**params)
    try:
        estimator._check_parameters()
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    return estimator


def parse_setting(setting: str, estimator_class: type) -> tuple[str, Any]:
    """Return the name and the value of ``key=value``, the value in the type of that parameter."""
    name, equals, text = setting.partition("=")
    known = sorted(estimator_class().get_params())
    if not equals or name not in known:
        raise typer.BadParameter(
            f"Expected KEY=VALUE with a key among {', '.join(known)}, got {setting!r}{did_you_mean(name, known)}."
        )
    # A seed may be many things in Python, and has no type there; here it is a number.
    kind = typing.get_type_hints(estimator_class.__init__).get(name, int | None)
    kinds = typing.get_args(kind) or (kind,)
    if types.NoneType in kinds and text.lower() == "none":
        return name, None
    try:
        return name, {"true": True, "false": False}[text.lower()] if kinds[0] is bool else kinds[0](text)
    except (ValueError, KeyError):
        raise typer.BadParameter(f"Expected a value of type {kinds[0].__name__} for {name}, got {text!r}.") from None


def parse_kind(text: str) -> tuple[str, Any]:
    """Return a column's name and its kind of ``name=kind``, with the numbers that belong to it."""
    name, equals, kind = text.rpartition("=")
    form, *sizes = kind.split(":")
    try:
        numbers = tuple(float(size) for size in sizes)
    except ValueError:
        numbers = None
    if not equals or not form or numbers is None:
        raise typer.BadParameter(f"Expected NAME=KIND, such as age=positive or share=bounded:0:1, got {text!r}.")
    return name, (form, *numbers) if numbers else form


def summary(output: Path, facts: dict[str, Any]) -> str:
    """Return what came of a fit, in a line."""
    if "calibration_rows" in facts:
        size = f"{facts['rows']} rows x {facts['columns']} columns"
        return f"{output}: {size}, {facts['flows']} flows, {facts['steps']} steps, {facts['seconds']:.1f} s"
    end = f"preprocess {facts['preprocess']}, {facts['steps']} steps, {facts['seconds']:.1f} s"
    if "pictures" in facts:
        size = " x ".join(map(str, facts["shape"]))
        bits = facts["validation_bits_per_dim"]
        return f"{output}: {facts['pictures']} pictures of {size}, validation {bits:.3f} bits/dim, {end}"
    return (
        f"{output}: {facts['rows']} rows x {facts['columns']} columns, "
        f"validation NLL {facts['validation_nll']:.3f} nats, {end}"
    )

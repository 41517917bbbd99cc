"""``liouville info``: what a model file holds."""

import json
import math
from typing import Annotated, Any

import typer

from ._common import Model


def run_info(model: Model, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what a model file holds: columns, how it was fitted, by which versions."""
    from .. import checkpoint
    from ..data import default_names
    from ..mixed import Columns, said_of

    arrays, header = checkpoint.read(model, "model")
    chosen, names = header["facts"], header.pop("feature_names")
    columns = {"columns": names or default_names(chosen["columns"])} if "columns" in chosen else {}
    kinds = {
        name: {field.name: said_of(field) for field in Columns.of_facts(header[table]).fields}
        for name, table in (("kinds", "table"), ("targets", "targets"))
        if header.get(table) is not None
    }
    facts = {
        "model": header["estimator"],
        "format": header["format_version"],
        **columns,
        **kinds,
        "numbers": sum(int(array.size) for array in arrays.values()),
        "fit": chosen,
        "parameters": header["parameters"],
        "versions": header["versions"],
    }
    typer.echo(json.dumps(strict_json(facts), indent=2, allow_nan=False) if as_json else text_of(facts))


def text_of(facts: dict[str, Any], indent: str = "") -> str:
    """Return facts as lines, nested ones under their heading."""
    lines = []
    for name, value in facts.items():
        label = name.replace("_", " ") if not indent else name
        if isinstance(value, dict):
            lines += [f"{indent}{label}", text_of(value, indent + "  ")]
        else:
            lines.append(f"{indent}{label:{18 - len(indent)}} {cell(value)}")
    return "\n".join(lines)


def cell(value: Any) -> str:
    """Return a value as a reader wants it: rounded, listed, or a dash for nothing."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)


def strict_json(value: Any) -> Any:
    """Return a value with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {name: strict_json(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

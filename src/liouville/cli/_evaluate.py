"""``liouville evaluate``: how good a density is, beside what anybody has at hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._common import Columns, Data, DropMissing, Model, load, rows_for, say, table_only

if TYPE_CHECKING:
    from ..image_density import BitsPerDim
    from ..metrics import Likelihood


def run_evaluate(
    model: Model,
    data: Data,
    train: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Table to fit the baselines on, for example that of the fit.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the baselines.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Of pictures: draws of the noise for a tighter bound.")] = 1,
    exact: Annotated[
        int, typer.Option(min=0, help="Of pictures: how many are measured by the exact divergence too.")
    ] = 0,
    columns: Columns = None,
    drop_missing: DropMissing = False,
) -> None:
    """Print the NLL of a table beside that of a Gaussian, a Gaussian mixture and a kernel density.

    Of pictures, print the bits per dimension, with how they were measured.

    DATA should be rows that the fit has not seen. Without --train the baselines are fitted on a random
    half of DATA, and everything is scored on the other half. Columns are found by the names of the fit, or by
    --columns in the order of the fit.
    """
    from .. import ImageDensity
    from .._copies import in_random_order
    from ..data import as_fitted, read_pictures

    found = load(model)
    if isinstance(found, ImageDensity) and not (train or columns or drop_missing):
        typer.echo(lines_of(found.evaluate(read_pictures(data).pixels, num_draws=draws, num_exact=exact)))
        return
    estimator = table_only(found, "--train, --columns and --drop-missing")
    rows = rows_for(estimator, data, columns, drop_missing)
    if train is None:
        index, distinct = in_random_order(rows, seed)
        half = distinct < (distinct[-1] + 1) // 2
        fitted, rows = rows[index[half]], rows[index[~half]]
        say(f"baselines fitted on a random half of {data} ({len(fitted)} rows); all scored on the others ({len(rows)})")
    else:
        fitted = rows_for(estimator, train, columns, drop_missing)
        say(f"baselines fitted on {train} ({len(fitted)} rows); all scored on {data} ({len(rows)} rows)")
    if len(fitted) <= rows.shape[1] or len(rows) < 2:
        raise ValueError(
            f"Expected more rows than columns for the baselines and 2 to score, got {len(fitted)} and {len(rows)} "
            f"rows of {rows.shape[1]} columns; try more rows."
        )
    fitted, rows = as_fitted(estimator, fitted), as_fitted(estimator, rows)
    typer.echo(table_of(estimator.evaluate(rows, train=fitted, random_state=seed), rows.shape[1]))


def lines_of(found: "dict[str, BitsPerDim]") -> str:
    """Return lines with the bits per dimension of pictures, and how each was measured."""
    lines = [f"{'measured by':24}{'bits/dim':>10} {'std. error':>11}{'pictures':>10}{'probes':>8}{'evaluations':>13}"]
    for name, bits in found.items():
        note = "mid-points (no bound)" if name == "mid-points" else name
        probes = "exact" if bits.num_probes == 0 else str(bits.num_probes)
        numbers = f"{bits.mean:10.4f} {bits.std_error:11.4f}{bits.num_pictures:10}"
        lines.append(f"{note:24}{numbers}{probes:>8}{bits.evaluations:13.0f}")
    return "\n".join(lines)


def table_of(likelihoods: "list[Likelihood]", size: int) -> str:
    """Return lines with each NLL in nats and in bits per column, and their standard errors."""
    from ..metrics import bits_per_dim

    lines = [f"{'density':24}{'NLL (nats)':>12} {'std. error':>11}{'bits/dim':>11} {'std. error':>11}"]
    for name, nll, error in likelihoods:
        bits = [bits_per_dim(number, size) for number in (nll, error)]
        lines.append(f"{name:24}{nll:12.3f} {error:11.3f}{bits[0]:11.3f} {bits[1]:11.3f}")
    return "\n".join(lines)

"""What an estimator is asked of some of its columns given others."""

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import numpy as np

from . import evaluation
from ._errors import DataError, did_you_mean
from ._splits import Split
from ._types import Rows
from .density import Density
from .mixed import MixedFrame, Subsets, said_of

_MOST_NAMED = 10
# Draws of so many numbers are weighed at a time.
_BLOCK_NUMBERS = 2**21


class Asked(NamedTuple):
    """Numbers of the columns that are asked for, and of those that are given."""

    target: list[int]
    given: list[int]


def columns_of(estimator: Any, target: Any, given: Any) -> Asked:
    """Return which columns are asked for, or raise ``ValueError`` where there are none such."""
    places = _places(estimator, given, "given")
    wanted = [j for j in range(estimator.n_features_in_) if j not in places]
    asked = wanted if target is None else _places(estimator, target, "target")
    if both := sorted({*asked} & {*places}):
        names = [repr(estimator.columns_.fields[j].name) for j in both[:_MOST_NAMED]]
        raise ValueError(f"Expected columns in target or in given, got {', '.join(names)} in both; try one of them.")
    if not asked:
        raise ValueError("Expected columns to ask for, got none; try target=[...].")
    return Asked(asked, places)


def _places(estimator: Any, names: Any, what: str) -> list[int]:
    if isinstance(names, str | int | np.integer) or not isinstance(names, Iterable):
        raise ValueError(f"Expected a list of columns for {what}, got {names!r}; try {what}=[{names!r}].")
    known = [field.name for field in estimator.columns_.fields]
    is_named = hasattr(estimator, "feature_names_in_")
    places = []
    for name in names:
        if is_named and name in known:
            places.append(known.index(name))
        elif not is_named and isinstance(name, int | np.integer) and 0 <= name < len(known):
            places.append(int(name))
        else:
            listed = known[:_MOST_NAMED] if is_named else f"numbers from 0 to {len(known) - 1}"
            hint = did_you_mean(str(name), list(map(str, known))) if is_named else ""
            raise ValueError(f"Expected columns of the fit for {what}, got {name!r}{hint}; try {listed}.")
    return sorted({*places})


def subsets_of(estimator: Any) -> Density:
    """Return the density of any columns given any others."""
    density = getattr(estimator, "subsets_", estimator.flow_)
    if not isinstance(density.core, Subsets):
        raise ValueError(
            "Expected a fit that has learned any columns given any others, got one without; try "
            "FlowDensity(conditionals=True), or missing='ignore'."
        )
    return density


def log_prob_of(
    estimator: Any, rows: Rows, asked: Asked, num_draws: int | None, seed: int
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities of what is asked for; with a number of draws, consistent ones and their standard errors.

    ``log p(a | b) = log p(a, b) - log p(b)``, each by importance sampling of what is in neither.
    """
    check_given(estimator, rows, asked.given)
    both = sorted({*asked.target, *asked.given})
    if num_draws is None or (not asked.given and not _left_out(estimator, rows, both).any()):
        log_prob = _one_solve(estimator, rows, asked)
        return log_prob if num_draws is None else (log_prob, np.zeros(len(rows)))
    # What cannot be is impossible whatever comes with it.
    can_be = ~_are_impossible(estimator, rows, asked.target)
    log_prob, std_error = np.full(len(rows), -np.inf), np.zeros(len(rows))
    log_prob[can_be], std_error[can_be] = _marginal(estimator, rows[can_be], both, num_draws, seed)
    if asked.given and can_be.any():
        below, error = _marginal(estimator, rows[can_be], asked.given, num_draws, seed + 1)
        log_prob[can_be] -= below
        std_error[can_be] = np.hypot(std_error[can_be], error)
    failed = np.flatnonzero(np.isnan(log_prob))
    if failed.size:
        warnings.warn(
            f"{failed.size} of {len(rows)} rows are NaN, with draws not solved; the first is row {failed[0]}.",
            RuntimeWarning,
            stacklevel=3,
        )
    return log_prob, std_error


def _left_out(estimator: Any, rows: Rows, columns: list[int]) -> np.ndarray:
    """Return which cells of rows are neither asked for nor given."""
    is_out = np.broadcast_to(~np.isin(np.arange(rows.shape[1]), columns), rows.shape)
    return is_out | np.isnan(rows) if estimator.columns_.missing != "model" else is_out


def _one_solve(estimator: Any, rows: Rows, asked: Asked) -> np.ndarray:
    """Return what the network says, or of all columns the density."""
    if len(asked.target) == estimator.n_features_in_:
        log_prob, info = evaluation.score(estimator.flow_, rows)
    else:
        density = subsets_of(estimator)
        frame = cast(MixedFrame, density.frame)
        points, change = frame.encode_some(rows, asked.target)
        log_prob, info = evaluation.score(density.core, points, frame.encode_some(rows, asked.given)[0])
        log_prob = log_prob + change
    evaluation.warn_of_failures(info, stacklevel=5)
    return log_prob


def _are_impossible(estimator: Any, rows: Rows, columns: list[int]) -> np.ndarray:
    """Return which rows have a cell, in some columns, that cannot be."""
    fields = estimator.columns_.fields
    is_unknown = [bool(fields[j].levels) & (rows[:, j] == -1) for j in columns]
    change = cast(MixedFrame, subsets_of(estimator).frame).encode_some(rows, columns)[1]
    return np.isneginf(change) | np.any(is_unknown, axis=0)


def check_given(estimator: Any, rows: Rows, given: list[int]) -> None:
    """Raise where what is given cannot be: nothing is known of what comes with it."""
    if not given or not _are_impossible(estimator, rows, given).any():
        return
    found = []
    for j in given:
        bad, field = np.flatnonzero(_are_impossible(estimator, rows, [j])), estimator.columns_.fields[j]
        if bad.size:
            said = f"column {field.name!r} ({said_of(field)})"
            found.append(f"{len(bad)} other cells in {said}, the first in row {bad[0]}")
    listed = "; ".join(found[:_MOST_NAMED])
    raise DataError(f"Expected given cells that the fit knows, got {listed}; try leaving these rows out.")


def _marginal(
    estimator: Any, rows: Rows, columns: list[int], num_draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities of some columns by importance sampling, and their standard errors."""
    step = max(1, _BLOCK_NUMBERS // (num_draws * estimator.flow_.core.shape[0]))
    starts = range(0, len(rows), step)
    parts = [_weigh(estimator, rows[start : start + step], columns, num_draws, seed + start) for start in starts]
    empty = [(np.zeros(0), np.zeros(0))]
    return tuple(np.concatenate(part) for part in zip(*(parts or empty), strict=True))  # pyright: ignore[reportReturnType]


def _weigh(estimator: Any, rows: Rows, columns: list[int], num_draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    is_out = _left_out(estimator, rows, columns)
    if not is_out.any():
        return evaluation.score(estimator.flow_, rows)[0], np.zeros(len(rows))
    density = subsets_of(estimator)
    core, frame = density.core, cast(MixedFrame, density.frame)
    known = np.repeat(frame.encode_some(rows, columns)[0], num_draws, axis=0)
    drawn, _ = evaluation.sample(core, len(known), known, seed=seed)
    # What was not given is what the draw was of: its probability is that of the proposal.
    proposed = evaluation.score(core, np.where(np.isnan(known), drawn, np.nan), known)[0]
    is_drawn = np.repeat(is_out, num_draws, axis=0)
    whole = np.where(is_drawn, frame.decode(drawn), np.repeat(rows, num_draws, axis=0))
    joint = evaluation.score(estimator.flow_, whole)[0]
    # The proposal is in the coordinates of the core, the joint density in the data's: the cells drawn differ by this.
    change = frame.encode(whole)[1] - frame.encode(np.where(is_drawn, np.nan, whole))[1]
    log_weight = (joint - proposed - change).reshape(len(rows), num_draws)
    most = np.max(log_weight, axis=1)
    weight = np.exp(log_weight - np.where(np.isfinite(most), most, 0.0)[:, None])
    mean = weight.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        std_error = weight.std(axis=1, ddof=1) / (mean * np.sqrt(num_draws))
        return np.log(mean) + most, np.where(mean == 0, 0.0, std_error)


def drawn_given(estimator: Any, rows: Rows, num_draws: int, seed: int, has_gaps: bool = True) -> np.ndarray:
    """Return rows whose missing cells are drawn given the others, of shape ``(num_draws, n, columns)``.

    Parameters
    ----------
    estimator
        What is fitted.
    rows
        Rows as numbers, NaN where they are to be drawn.
    num_draws
        How many times.
    seed
        Seed.
    has_gaps
        False draws no gaps where these are values.
    """
    density = subsets_of(estimator)
    frame, core = cast(MixedFrame, density.frame), density.core
    rows = with_gaps_as_nan(estimator, rows)
    check_given(estimator, rows, list(range(rows.shape[1])))
    core = core if has_gaps else core.without_gaps(frame.gaps)
    found, info = _filled(rows, core, frame, num_draws, seed)
    if info is not None:
        evaluation.warn_of_failures(info, stacklevel=5)
    return found


def with_gaps_as_nan(estimator: Any, rows: Rows) -> Rows:
    """Return rows in which a level that stands for a gap is NaN, as gaps of numbers are."""
    last = [column.levels - 1 if column.gaps and column.kind == "code" else -2 for column in estimator.columns_.columns]
    return np.where(rows == np.array(last), np.nan, rows)


def filled(split: Split, density: Density, num: int, seed: int) -> Split:
    """Return a split whose gaps are filled by draws of a density, so often in the rows to train on."""
    fill = lambda rows, num, seed: _filled(rows, density.core, cast(MixedFrame, density.frame), num, seed)[0]
    return dataclasses.replace(
        split,
        rows=fill(split.rows, num, seed).reshape(-1, split.rows.shape[1]),
        weight=np.tile(split.weight, num),
        validation_rows=fill(split.validation_rows, 1, seed + 1)[0],
    )


def _filled(
    rows: Rows, core: Any, frame: MixedFrame, num: int, seed: int
) -> tuple[np.ndarray, evaluation.EvaluationInfo | None]:
    """Return rows whose gaps are filled by draws given the rest, so many times, and what the solver says of them."""
    is_gap, tables = np.isnan(rows), np.repeat(rows[None], num, axis=0)
    some = np.flatnonzero(is_gap.any(axis=1))
    if not some.size:
        return tables, None
    points = frame.encode(rows[some])[0]
    points[is_gap[some][:, list(frame.owners)]] = np.nan
    # One table behind the other: the first is the same however many there are.
    drawn, info = evaluation.sample(core, num * len(some), np.tile(points, (num, 1)), seed=seed)
    tables[:, some] = np.where(is_gap[some], frame.decode(drawn).reshape(num, len(some), -1), rows[some])
    return tables, info

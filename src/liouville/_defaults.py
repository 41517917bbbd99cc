"""What the estimator's parameters mean: their legal values, and defaults by rows and columns."""

import dataclasses
import math
import numbers
import time
from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np
from sklearn.utils import check_random_state

from ._chunks import chunk_rows
from ._splits import TREES
from ._types import Rows
from .divergences import AbstractDivergence, Exact, Hutchinson
from .flows import CONVOLUTIONAL, DIVERGENCES, VECTOR_FIELDS, FlowSpec
from .frames import PREPROCESSORS, candidates
from .integrate import SOLVERS
from .mixed import Columns, FactoredObjective, SubsetsObjective, conditioners
from .objectives import AbstractObjective, CheckedSteps, FlowMatching, TrainedWith
from .recipes import RECIPES, Recipe, likelihood, matching
from .selection import Plan
from .training import Options, Trainer

OBJECTIVES = ("flow_matching", "likelihood")
BASES = ("standard", "trainable")
CHOICES = {
    "recipe": tuple(RECIPES),
    "objective": (None, *OBJECTIVES),
    "vector_field": (None, *(name for name in VECTOR_FIELDS if name not in CONVOLUTIONAL)),
    "base": BASES,
    "divergence": (None, *DIVERGENCES),
    "solver": (None, *SOLVERS),
    "preprocess": ("auto", *PREPROCESSORS),
    "missing": ("error", "ignore", "model"),
    "front": ("auto", "none", "trees"),
}
POSITIVE = ("width", "batch_size", "max_iter", "max_seconds", "learning_rate", "rtol", "atol")
AT_LEAST_ZERO = ("depth", "weight_decay")
INTEGERS = ("width", "depth", "batch_size", "max_iter")
VALIDATION_FLOPS = 3e10
# Measured on four tables of 320 to 6,900 rows: the weight decay that does best falls this fast as rows become more.
_FEW_ROWS, _MOST_DECAY = 3000, 10.0
SOLVE_EVALUATIONS = 50
# How many times as many steps any columns given any others take.
_STEPS, _MIXED_STEPS = 3, 2
# Targets given rows learn from larger batches, in fewer steps: noise of small ones is what keeps them from what is so.
_CONDITIONAL_BATCH, _CONDITIONAL_STEPS, _FEWEST_CONDITIONAL_STEPS = 1024, 0.6, 1000
_LONGEST_RACE = 0.5
# Weights that decay as fast as those by which levels of few rows are not learned by heart would tell numbers nothing.
_MOST_CONDITIONAL_DECAY = 0.1
# Gaps are filled as often as makes so many rows, a few times at most.
_FILLED_ROWS, _MOST_FILLS = 40_000, 5
# Training that still gains half way goes on for this many times as long, up to so many steps.
STRETCH, LONGEST = 5, 20_000
# Shares of the schedule at which training is validated; late ones are the likeliest to be the best.
GOALS = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)


def check_parameters(estimator: Any) -> None:
    """Raise ``ValueError`` or ``TypeError`` for a parameter that has no meaning."""
    params = estimator.get_params()
    check_choices(params, {name: choices for name, choices in CHOICES.items() if name in params})
    check_numbers(params, POSITIVE, AT_LEAST_ZERO, INTEGERS)
    check_kinds(params)
    if not isinstance(params.get("conditionals", False), bool | np.bool_):
        raise ValueError(f"Expected conditionals as True or False, got {params['conditionals']!r}; try True.")
    fraction = params["validation_fraction"]
    if not isinstance(fraction, numbers.Real) or not 0 <= float(fraction) < 1:
        raise ValueError(f"Expected validation_fraction in [0, 1), got {fraction!r}; try validation_fraction=0.1.")


def check_kinds(params: dict[str, Any]) -> None:
    """Raise ``ValueError`` where what columns are is told by no dictionary."""
    for name in ("columns", "target_columns"):
        columns = params.get(name, "auto")
        if not (isinstance(columns, Mapping) or (isinstance(columns, str) and columns == "auto")):
            raise ValueError(
                f"Expected {name} as 'auto' or a dictionary of kinds by name, got {columns!r}; try 'auto'."
            )


def check_choices(params: dict[str, Any], known: Mapping[str, Collection]) -> None:
    """Raise ``ValueError`` for a parameter that is none of its choices."""
    for name, choices in known.items():
        if params[name] not in choices:
            raise ValueError(
                f"Expected {name} among {list(choices)}, got {params[name]!r}; try {next(filter(None, choices))!r}."
            )


def check_numbers(
    params: dict[str, Any], positive: tuple[str, ...], at_least_zero: tuple[str, ...], integers: tuple[str, ...]
) -> None:
    """Raise for a parameter, not None, that is no number, too small, or not whole where it should be."""
    for name in (*positive, *at_least_zero):
        value = params[name]
        kind = numbers.Integral if name in integers else numbers.Real
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise TypeError(f"Expected a number for {name}, got {value!r}; try leaving it out.")
        number = 1.0 if value is None else float(value)
        if not math.isfinite(number) or number < 0 or (name in positive and number == 0):
            least = "a positive" if name in positive else "no negative"
            raise ValueError(f"Expected {least} {name}, got {value!r}; try leaving it out.")


def resolve(estimator: Any, rows: int, columns: int) -> Plan:
    """Return how a table of this size is fitted: the estimator's parameters, the recipe's, then defaults."""
    named = RECIPES[estimator.recipe]
    if named.layer is not None and estimator.vector_field is not None:
        raise ValueError(
            f"Expected no vector_field with recipe {estimator.recipe!r}, which has none, got "
            f"{estimator.vector_field!r}; try another recipe, for example 'flow_matching'."
        )
    objective = choose_objective(estimator, named, columns)
    is_matching = isinstance(objective, FlowMatching)
    solves = named.layer is None and not is_matching
    if is_matching and estimator.base == "trainable":
        raise ValueError(
            "Expected base 'standard' with flow matching, whose loss is least where the base is a point, got "
            "'trainable'; try objective='likelihood'."
        )
    # Measured at equal time: narrow nets that take more steps beat wide ones, until the columns are many.
    width = 64 if columns < 24 else 256
    depth = 3 if columns < 24 else 2
    flow = FlowSpec(
        columns,
        vector_field=given_or(estimator.vector_field, named.vector_field),
        width=given_or(estimator.width, given_or(named.width, width)),
        depth=given_or(estimator.depth, given_or(named.depth, depth)),
        layer=named.layer,
        preconditioned=is_matching and named.preconditioned,
        base=estimator.base,
        # Where many columns make the divergence rough, small steps of a low order take fewer evaluations.
        solver=given_or(estimator.solver, "dopri5" if columns < 24 else "bosh3"),
        rtol=estimator.rtol,
        atol=estimator.atol,
    )
    steps = given_or(named.max_iter, default_steps(rows, solves))
    validation_rows, validation_divergence = affordable_validation(flow)
    by_default = estimator.max_seconds is None and estimator.max_iter is None
    unlimited = estimator.max_seconds is not None and estimator.max_iter is None
    return Plan(
        preprocess=candidates(columns) if estimator.preprocess == "auto" else [estimator.preprocess],
        flow=flow,
        objective=objective,
        options=Options(
            given_or(estimator.learning_rate, given_or(named.learning_rate, learning_rate(columns))),
            given_or(estimator.weight_decay, named.weight_decay),
            batch_size=given_or(estimator.batch_size, given_or(named.batch_size, 512)),
        ),
        max_iter=None if unlimited else given_or(estimator.max_iter, steps),
        # Steps of wide nets, and steps that solve, are dear.
        longest=min(STRETCH * steps, LONGEST) if by_default and is_matching and columns < 24 else None,
        validation_size=validation_rows,
        validation_divergence=validation_divergence,
    )


def resolve_mixed(estimator: Any, rows: int, table: Columns) -> Plan:
    """Return how a table is fitted whose columns are not all continuous."""
    named = RECIPES[estimator.recipe]
    if named.layer is not None or estimator.base != "standard":
        raise ValueError(
            "Expected a recipe with a vector field and base='standard' for gaps, conditionals and columns that are not "
            f"all continuous, got {estimator.recipe!r} and {estimator.base!r}; try recipe='flow_matching'."
        )
    continuous = [column for column in table.columns if column.kind == "continuous"]
    plan = resolve(estimator, rows, max(len(continuous), 1))
    # What mixes columns is of those that no row lacks.
    always = sum(column.is_density for column in continuous)
    kinds = candidates(always) if continuous else ["standardize"]
    return dataclasses.replace(
        plan,
        preprocess=kinds if estimator.preprocess == "auto" else [estimator.preprocess],
        flow=dataclasses.replace(plan.flow, shape=(len(continuous),)),
        objective=FactoredObjective(plan.objective),
        options=mixed_options(estimator, named, plan.options, rows),
        # Steps of many parts are dear, too.
        longest=None,
    )


def resolve_subsets(estimator: Any, rows: int, table: Columns, has_joint: bool) -> Plan:
    """Return how any columns of a table given any others are learned.

    Where the joint density is learned by itself, questions for all columns are left to it.
    """
    plan = resolve_mixed(estimator, rows, table)
    size = max(plan.flow.shape[0], 1)
    alone = resolve(estimator, rows, size)
    objective = SubsetsObjective(alone.objective, 0.0) if has_joint else SubsetsObjective(alone.objective)
    is_set = estimator.max_iter is not None or plan.max_iter is None
    more = _MIXED_STEPS if table.is_mixed else _STEPS
    is_auto = estimator.preprocess == "auto"
    return dataclasses.replace(
        plan,
        # Column by column: what mixes them cannot leave one out.
        preprocess=["standardize", "gaussian_margins"] if is_auto and plan.flow.shape[0] else plan.preprocess[:1],
        objective=objective,
        options=plan.options if table.is_mixed else alone.options,
        # Many questions take more steps than one.
        max_iter=plan.max_iter if is_set else more * cast(int, plan.max_iter),
        of_subsets=True,
        of_questions=has_joint,
    )


def resolve_conditional(estimator: Any, rows: int, targets: Columns) -> Plan:
    """Return how targets given rows are learned."""
    plan = resolve_mixed(estimator, rows, targets)
    # Trees stand in front of one number; of two levels they say how likely the second is.
    levels = targets.fields[0].levels
    has_fronts = len(targets.fields) == 1 and (len(levels) <= 2 or not isinstance(levels[0], str))
    if estimator.front == "trees" and not has_fronts:
        raise ValueError(
            "Expected one target that is a number, or has two levels, for front='trees', got "
            f"{', '.join(str(targets).splitlines())}; try front='auto'."
        )
    fronts = [f"{TREES} {plan.preprocess[0]}"] if has_fronts and estimator.front != "none" else []
    # Of few rows hardly anything is clear: what trees say is then the safer.
    kinds = fronts if estimator.front == "trees" else [*fronts, *plan.preprocess]
    batch_size = given_or(estimator.batch_size, given_or(RECIPES[estimator.recipe].batch_size, _CONDITIONAL_BATCH))
    weight_decay = plan.options.weight_decay
    if estimator.weight_decay is None and not targets.is_mixed:
        weight_decay = min(_MOST_CONDITIONAL_DECAY, weight_decay)
    is_set = estimator.max_iter is not None or plan.max_iter is None
    solves = not isinstance(cast(FactoredObjective, plan.objective).objective, FlowMatching)
    steps = given_or(RECIPES[estimator.recipe].max_iter, default_steps(rows, solves, _FEWEST_CONDITIONAL_STEPS))
    return dataclasses.replace(
        plan,
        preprocess=kinds,
        has_fronts=has_fronts,
        # Behind trees a flow starts far ahead; what smooth laws are is learned late.
        longest_race=_LONGEST_RACE,
        options=dataclasses.replace(plan.options, batch_size=batch_size, weight_decay=weight_decay),
        max_iter=plan.max_iter if is_set else int(_CONDITIONAL_STEPS * steps),
    )


def in_two(plan: Plan, estimator: Any, rows: Rows) -> list[Plan]:
    """Return how a table with gaps is learned: of rows as they are, then with gaps filled by draws of that.

    Of rows as they are, a question is learned from those alone that can answer it; which these are may depend on what
    they hold. Filled rows can answer all.
    """
    if estimator.max_iter is None and plan.max_iter is not None:
        plan = dataclasses.replace(plan, max_iter=plan.max_iter // 2)
    return [plan, dataclasses.replace(plan, num_fills=int(np.clip(_FILLED_ROWS // len(rows), 1, _MOST_FILLS)))]


def mixed_options(estimator: Any, named: Recipe, options: Options, rows: int) -> Options:
    """Return how weights are moved where a table's columns are not all continuous.

    A row has a part of the loss for each whole number: of fewer rows, more steps go into the same time. Levels of few
    rows are learned by heart, but for weights that decay: those by which parts of a row are told of others.
    """
    return dataclasses.replace(
        options,
        batch_size=given_or(estimator.batch_size, given_or(named.batch_size, 256)),
        decayed=conditioners if estimator.weight_decay is None else None,
        weight_decay=given_or(estimator.weight_decay, min(_MOST_DECAY, (_FEW_ROWS / rows) ** 4)),
    )


def choose_objective(estimator: Any, named: Recipe, columns: int) -> AbstractObjective:
    """Return the recipe's objective, unless the estimator names another, or another divergence."""
    by_name = {"flow_matching": matching(columns), "likelihood": likelihood(columns)}
    objective = by_name.get(estimator.objective) or named.objective(columns)
    if estimator.divergence is None or isinstance(objective, FlowMatching):
        return objective
    if isinstance(objective, TrainedWith):
        return dataclasses.replace(objective, divergence=DIVERGENCES[estimator.divergence])
    if isinstance(objective, CheckedSteps):
        return CheckedSteps(TrainedWith(objective.objective, DIVERGENCES[estimator.divergence]))
    return TrainedWith(objective, DIVERGENCES[estimator.divergence])


def learning_rate(columns: int) -> float:
    """Return the peak of the schedule: lower where smoothness counts, and for wide nets."""
    return 3e-3 if columns < 4 else 5e-3 if columns < 24 else 2e-3


def default_steps(rows: int, solves: bool, fewest: int = 3000) -> int:
    """Return the number of steps where neither steps nor seconds are set: more for longer tables.

    Steps that solve ODEs are dear, and there are fewer of them.
    """
    steps = int(np.clip(40 * np.sqrt(rows), fewest, 10_000))
    return steps // 8 if solves else steps


def affordable_validation(flow: FlowSpec) -> tuple[int, AbstractDivergence]:
    """Return the number of rows whose log-density costs about half a second, and by which divergence.

    Where the exact one costs more than that on a chunk, it is estimated by one probe for each of more rows: how rows
    differ, on many columns, leaves the mean far less certain than the probes do. Discrete layers have no divergence.
    """
    size = math.prod(flow.shape)
    weights = 2 * flow.depth * flow.width**2 + 2 * size * flow.width
    rows = lambda directions: VALIDATION_FLOPS / (2 * weights * (1 + directions) * SOLVE_EVALUATIONS)
    least = min(chunk_rows((size,)), 128)
    if flow.layer is None and rows(size) < least:
        return int(np.clip(rows(1), least, 4096)), Hutchinson()
    return int(np.clip(rows(size), least, 4096)), Exact()


def validation_goals(trainer: Trainer) -> tuple[float, ...]:
    """Return when to validate: fewer times where validations would eat more than a tenth of the time left."""
    deadline, seconds = trainer.budget.deadline, trainer.validate_seconds
    if deadline is None or not seconds:
        return GOALS
    affordable = int(0.1 * (deadline - time.perf_counter()) / seconds)
    return GOALS[-max(1, min(affordable, len(GOALS))) :]


def seed_of(random_state: Any) -> int:
    """Return a seed drawn from a random state."""
    return int(rng_of(random_state).randint(2**31 - 1))


def rng_of(random_state: Any) -> np.random.RandomState:
    """Return what scikit-learn takes for a random state, or a generator of NumPy's new kind, as one of the old kind."""
    if isinstance(random_state, np.random.Generator):
        return np.random.RandomState(random_state.integers(2**32, dtype=np.uint64))
    try:
        return check_random_state(random_state)
    except (ValueError, TypeError):
        raise ValueError(
            "Expected random_state to be an integer from 0 to 2**32 - 1, a RandomState, a Generator or None, got "
            f"{random_state!r}; try random_state=0."
        ) from None


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number as it is, or raise ``ValueError`` where it is none, or less than it may be."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"Expected {name} as a whole number of at least {least}, got {value!r}; try {name}={least}.")
    return int(value)


def check_time(time: Any) -> float:
    """Return a time of the flow as it is, or raise ``ValueError`` where it is none from 0 to 1."""
    if not isinstance(time, numbers.Real) or isinstance(time, bool) or not 0 <= float(time) <= 1:
        raise ValueError(f"Expected a time from 0 (base) to 1 (data), got {time!r}; try time=0.5.")
    return float(time)


def given_or(value: Any, default: Any) -> Any:
    """Return a value, or the default where it is None."""
    return default if value is None else value

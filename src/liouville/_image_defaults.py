"""What the parameters of the estimator of pictures mean: their legal values, and defaults by the pictures' size."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._defaults import AT_LEAST_ZERO, check_choices, check_numbers, given_or
from ._operations import count_operations
from .divergences import Hutchinson
from .flows import CONVOLUTIONAL, IMAGE_FIELDS, FlowSpec, NoiseSpec
from .frames import PIXELS
from .integrate import SOLVERS
from .objectives import Encoded, MixedPrecision
from .recipes import IMAGE_RECIPES
from .selection import Plan
from .training import Options

CHOICES = {
    "recipe": IMAGE_RECIPES,
    "vector_field": (None, *IMAGE_FIELDS),
    "preprocess": (None, *PIXELS),
    "precision": ("float32", "bfloat16"),
    "dequantization": ("uniform", "variational"),
    "solver": (None, *SOLVERS),
}
POSITIVE = (
    "width",
    "batch_size",
    "max_iter",
    "max_seconds",
    "learning_rate",
    "rtol",
    "atol",
    "levels",
    "parts",
    "validation_size",
)
INTEGERS = ("width", "depth", "batch_size", "max_iter", "levels", "parts", "validation_size")
# What a validation may cost, by operations of the field; how often it is evaluated; pictures that choose, at most.
VALIDATION_FLOPS = {"cpu": 1e12, "accelerator": 1e14}
SOLVE_EVALUATIONS, MOST_VALIDATION = 60, 1000
# With a deadline so few pictures are enough.
_FEW_VALIDATED = 8
# Flows of a multiscale one, in units of the cost of one at full size; passes over the pictures.
FLOWS_OF_MULTISCALE, PASSES, FEWEST_STEPS = 4, 20, 3000
# Pictures are bytes.
MOST_LEVELS = 256


def check_parameters(estimator: Any) -> None:
    """Raise ``ValueError`` or ``TypeError`` for a parameter that has no meaning."""
    params = estimator.get_params()
    params["recipe"] = known_name(params["recipe"])
    check_choices(params, CHOICES)
    check_numbers(params, POSITIVE, AT_LEAST_ZERO, INTEGERS)
    if params["levels"] > MOST_LEVELS:
        raise ValueError(f"Expected at most {MOST_LEVELS} levels, got {params['levels']}; try levels={MOST_LEVELS}.")
    matching = isinstance(IMAGE_RECIPES[params["recipe"]].objective(1), Encoded)
    if matching and params["dequantization"] == "variational":
        raise ValueError(
            f"Expected uniform dequantization with {params['recipe']!r}, which trains no noise, got "
            "'variational'; try recipe='rnode'."
        )


def resolve(estimator: Any, shape: tuple[int, ...], num_given: int | None = None) -> Plan:
    """Return how pictures of a shape are fitted: the estimator's parameters, the recipe's, then defaults.

    `num_given` is of how many numbers the condition of each is, or None.
    """
    named, (num, *picture) = IMAGE_RECIPES[known_name(estimator.recipe)], shape
    size = int(np.prod(picture))
    field = given_or(estimator.vector_field, named.small_field if size <= named.small_size else named.vector_field)
    width, depth = network_size(field, size)
    flow = FlowSpec(
        tuple(picture),
        vector_field=field,
        width=given_or(estimator.width, width),
        depth=given_or(estimator.depth, depth),
        multiscale=named.multiscale and field in CONVOLUTIONAL,
        preconditioned=named.preconditioned,
        solver=given_or(estimator.solver, "dopri5"),
        rtol=estimator.rtol,
        atol=estimator.atol,
        cond_shape=num_given,
    )
    objective, batch_size = named.objective(size), given_or(estimator.batch_size, named.batch_size)
    steps = max(FEWEST_STEPS, math.ceil(PASSES * num / batch_size))
    unlimited = estimator.max_seconds is not None and estimator.max_iter is None
    return Plan(
        preprocess=[given_or(estimator.preprocess, named.preprocess)],
        flow=flow,
        noise=NoiseSpec(tuple(picture)) if estimator.dequantization == "variational" else None,
        objective=objective if estimator.precision == "float32" else MixedPrecision(objective, estimator.precision),
        options=Options(
            given_or(estimator.learning_rate, named.learning_rate),
            given_or(estimator.weight_decay, named.weight_decay),
            batch_size=batch_size,
            parts=estimator.parts,
        ),
        max_iter=None if unlimited else given_or(estimator.max_iter, steps),
        validation_size=estimator.validation_size or affordable_validation(flow),
        validation_divergence=Hutchinson(),
        fewest_validated=_FEW_VALIDATED,
    )


def known_name(recipe: Any) -> Any:
    """Return the name of a recipe of pictures as it is in the list: until 0.2 it ended in ``_image``."""
    return recipe.removesuffix("_image") if isinstance(recipe, str) else recipe


def network_size(field: str, size: int) -> tuple[int, int]:
    """Return width and depth of a field's network: of a U-Net the blocks of each level; ConvNet's are the published."""
    if field == "unet":
        return (16, 1) if size <= 256 else (32, 1) if size <= 1024 else (64, 2)
    return (64, 3) if field == "conv" else (256, 2)


def affordable_validation(flow: FlowSpec) -> int:
    """Return the number of pictures whose log-density, by one probe, costs about as much as it may."""
    field = eqx.filter_eval_shape(lambda key: flow.make_field(flow.shape, key), jax.random.key(0))
    arrays, static = eqx.partition(field, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    given = None if flow.cond_shape is None else jnp.zeros(flow.cond_shape)
    velocity = lambda arrays, x: eqx.combine(arrays, static)(jnp.zeros(()), x, given)
    operations = count_operations(velocity, arrays, jax.ShapeDtypeStruct(flow.shape, jnp.float32))
    # A product with the Jacobian costs twice a value.
    solves = 3 * SOLVE_EVALUATIONS * (FLOWS_OF_MULTISCALE if flow.multiscale else 1)
    most = VALIDATION_FLOPS["cpu" if jax.default_backend() == "cpu" else "accelerator"]
    return int(np.clip(most / (solves * operations), 32, MOST_VALIDATION))

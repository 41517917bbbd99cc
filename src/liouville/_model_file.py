"""What the file of a fitted estimator holds: its flow's arrays, and all else as JSON."""

import dataclasses
import os
from typing import Any

import equinox as eqx
import jax
import numpy as np

from . import checkpoint
from ._defaults import resolve
from .bijections import Chain
from .distributions import Transformed
from .preprocessing import PREPROCESSORS


def write_model(estimator: Any, path: str | os.PathLike) -> None:
    """Write a fitted estimator to a file."""
    names = getattr(estimator, "feature_names_in_", None)
    facts = {
        "estimator": type(estimator).__name__,
        "parameters": portable_params(estimator),
        "feature_names": None if names is None else list(names),
        "facts": estimator.facts_,
        "history": estimator.history_,
    }
    checkpoint.write(path, "model", estimator.flow_, facts)


def read_model(kind: type, path: str | os.PathLike) -> Any:
    """Return the estimator, of this class, that a file holds."""
    arrays, facts = checkpoint.read(path, "model")
    estimator = kind(**facts["parameters"])
    chosen = facts["facts"]
    recipe = resolve(estimator, chosen["rows"], chosen["columns"]).recipe
    # What the defaults were at the fit: they may have changed since.
    kept = ("vector_field", "width", "depth", "solver")
    recipe = dataclasses.replace(recipe, **{name: chosen[name] for name in kept})
    core = eqx.filter_eval_shape(recipe, jax.random.key(0))
    links = [kind.blank(recipe.size) for kind in PREPROCESSORS[chosen["preprocess"]]][::-1]
    skeleton = Transformed(core.base, Chain([core.bijection, *links]))
    estimator.flow_, estimator._steps_by_error = checkpoint.fill(skeleton, arrays), {}
    estimator.history_, estimator.facts_, estimator.n_iter_ = facts["history"], chosen, chosen["steps"]
    estimator.n_features_in_ = recipe.size
    if facts["feature_names"] is not None:
        estimator.feature_names_in_ = np.asarray(facts["feature_names"], dtype=object)
    return estimator


def portable_params(estimator: Any) -> dict[str, Any]:
    """Return the parameters in JSON's types; a generator as `random_state` is left out."""
    params = estimator.get_params()
    if not isinstance(params["random_state"], (int, np.integer, type(None))):
        params["random_state"] = None
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()}

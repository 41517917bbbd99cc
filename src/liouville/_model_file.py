"""Files of estimators: a fitted one's arrays, and all else as JSON."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Self

import equinox as eqx
import jax
import numpy as np
from sklearn.utils.validation import check_is_fitted

from . import checkpoint
from ._defaults import resolve
from ._image_defaults import resolve as resolve_image
from .bijections import Chain
from .dequantization import Quantized
from .distributions import Transformed
from .flows import FlowRecipe, ImageFlow, NoiseFlow, QuantizedFlow
from .preprocessing import PREPROCESSORS, blank_pixels


class SavedMixin:
    """What estimators that are kept in files have in common."""

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a file: safetensors with a JSON header; no pickle, no code.

        Parameters
        ----------
        path
            The file.
        """
        check_is_fitted(self)
        write_model(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read a model that `save` wrote.

        Parameters
        ----------
        path
            The file.

        Raises
        ------
        CheckpointError
            Where the file is damaged, foreign or newer, or holds another estimator.
        """
        return read_model([cls], path)


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


def read_model(kinds: Sequence[type], path: str | os.PathLike) -> Any:
    """Return the estimator, of one of these classes, that a file holds."""
    arrays, facts = checkpoint.read(path, "model")
    kind = next((kind for kind in kinds if kind.__name__ == facts["estimator"]), None)
    if kind is None:
        raise checkpoint.CheckpointError(
            f"Expected a model of {kinds[0].__name__}, got one of {facts['estimator']} in {path}; try "
            f"{facts['estimator']}.load."
        )
    estimator = kind(**facts["parameters"])
    chosen = facts["facts"]
    estimator.flow_ = checkpoint.fill(SKELETONS[kind.__name__](estimator, chosen), arrays)
    estimator.history_, estimator.facts_, estimator.n_iter_ = facts["history"], chosen, chosen["steps"]
    if facts["feature_names"] is not None:
        estimator.feature_names_in_ = np.asarray(facts["feature_names"], dtype=object)
    return estimator


def recipe_facts(recipe: FlowRecipe) -> dict[str, Any]:
    """Return all that a flow of tables is built by but for its number of columns, in JSON's types."""
    facts = dataclasses.asdict(recipe)
    del facts["size"]
    return facts if recipe.layer is None else {**facts, "vector_field": None}


def table_flow(estimator: Any, chosen: dict[str, Any]) -> Transformed:
    """Return a frame for the flow of a fitted `FlowDensity`."""
    kept = {"size": chosen["columns"]} | {name: chosen[name] for name in names_of(FlowRecipe) if name in chosen}
    recipe = _built_by(FlowRecipe, kept, lambda: resolve(estimator, chosen["rows"], chosen["columns"]).recipe)
    estimator.n_features_in_, estimator._steps_by_error = recipe.size, {}
    core = eqx.filter_eval_shape(recipe, jax.random.key(0))
    links = [kind.blank(recipe.size) for kind in PREPROCESSORS[chosen["preprocess"]]][::-1]
    return Transformed(core.base, Chain([core.bijection, *links]))


def image_facts(flow: ImageFlow, noise: NoiseFlow | None) -> dict[str, Any]:
    """Return all that a flow of pictures is built by, in JSON's types."""
    facts = {**dataclasses.asdict(flow), "shape": list(flow.shape), "noise": None}
    facts["vector_field"] = facts.pop("field")
    return facts if noise is None else {**facts, "noise": {"width": noise.width, "depth": noise.depth}}


def image_flow(estimator: Any, chosen: dict[str, Any]) -> Quantized:
    """Return a frame for the flow of a fitted `ImageDensity`."""
    shape, named = tuple(chosen["shape"]), {**chosen, "field": chosen["vector_field"]}
    kept = {name: named[name] for name in names_of(ImageFlow) if name in named} | {"shape": shape}
    settings = lambda: resolve_image(estimator, (chosen["pictures"], *shape))
    flow = _built_by(ImageFlow, kept, lambda: settings().flow)
    if "noise" in chosen:
        noise = None if chosen["noise"] is None else NoiseFlow(shape, **chosen["noise"])
    else:
        noise = settings().noise
    # The closed forms are made here, where their constants stay NumPy's.
    links = blank_pixels(chosen["preprocess"], shape, chosen["levels"])
    trained = eqx.filter_eval_shape(QuantizedFlow(flow, (), noise, chosen["levels"]), jax.random.key(0))
    chain = Chain([*trained.density.bijection.links, *links])
    return dataclasses.replace(trained, density=Transformed(trained.density.base, chain))


def names_of(recipe: type) -> list[str]:
    """Return the names of all that a recipe is made of."""
    return [field.name for field in dataclasses.fields(recipe)]


def _built_by(recipe: type, kept: dict[str, Any], by_default: Callable[[], Any]) -> Any:
    """Return the recipe of a file; files of version 0.1 leave some of it to what the defaults were."""
    whole = set(kept) == set(names_of(recipe))
    return recipe(**kept) if whole else dataclasses.replace(by_default(), **kept)


SKELETONS = {"FlowDensity": table_flow, "ImageDensity": image_flow}


def portable_params(estimator: Any) -> dict[str, Any]:
    """Return the parameters in JSON's types; a generator as `random_state` is left out."""
    params = estimator.get_params()
    if not isinstance(params["random_state"], (int, np.integer, type(None))):
        params["random_state"] = None
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()}

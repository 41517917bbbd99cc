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
from .density import Density
from .dequantization import UniformDequantization
from .flows import FlowRecipe, FramedFlow, ImageFlow, NoiseFlow
from .frames import fit_pictures, fit_table

# Rows to which a frame is fitted whose numbers a file has.
_ANY_ROWS = 500


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
    skeleton = SKELETONS[kind.__name__](estimator, chosen)
    if facts["format_version"] == 1:
        arrays = _renamed(arrays, skeleton)
    estimator.flow_ = checkpoint.fill(skeleton, arrays)
    estimator.history_, estimator.facts_, estimator.n_iter_ = facts["history"], chosen, chosen["steps"]
    if facts["feature_names"] is not None:
        estimator.feature_names_in_ = np.asarray(facts["feature_names"], dtype=object)
    return estimator


def recipe_facts(recipe: FlowRecipe) -> dict[str, Any]:
    """Return all that a flow of tables is built by but for its number of columns, in JSON's types."""
    facts = dataclasses.asdict(recipe)
    del facts["size"]
    return facts if recipe.layer is None else {**facts, "vector_field": None}


def table_flow(estimator: Any, chosen: dict[str, Any]) -> Density:
    """Return the density of a fitted `FlowDensity`, but for its arrays."""
    kept = {"size": chosen["columns"]} | {name: chosen[name] for name in names_of(FlowRecipe) if name in chosen}
    recipe = _built_by(FlowRecipe, kept, lambda: resolve(estimator, chosen["rows"], chosen["columns"]).recipe)
    estimator.n_features_in_, estimator._steps_by_error = recipe.size, {}
    # Fitted to any rows: what a file holds takes the place of their numbers.
    rows = np.random.default_rng(0).normal(size=(_ANY_ROWS, recipe.size))
    frame, _ = fit_table(chosen["preprocess"], rows, np.ones(len(rows)))
    return Density(eqx.filter_eval_shape(recipe, jax.random.key(0)), frame)


def image_facts(flow: ImageFlow, noise: NoiseFlow | None) -> dict[str, Any]:
    """Return all that a flow of pictures is built by, in JSON's types."""
    facts = {**dataclasses.asdict(flow), "shape": list(flow.shape), "noise": None}
    facts["vector_field"] = facts.pop("field")
    return facts if noise is None else {**facts, "noise": {"width": noise.width, "depth": noise.depth}}


def image_flow(estimator: Any, chosen: dict[str, Any]) -> Density:
    """Return the density of a fitted `ImageDensity`, but for its arrays."""
    shape, named = tuple(chosen["shape"]), {**chosen, "field": chosen["vector_field"]}
    kept = {name: named[name] for name in names_of(ImageFlow) if name in named} | {"shape": shape}
    settings = lambda: resolve_image(estimator, (chosen["pictures"], *shape))
    flow = _built_by(ImageFlow, kept, lambda: settings().flow)
    if "noise" in chosen:
        noise = None if chosen["noise"] is None else NoiseFlow(shape, **chosen["noise"])
    else:
        noise = settings().noise
    frame = fit_pictures(
        chosen["preprocess"], np.zeros((1, *shape), np.uint8), chosen["levels"], UniformDequantization()
    )
    built = eqx.filter_eval_shape(FramedFlow(flow, frame, noise), jax.random.key(0))
    # The closed forms' own arrays: what comes out of a trace has none of NumPy's.
    return dataclasses.replace(built, frame=dataclasses.replace(built.frame, links=frame.links))


def _renamed(arrays: dict[str, np.ndarray], skeleton: Density) -> dict[str, np.ndarray]:
    """Return a file's arrays of format 1, where frame and core were one chain, base first, by their present names."""
    pictures = skeleton.frame.levels is not None
    bijection, num = skeleton.core.bijection, len(skeleton.frame.links)
    if pictures and isinstance(bijection, Chain):
        first = len(bijection.links)
        starts = {f"bijection.links.{i}.": f"core.bijection.links.{i}." for i in range(first)}
    else:
        first, starts = 1, {"bijection.links.0.": "core.bijection."}
    starts |= {f"bijection.links.{first + i}.": f"frame.links.{num - 1 - i}." for i in range(num)}
    starts = {("density." if pictures else "") + old: new for old, new in starts.items()}
    starts |= {"density.base.": "core.base."} if pictures else {"base.": "core.base."}
    starts["dequantization."] = "frame.noise."

    def renamed(name: str) -> str:
        old = next((start for start in starts if name.startswith(start)), "")
        return starts.get(old, "") + name.removeprefix(old)

    return {renamed(name): array for name, array in arrays.items()}


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

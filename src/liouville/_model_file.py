"""Files of estimators: a fitted one's arrays, and all else as JSON; and trainings to go on from."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
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
from .flows import QuantizedFlow
from .preprocessing import PREPROCESSORS, blank_pixels
from .training import Trainer


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


def table_flow(estimator: Any, chosen: dict[str, Any]) -> Transformed:
    """Return a frame for the flow of a fitted `FlowDensity`."""
    recipe = resolve(estimator, chosen["rows"], chosen["columns"]).recipe
    # What the defaults were at the fit: they may have changed since.
    kept = ("vector_field", "width", "depth", "solver")
    recipe = dataclasses.replace(recipe, **{name: chosen[name] for name in kept})
    estimator.n_features_in_, estimator._steps_by_error = recipe.size, {}
    core = eqx.filter_eval_shape(recipe, jax.random.key(0))
    links = [kind.blank(recipe.size) for kind in PREPROCESSORS[chosen["preprocess"]]][::-1]
    return Transformed(core.base, Chain([core.bijection, *links]))


def image_flow(estimator: Any, chosen: dict[str, Any]) -> Quantized:
    """Return a frame for the flow of a fitted `ImageDensity`."""
    settings = resolve_image(estimator, (chosen["pictures"], *chosen["shape"]))
    kept = {name: chosen[name] for name in ("width", "depth", "multiscale", "solver")}
    flow = dataclasses.replace(settings.flow, field=chosen["vector_field"], **kept)
    # The closed forms are made here, where their constants stay NumPy's.
    links = blank_pixels(chosen["preprocess"], flow.shape, estimator.levels)
    trained = eqx.filter_eval_shape(QuantizedFlow(flow, (), settings.noise, estimator.levels), jax.random.key(0))
    chain = Chain([*trained.density.bijection.links, *links])
    return dataclasses.replace(trained, density=Transformed(trained.density.base, chain))


SKELETONS = {"FlowDensity": table_flow, "ImageDensity": image_flow}


def portable_params(estimator: Any) -> dict[str, Any]:
    """Return the parameters in JSON's types; a generator as `random_state` is left out."""
    params = estimator.get_params()
    if not isinstance(params["random_state"], (int, np.integer, type(None))):
        params["random_state"] = None
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()}


def find_checkpoint(path: str | None, identity: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Return what an interrupted training of this identity has left at a path, or None."""
    if path is None or not os.path.exists(path):
        return None
    arrays, facts = checkpoint.read(path, "training")
    if any(facts[name] != value for name, value in identity.items()):
        raise checkpoint.CheckpointError(
            "Expected a checkpoint of these parameters, these data and this seed, got another in "
            f"{path}; try deleting it, or another path."
        )
    return arrays, facts


def run_saving(
    trainer: Trainer, goals: Iterable[float], path: str | None, facts: dict[str, Any], longest: int | None = None
) -> None:
    """Train to each of the goals; what is written on the way, if there is a path, is deleted at the end."""
    trainer.run(goals, save_to=path, facts=facts, longest=longest)
    if path is not None:
        # Without a goal nothing was written.
        Path(path).unlink(missing_ok=True)

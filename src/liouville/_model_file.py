"""Files of estimators: a fitted one's arrays, and all else as JSON."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import equinox as eqx
import jax
import numpy as np
from sklearn.utils.validation import check_is_fitted

from . import checkpoint
from ._conditions import Conditions
from ._noise_levels import NoiseLevels
from .bijections import Chain
from .density import Density
from .flows import FlowSpec, FramedFlow, MixedSpec, NoiseSpec
from .frames import any_frame
from .mixed import Column, Columns, Expected, GivenRows, Grid, any_mixed_frame, as_tuple, edges_of

# What an estimator may have beside its density.
_BESIDE = ("subsets", "conditions", "given")


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
        "history": getattr(estimator, "history_", None),
        "table": None if getattr(estimator, "columns_", None) is None else estimator.columns_.to_facts(),
    }
    if hasattr(estimator, "target_columns_"):
        facts["targets"] = estimator.target_columns_.to_facts()
    if hasattr(estimator, "given_columns_"):
        facts["given"] = estimator.given_columns_.to_facts()
    checkpoint.write(path, "model", arrays_of(estimator), facts)


def arrays_of(estimator: Any) -> Any:
    """Return the densities of an estimator, or what else it has learned, under the names of their arrays in a file."""
    if hasattr(estimator, "noise_levels_"):
        return estimator.noise_levels_
    beside = {name: getattr(estimator, f"{name}_") for name in _BESIDE if hasattr(estimator, f"{name}_")}
    flow = estimator.flow_
    return {"core": flow.core, "frame": flow.frame, **beside} if beside else flow


def read_model(kinds: Sequence[type], path: str | os.PathLike) -> Any:
    """Return the estimator, of one of these classes, that a file holds."""
    arrays, facts = checkpoint.read(path, "model")
    kind = next((kind for kind in kinds if kind.__name__ == facts["estimator"]), None)
    if kind is None:
        raise checkpoint.CheckpointError(
            f"Expected a model of {kinds[0].__name__}, got one of {facts['estimator']} in {path}; try "
            f"{facts['estimator']}.load."
        )
    estimator, chosen = kind(**facts["parameters"]), facts["facts"]
    is_old = facts["format_version"] == 1
    chosen = as_of_format_2(estimator, chosen) if is_old else chosen
    table = _columns_of(facts)
    if facts["feature_names"] is not None:
        estimator.feature_names_in_ = np.asarray(facts["feature_names"], dtype=object)
    if "levels_of" in chosen:
        estimator._take(_noise_levels_by(chosen, arrays), chosen, cast(Columns, table))
        return estimator
    targets = Columns.of_facts(facts["targets"]) if "targets" in facts else None
    learned = table if targets is None else targets
    density = built_by(chosen, () if learned is None else learned.columns)
    arrays = _renamed(arrays, density) if is_old else _with_expected(arrays)
    if table is not None and "subsets" in chosen:
        estimator.subsets_ = checkpoint.fill(built_by(chosen["subsets"], table.columns), _own(arrays, "subsets"))
    if table is not None and targets is not None:
        conditions = Conditions.any(table.columns, targets.columns, chosen["has_fronts"], chosen["trees"])
        estimator.conditions_ = checkpoint.fill(conditions, _own(arrays, "conditions"))
        estimator.target_columns_ = targets
    if "given" in facts:
        estimator.given_columns_ = Columns.of_facts(facts["given"])
        given = GivenRows.any(estimator.given_columns_.columns)
        estimator.given_ = checkpoint.fill(given, _own(arrays, "given"))
    estimator.flow_, estimator._steps_by_error = checkpoint.fill(density, arrays), {}
    estimator.history_, estimator.facts_, estimator.n_iter_ = facts["history"], chosen, chosen["steps"]
    if "columns" in chosen:
        estimator.n_features_in_, estimator.columns_ = chosen["columns"], table
    return estimator


def _noise_levels_by(chosen: dict[str, Any], arrays: dict[str, np.ndarray]) -> NoiseLevels:
    """Return the levels of noise of a detector that facts describe, with a file's arrays."""
    spec = None if chosen["flow"] is None else spec_of_facts(chosen["flow"])
    return checkpoint.fill(NoiseLevels.any(spec, **chosen["levels_of"]), arrays)


def _own(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Take those arrays out of a file's that belong to what stands beside a density."""
    start = f"{name}."
    return {key.removeprefix(start): arrays.pop(key) for key in list(arrays) if key.startswith(start)}


def _columns_of(facts: dict[str, Any]) -> Columns | None:
    """Return what the columns of a table are; None of pictures."""
    if facts.get("table") is not None:
        return Columns.of_facts(facts["table"])
    # A file that does not say it is older than columns of other kinds.
    size = facts["facts"].get("columns")
    return None if size is None else Columns.of_floats(facts["feature_names"], size)


def build_facts(build: Any) -> dict[str, Any]:
    """Return all that a density is built by but for its columns and the kind of its frame, in JSON's types."""
    if isinstance(build, MixedSpec):
        mixed = {name: value for name, value in dataclasses.asdict(build).items() if name != "flow"}
        return {**spec_facts(build.flow, None, None), "mixed": mixed}
    if isinstance(build, FramedFlow):
        return spec_facts(cast(FlowSpec, build.flow), cast(Any, build.noise), build.frame.levels)
    return spec_facts(build, None, None)


def spec_facts(flow: FlowSpec, noise: NoiseSpec | None, levels: int | None) -> dict[str, Any]:
    """Return all that a density of numbers of one kind is built by, likewise."""
    facts = {**dataclasses.asdict(flow), "shape": list(flow.shape), "levels": levels, "noise": None}
    if flow.cond_shape is not None:
        facts["cond_shape"] = list(flow.cond_shape)
    if flow.layer is not None:
        facts["vector_field"] = None
    return facts if noise is None else {**facts, "noise": {"width": noise.width, "depth": noise.depth}}


def spec_of_facts(chosen: dict[str, Any]) -> FlowSpec:
    """Return the flow that facts describe."""
    # What a file does not say was not known when it was written: it is what it was then.
    return FlowSpec(**{f.name: chosen[f.name] for f in dataclasses.fields(FlowSpec) if f.name in chosen})


def built_by(chosen: dict[str, Any], columns: tuple[Column, ...] = ()) -> Density:
    """Return the density that facts, and the columns of a table of several kinds, describe, but for its arrays."""
    flow = spec_of_facts(chosen)
    if chosen.get("mixed"):
        return _mixed_by(flow, chosen, columns)
    noise = None if chosen["noise"] is None else NoiseSpec(flow.shape, **chosen["noise"])
    frame = any_frame(chosen["preprocess"], flow.shape, chosen["levels"], edges_of(columns))
    built = eqx.filter_eval_shape(FramedFlow(flow, frame, noise), jax.random.key(0))
    # The closed forms' own arrays: what comes out of a trace has none of NumPy's.
    return dataclasses.replace(built, frame=dataclasses.replace(built.frame, links=frame.links))


def _mixed_by(flow: FlowSpec, chosen: dict[str, Any], columns: tuple[Column, ...]) -> Density:
    facts = {name: as_tuple(value) for name, value in chosen["mixed"].items()}
    if "loc" in facts:
        facts["means"] = facts.pop("loc")
    if facts.pop("correlation", None) is not None:
        raise checkpoint.CheckpointError(
            "Expected a model of a released version, or of this one, got one of any columns given any others from in "
            "between; try fitting it again."
        )
    spec = MixedSpec(flow, **facts)
    frame = any_mixed_frame(chosen["preprocess"], columns, by_column=spec.columns is not None)
    return Density(eqx.filter_eval_shape(spec, jax.random.key(0)), frame)


def as_of_format_2(estimator: Any, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a file of format 1 with all that it left to what the defaults were."""
    shape = chosen.get("shape", [chosen.get("columns")])
    new = {"multiscale": False, "levels": None, "noise": None, "cond_shape": None}
    if "pictures" in chosen:
        new = {"layer": None, "base": "standard", "cond_shape": None}
    known = {**new, "shape": shape, **chosen}
    if "noise" in known and all(field.name in known for field in dataclasses.fields(FlowSpec)):
        return known
    # Files of version 0.1 leave some of it to what the defaults were.
    plan = estimator._plan((chosen.get("pictures", chosen.get("rows")), *shape))
    return {**spec_facts(plan.flow, plan.noise, None), **known}


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


def _with_expected(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a file's arrays with what its whole numbers are counted from, where that was not known yet."""
    if "core.cells.grid.loc" not in arrays:
        return arrays
    grid = {name: arrays.pop(f"core.cells.grid.{name}") for name in ("loc", "scale", "lowest", "highest")}
    # So large that nothing was bent.
    built = {"expected": Expected(grid["loc"], grid["scale"], bend=1e6), "grid": Grid(grid["lowest"], grid["highest"])}
    new = {
        f"core.cells.{part}.{name}": value
        for part, parts in built.items()
        for name, value in vars(parts).items()
        if isinstance(value, np.ndarray)
    }
    return {**arrays, **new}


def portable_params(estimator: Any) -> dict[str, Any]:
    """Return the parameters in JSON's types; a generator as `random_state` is left out."""
    params = estimator.get_params()
    if not isinstance(params["random_state"], (int, np.integer, type(None))):
        params["random_state"] = None
    return {name: _portable(value) for name, value in params.items()}


def _portable(value: Any) -> Any:
    """Return a parameter as it is when it has been in a file."""
    if isinstance(value, Mapping):
        return {str(name): _portable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value

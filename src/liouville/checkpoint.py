"""Files: arrays and a JSON header in the safetensors format, with a digest of both.

No pickle, no code, no device inside. A file is written under a temporary name and renamed, so that a
crash leaves the old file or the new one, never half of one.
"""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from ._errors import CheckpointError
from ._files import replacing
from ._types import partition
from ._version import __version__

_FORMAT_VERSION = 2
_HEADER, _DIGEST = "liouville", "sha256"


def write(path: str | os.PathLike, kind: str, tree: PyTree, facts: dict[str, Any]) -> None:
    """Write the arrays of a tree and JSON facts to a file, all or nothing.

    Parameters
    ----------
    path
        The file; one that is there is replaced, but keeps its mode, and a link stays a link.
    kind
        What the file holds, ``"model"`` or ``"training"``: a reader asks for one of them.
    tree
        Any pytree; its arrays are kept under their paths in it.
    facts
        What else is to be known, in JSON's types.
    """
    # Not `ascontiguousarray`, which turns a scalar into an array of one entry.
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in named_arrays(tree).items()}
    header = {"format_version": _FORMAT_VERSION, "kind": kind, "versions": versions(), **facts}
    text = json.dumps(header, sort_keys=True, allow_nan=True)
    content = safetensors.numpy.save(arrays, {_HEADER: text, _DIGEST: _digest(text, arrays)})
    with replacing(path) as file:
        file.write(content)


def read(path: str | os.PathLike, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file that `write` wrote; return its arrays by name, and its facts.

    Raises
    ------
    CheckpointError
        Where the file is no such file, is damaged, is of another kind, or of a newer format.
    FileNotFoundError
        Where there is no file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a {kind} file, got no file at {path}; try another path.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own class, OSError or UnicodeDecodeError
        raise CheckpointError(
            f"Expected a liouville {kind} file, got {path}, which is cut or foreign ({error}); try another file."
        ) from None
    if _HEADER not in metadata or _DIGEST not in metadata:
        raise CheckpointError(
            f"Expected a liouville {kind} file, got {path}, a safetensors file of another program; try another file."
        )
    facts = _facts(metadata[_HEADER])
    # Asked before the digest: what is newer may be digested in another way.
    if facts.get("format_version", 0) > _FORMAT_VERSION:
        raise CheckpointError(
            f"Expected format version {_FORMAT_VERSION} or older, got {facts['format_version']} in {path}; "
            "try a newer liouville."
        )
    if metadata[_DIGEST] != _digest(metadata[_HEADER], arrays):
        raise CheckpointError(
            f"Expected an undamaged {kind} file, got {path}, whose content does not match its digest; try a fresh copy."
        )
    if facts["kind"] != kind:
        raise CheckpointError(f"Expected a {kind} file, got {path}, a {facts['kind']} file; try another file.")
    return arrays, facts


def _facts(text: str) -> dict[str, Any]:
    """Return a header's facts, none where it is damaged: the digest tells."""
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    known = isinstance(facts, dict) and isinstance(facts.get("format_version"), int)
    return facts if known else {}


def named_arrays(tree: PyTree) -> dict[str, Any]:
    """Return the arrays of a tree, parameters and constants, by their paths in it."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, _is_array))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def fill(tree: PyTree, arrays: dict[str, np.ndarray]) -> PyTree:
    """Return a tree like `tree` with its arrays replaced by those of the same names.

    Raises
    ------
    CheckpointError
        Where names or shapes differ.
    """
    wanted = named_arrays(tree)
    if set(wanted) != set(arrays):
        odd = sorted(set(wanted) ^ set(arrays))[0]
        raise CheckpointError(
            f"Expected the arrays of this flow, got a file that differs in {odd!r}; try the version that wrote it."
        )

    # Constants stay as they are in the file: NumPy's, in float64.
    rest = named_arrays(partition(tree)[1])
    fixed = {name for name, leaf in rest.items() if jnp.issubdtype(leaf.dtype, jnp.inexact)}

    def replace(path, leaf):
        if not _is_array(leaf):
            return leaf
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if arrays[name].shape != leaf.shape:
            raise CheckpointError(
                f"Expected shape {leaf.shape} for {name!r}, got {arrays[name].shape}; try the version that wrote it."
            )
        is_constant = isinstance(leaf, np.ndarray) or name in fixed
        return arrays[name] if is_constant else jnp.asarray(arrays[name], jnp.result_type(leaf))

    return jax.tree_util.tree_map_with_path(replace, tree)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a file's numbers depend on."""
    import diffrax
    import optax

    libraries = {"jax": jax, "equinox": eqx, "diffrax": diffrax, "optax": optax, "numpy": np}
    found = {name: library.__version__ for name, library in libraries.items()}
    return {"liouville": __version__, "python": platform.python_version(), **found}


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (np.ndarray, jax.Array, jax.ShapeDtypeStruct))


def _digest(text: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}|{array.dtype.str}|{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

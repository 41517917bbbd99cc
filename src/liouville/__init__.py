"""Density estimation with continuous normalizing flows, in JAX.

`FlowDensity` is the friendly layer: a scikit-learn estimator. The modules are the strict layer under
it, one for each choice that papers vary.
"""

import importlib
from typing import TYPE_CHECKING

from ._errors import CheckpointError as CheckpointError
from ._errors import DataError as DataError
from ._errors import SolveError as SolveError

if TYPE_CHECKING:
    from .estimators import FlowDensity as FlowDensity

__version__ = "0.1.0"

_MODULES = (
    "augmented",
    "bespoke",
    "bijections",
    "callbacks",
    "checkpoint",
    "couplings",
    "data",
    "diagnostics",
    "distributions",
    "divergences",
    "estimators",
    "evaluation",
    "flows",
    "integrate",
    "metrics",
    "objectives",
    "paths",
    "penalties",
    "plots",
    "preprocessing",
    "regularizers",
    "training",
    "variational",
    "vector_fields",
)
__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "CheckpointError",
    "DataError",
    "FlowDensity",
    "SolveError",
    *_MODULES,
]


def __getattr__(name: str):
    """Import what is asked for when it is: neither scikit-learn nor matplotlib burdens ``import liouville``."""
    if name == "FlowDensity":
        return importlib.import_module(".estimators", __name__).FlowDensity
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

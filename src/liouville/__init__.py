"""Density estimation with continuous normalizing flows, in JAX.

`FlowDensity` and `ImageDensity` are the friendly layer: estimators of tables and of pictures. The modules are the
strict layer under them, one for each choice that papers vary.
"""

import importlib
from typing import TYPE_CHECKING

from ._errors import CheckpointError as CheckpointError
from ._errors import DataError as DataError
from ._errors import SolveError as SolveError
from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .conditional_density import ConditionalFlowDensity as ConditionalFlowDensity
    from .estimators import FlowDensity as FlowDensity
    from .image_density import ImageDensity as ImageDensity
    from .outliers import FlowOutlierDetector as FlowOutlierDetector

_ESTIMATORS = {
    "ConditionalFlowDensity": ".conditional_density",
    "FlowDensity": ".estimators",
    "FlowOutlierDetector": ".outliers",
    "ImageDensity": ".image_density",
}
_MODULES = (
    "augmented",
    "bespoke",
    "bijections",
    "calibration",
    "callbacks",
    "checkpoint",
    "conditional_density",
    "couplings",
    "data",
    "dequantization",
    "density",
    "diagnostics",
    "distributions",
    "divergences",
    "estimators",
    "evaluation",
    "flows",
    "frames",
    "image_density",
    "integrate",
    "metrics",
    "objectives",
    "outliers",
    "paths",
    "penalties",
    "plots",
    "recipes",
    "regularizers",
    "sharding",
    "training",
    "variational",
    "vector_fields",
)
__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "CheckpointError",
    "DataError",
    "SolveError",
    *_ESTIMATORS,
    *_MODULES,
]


def __getattr__(name: str):
    """Import what is asked for when it is: neither scikit-learn nor matplotlib burdens ``import liouville``."""
    if name in _ESTIMATORS:
        return getattr(importlib.import_module(_ESTIMATORS[name], __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

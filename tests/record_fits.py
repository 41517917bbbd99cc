"""What a dozen small fits give, to the bit: a change that should not change a number is held against it.

Usage: python tests/record_fits.py FILE writes log-densities, samples and histories to FILE, an archive of NumPy's;
python tests/record_fits.py FILE OTHER compares two such files, which says something on one machine alone, and exits
with the number of arrays that differ. To record another checkout, put its src first on PYTHONPATH.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from liouville import FlowDensity, ImageDensity
from liouville.data import digits

TABLE = {"width": 8, "depth": 1, "max_iter": 60, "random_state": 0, "preprocess": "whiten"}
PICTURES = {"width": 16, "depth": 1, "max_iter": 30, "random_state": 0, "validation_size": 40}
TABLES = {
    "race": {"preprocess": "auto"},
    **{kind: {"preprocess": kind} for kind in ("standardize", "whiten", "gaussian_margins", "gaussian_radius")},
    "likelihood": {"objective": "likelihood", "base": "trainable", "max_iter": 20},
    "rnode": {"recipe": "rnode", "max_iter": 20},
    "residual_flow": {"recipe": "residual_flow", "depth": 2, "max_iter": 20},
}
IMAGES = {
    "margins": {},
    "logit": {"preprocess": "logit"},
    "rnode_image": {"recipe": "rnode_image"},
    "variational": {"recipe": "ffjord_image", "dequantization": "variational", "max_iter": 5},
}


def rows() -> np.ndarray:
    """Return a table with heavy tails, a bent column and units of its own."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    x[:, 1] += 0.5 * x[:, 0] ** 2
    x[:, 2] = 1000 + 30 * rng.standard_t(5, size=600)
    return x


def found(estimator, X, **how) -> dict[str, np.ndarray]:
    """Return what a fitted estimator says of data."""
    history = {
        f"history {name}": estimator.history_[name] for name in ("step", "loss", "nll") if name in estimator.history_
    }
    said = {"log-densities": estimator.score_samples(X, **how), "samples": estimator.sample(20, random_state=1)}
    return {name: np.asarray(value) for name, value in {**history, **said}.items()}


def resumed(path: Path, X: np.ndarray) -> FlowDensity:
    """Return an estimator whose fit was stopped in the middle, and went on from its checkpoint."""
    estimator = FlowDensity(**TABLE | {"checkpoint": str(path), "max_iter": 400})

    def stop(step: int, *_) -> None:
        if step >= 100:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        estimator.fit(X, callback=stop)
    return estimator.fit(X)


def record() -> dict[str, np.ndarray]:
    """Fit all, and return what they gave."""
    X, pictures, everything = rows(), digits(), {}

    def keep(name: str, said: dict[str, np.ndarray]) -> None:
        print(name, flush=True)
        everything.update({f"{name}: {key}": value for key, value in said.items()})

    for name, params in TABLES.items():
        keep(name, found(FlowDensity(**TABLE | params).fit(X), X[:50]))
    weighted = FlowDensity(**TABLE).fit(X, sample_weight=np.linspace(0.5, 2.0, len(X)))
    keep("weights", found(weighted, X[:50]))
    keep("fitted steps", {"log-densities": weighted.score_samples(X, error=1e-2)})
    keep("probes", {"log-densities": weighted.score_samples(X[:50], num_probes=2, random_state=3)})
    keep("latents", {"points": weighted.transform(X[:50]), "gradient": weighted.score_gradient(X[:50])})
    with tempfile.TemporaryDirectory() as folder:
        said = found(resumed(Path(folder) / "checkpoint", X), X[:50])
        # How often the host looked in depends on how fast it was.
        keep("resumed", {name: said[name] for name in ("log-densities", "samples")})
        weighted.save(Path(folder) / "model.safetensors")
        keep("loaded", found(FlowDensity.load(Path(folder) / "model.safetensors"), X[:50]))
    for name, params in IMAGES.items():
        estimator = ImageDensity(levels=pictures.levels, **PICTURES | params).fit(pictures.pixels[:300])
        keep(name, found(estimator, pictures.pixels[300:330], num_draws=2))
    return everything


def compare(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> int:
    """Print what differs; return how many arrays do."""
    names = sorted({*one, *other})
    differ = [
        n for n in names if n not in one or n not in other or not np.array_equal(one[n], other[n], equal_nan=True)
    ]
    for name in differ:
        same_shape = name in one and name in other and one[name].shape == other[name].shape
        most = np.nanmax(np.abs(np.subtract(one[name], other[name], dtype=float))) if same_shape else "not comparable"
        print(f"{name}: differs by up to {most}")
    print(f"{len(differ)} of {len(names)} arrays differ")
    return len(differ)


def main() -> int:
    """Record, or compare."""
    if len(sys.argv) == 3:
        return min(compare(*({**np.load(path)} for path in sys.argv[1:])), 99)
    np.savez(sys.argv[1], **record())
    return 0


if __name__ == "__main__":
    sys.exit(main())

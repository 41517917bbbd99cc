"""How many pictures a second training takes, against what the device could do; and how long an epoch is.

Usage: python benchmarks/images_speed.py [--cases NAME ...] [--shapes SHAPE ...] [--width W] [--batch N]
Pictures are noise, of MNIST's and CIFAR-10's shapes: speed does not depend on them. Operations are those of
a step's products and convolutions; the ceiling is a large product of matrices in the same precision, measured here.
`make images` puts the figures on its page.
"""

import argparse
import math
import re
import time
from pathlib import Path

import images_report
import jax
import jax.numpy as jnp
import numpy as np
from images import FOLDER, LARGE, machine, write

from liouville import ImageDensity
from liouville._image_defaults import resolve
from liouville._operations import count_operations
from liouville.dequantization import UniformDequantization
from liouville.flows import FramedFlow
from liouville.frames import fit_pictures
from liouville.objectives import Batch
from liouville.training import TrainingData, advance, init_state, make_step

# Shapes, and pictures of an epoch: of MNIST and of CIFAR-10.
SHAPES = {"28 x 28 x 1": ((28, 28, 1), 60_000), "32 x 32 x 3": ((32, 32, 3), 50_000)}
CASES = {
    "flow matching, default": {},
    "flow matching, large": LARGE,
    "flow matching, large, float32": LARGE | {"precision": "float32"},
    "RNODE": {"recipe": "rnode"},
}
NUM_PICTURES, PRODUCT, SECONDS = 1024, {"cpu": 1024, "gpu": 8192}, 3.0
RESULTS = FOLDER / "results" / "images-speed"


def product_rate(precision: str) -> float:
    """Return the operations a second of a large product of matrices."""
    size = PRODUCT["cpu" if jax.default_backend() == "cpu" else "gpu"]
    a = jax.random.normal(jax.random.key(0), (size, size)).astype(precision)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    start, repeats = time.perf_counter(), 20
    for _ in range(repeats):
        found = product(a)
    found.block_until_ready()
    return repeats * 2 * size**3 / (time.perf_counter() - start)


def measure(name: str, shape: tuple[int, ...], epoch: int, **params) -> dict:
    """Return what a training step takes."""
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_PICTURES, *shape), dtype=np.uint8)
    settings = resolve(ImageDensity(**params), (NUM_PICTURES, *shape))
    options, objective = settings.options, settings.objective
    frame = fit_pictures(settings.preprocess[0], pixels, np.ones(len(pixels)), 256, UniformDequantization())
    state, static = init_state(FramedFlow(settings.flow, frame), np.asarray(0, np.int32), options)
    data = TrainingData.pad(pixels, np.ones(len(pixels)))
    batch = Batch(jnp.asarray(pixels[: options.batch_size]))
    operations = count_operations(
        make_step(static, objective, options), state, batch, jax.random.key(0), jnp.asarray(0.5)
    )

    def run(state, count):
        start = time.perf_counter()
        rate = np.asarray(1e-4, np.float32)
        state, segment = advance(
            state, static, objective, options, data, np.asarray(count, np.int32), np.zeros((), np.float32), rate
        )
        loss = float(segment.loss)
        return state, segment, time.perf_counter() - start, loss

    state, _, compiled, _ = run(state, 1)
    state, _, once, _ = run(state, 2)
    count = int(np.clip(SECONDS / (once / 2), 2, 2000))
    state, segment, seconds, loss = run(state, count)
    assert math.isfinite(loss), name
    return {
        "name": name,
        "shape": list(shape),
        "numbers": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "batch": options.batch_size,
        "precision": params.get("precision", "float32"),
        "evaluations": float(segment.evaluations),
        "compilation": compiled,
        "step": seconds / count,
        "epoch": seconds / count * epoch / options.batch_size,
        # How often a solve's loops run is not known beforehand.
        "operations": operations if segment.evaluations == 1 else None,
    }


def main() -> None:
    """Measure, and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--width", type=int, help="of the networks, instead of the cases'")
    parser.add_argument("--batch", type=int, help="pictures of a batch, instead of the cases'")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    arguments = parser.parse_args()
    given = {"width": arguments.width, "batch_size": arguments.batch}
    given = {name: value for name, value in given.items() if value is not None}
    device = jax.devices()[0].device_kind
    arguments.results.mkdir(parents=True, exist_ok=True)
    found = {"device": machine() if device == "cpu" else device, "products": {}, "cases": []}
    for precision in ("float32", "bfloat16"):
        found["products"][precision] = product_rate(precision)
        print(f"a large product, {precision}: {found['products'][precision] / 1e12:.1f} TFLOP/s", flush=True)
    for shape in arguments.shapes:
        for name in arguments.cases:
            case = measure(name, *SHAPES[shape], **(CASES[name] | given))
            found["cases"].append(case)
            write(arguments.results / f"{slug(found['device'])}.json", found)
            cells = ", ".join(f"{value} {unit}" for unit, value in images_report.speed_cells(case, found).items())
            print(f"{name}, {shape}: {case['step'] * 1e3:.1f} ms a step, {cells}", flush=True)


def slug(device: str) -> str:
    """Return a name of a file."""
    return re.sub("[^a-z0-9]+", "-", device.lower()).strip("-")


if __name__ == "__main__":
    main()

"""Pictures by FFJORD, RNODE and flow matching, in bits per dimension, beside what was published and simpler densities.

Usage: python benchmarks/images.py [--data NAME ...] [--methods NAME ...] [--field NAME] [--seconds S] [--again]
The data are digits (8 x 8, built in), mnist14 (MNIST, each 2 x 2 pixels averaged) and mnist, whose files are looked for
in --mnist; or TRAIN,TEST: two files or folders. What is there already is not measured again; --again does. Afterwards
images.md and its pictures are made anew.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import images_report
import jax
import numpy as np

from liouville import ImageDensity, flows, recipes
from liouville.data import digits, read_pictures, write_pictures
from liouville.metrics import bits_per_dim, evaluate_baseline
from liouville.regularizers import JacobianFrobenius, KineticEnergy

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from common import machine, write

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "images"
PEERS = FOLDER.parent / ".venv-peers" / "bin" / "python"
# Of very many test pictures, the whole protocol is gone through with the first.
NUM_MORE, NUM_EXACT, NUM_DRAWS, NUM_BASELINE = 1000, 32, 5, 10_000


def ablated(*penalties: type) -> recipes.Recipe:
    """Return RNODE's recipe with some of its penalties."""
    return dataclasses.replace(
        recipes.IMAGE_RECIPES["rnode"], objective=partial(recipes.rnode_image, penalties=penalties)
    )


ABLATION = {
    "no penalty": ablated(),
    "kinetic energy": ablated(KineticEnergy),
    "Jacobian": ablated(JacobianFrobenius),
}
METHODS = {
    "flow matching": "flow_matching",
    "RNODE": "rnode",
    "FFJORD, vanilla": "ffjord",
    **{f"RNODE, {name}": f"rnode, {name}" for name in ABLATION},
}
recipes.IMAGE_RECIPES.update({f"rnode, {name}": recipe for name, recipe in ABLATION.items()})
LARGE = {"vector_field": "unet", "width": 64, "depth": 2, "batch_size": 256, "precision": "bfloat16"}
# Densities of tables, by the names that they have elsewhere; the last runs in the peers' environment.
SIMPLER = {"Gaussian": "Gaussian", "Gaussian mixture": "Gaussian mixture (BIC)", "zuko NSF": "zuko NSF"}


def load(name: str, mnist: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the pictures to train on, those to test on, and the number of levels of a pixel."""
    if name == "digits":
        found = digits()
        pixels = found.pixels[np.random.default_rng(0).permutation(len(found.pixels))]
        return pixels[:1437], pixels[1437:], found.levels
    if "," in name:
        train, test = (read_pictures(path).pixels for path in name.split(","))
        return train, test, 256
    train, test = (read_pictures(mnist / f"{part}-images-idx3-ubyte.gz").pixels for part in ("train", "t10k"))
    return (halved(train), halved(test), 256) if name == "mnist14" else (train, test, 256)


def halved(pixels: np.ndarray) -> np.ndarray:
    """Return pictures of half the sides: means of each 2 x 2 pixels, rounded."""
    num, height, width, channels = pixels.shape
    blocks = pixels.reshape(num, height // 2, 2, width // 2, 2, channels)
    return np.floor(blocks.mean(axis=(2, 4)) + 0.5).astype(np.uint8)


def measure_flow(name: str, train: np.ndarray, test: np.ndarray, sheet: Path, **params) -> dict:
    """Fit a flow, and measure it by the whole protocol."""
    density = ImageDensity(recipe=METHODS[name], random_state=0, verbose=1, **params).fit(train)
    density.save(sheet.with_suffix(".safetensors"))
    write_pictures(sheet, density.sample(48, random_state=0), density.levels)
    start = time.perf_counter()
    found = density.evaluate(test[:NUM_MORE], num_draws=NUM_DRAWS, num_exact=NUM_EXACT)
    if len(test) > NUM_MORE:
        found |= {f"{NUM_MORE} pictures": found["1 draw"], "1 draw": density.bits_per_dim(test)}
    certificate = density.certify(test, num_rows=32)
    history = density.history_
    known = np.isfinite(history["bits_per_dim"])
    return {
        "bits": {line: bits._asdict() for line, bits in found.items()},
        "shift": bits_per_dim(certificate.mean_shift, test[0].size),
        "facts": density.facts_,
        "training_evaluations": history["evaluations"][-1],
        "curve": np.stack([history["seconds"], history["bits_per_dim"]], axis=1)[known].tolist(),
        "seconds": density.facts_["seconds"],
        "evaluation_seconds": time.perf_counter() - start,
    }


def measure_simpler(name: str, train: np.ndarray, test: np.ndarray, seconds: float) -> dict:
    """Fit one of the simpler densities to pixels with uniform noise, in units of a level."""
    rng = np.random.default_rng(0)
    size = train[0].size
    noisy = lambda x: x.reshape(len(x), size) + rng.uniform(size=(len(x), size))
    start = time.perf_counter()
    if name != "zuko NSF":
        rows, points = noisy(train[:NUM_BASELINE]), noisy(test)
        found = evaluate_baseline(SIMPLER[name], rows, points)
        nll, error, trained = found.nll, found.std_error, time.perf_counter() - start
    else:
        with tempfile.TemporaryDirectory() as folder:
            data, result = Path(folder) / "pictures.npz", Path(folder) / "result.json"
            rows = noisy(train)
            held = max(100, len(rows) // 20)
            np.savez(data, train=rows[held:], validation=rows[:held][:1000], test=noisy(test))
            command = [str(PEERS), str(FOLDER / "peers" / "torch_flows.py"), name, str(data), str(result)]
            subprocess.run([*command, "--seconds", str(seconds), "--seed", "0"], check=True)
            said = json.loads(result.read_text())
        nll, error, trained = said["nll"], said["std_error"], said["seconds"]
    bits = {"mean": bits_per_dim(nll, size), "std_error": bits_per_dim(error, size), "num_pictures": len(test)}
    return {"bits": {"1 draw": bits}, "seconds": trained}


def main() -> None:
    """Measure what is missing, then write the table and the plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["digits", "mnist14"])
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *SIMPLER], default=[*METHODS, *SIMPLER])
    parser.add_argument("--seconds", type=float, default=600.0, help="of training, for each method")
    parser.add_argument("--test", type=int, default=1000, help="test pictures, at most")
    parser.add_argument("--width", type=int, help="of the fields' networks, instead of the recipes'")
    parser.add_argument("--field", choices=flows.IMAGE_FIELDS, help="the fields' networks, instead of the recipes'")
    parser.add_argument("--large", action="store_true", help="a wide U-Net in bfloat16 for flow matching: for a GPU")
    parser.add_argument("--mnist", type=Path, default=FOLDER.parent.parent / "shared/data/mnist", help="MNIST's files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    arguments = parser.parse_args()
    for data in arguments.data:
        measure_all(data, arguments)
    images_report.write(arguments.results, FOLDER / "images.md" if arguments.results == RESULTS else None)


def measure_all(data: str, arguments: argparse.Namespace) -> None:
    """Measure the methods on one set of pictures."""
    train, test, levels = load(data, arguments.mnist)
    test = test[: arguments.test]
    name = data if "," not in data else Path(data.split(",")[0]).stem
    folder = arguments.results / name
    folder.mkdir(parents=True, exist_ok=True)
    for method in arguments.methods:
        path = folder / f"{method.replace(', ', '-').replace(' ', '-')}.json"
        if path.exists() and not arguments.again:
            continue
        print(f"{name}: {method}", flush=True)
        if method in METHODS:
            params = LARGE if arguments.large and METHODS[method] == "flow_matching" else {}
            params = params | {"levels": levels, "max_seconds": arguments.seconds}
            given = {"width": arguments.width, "vector_field": arguments.field}
            params |= {name: value for name, value in given.items() if value is not None}
            found = measure_flow(method, train, test, path.with_suffix(".png"), **params)
        elif method == "zuko NSF" and not PEERS.exists():
            print("  no environment of the peers; passed over (make bench builds it)")
            continue
        else:
            found = measure_simpler(method, train, test, arguments.seconds)
        found |= {"data": name, "method": method, "shape": list(train.shape[1:]), "machine": machine()}
        if jax.default_backend() != "cpu":
            found["machine"] = f"{jax.devices()[0].device_kind}, {found['machine']}"
        found |= {"train": len(train), "budget": arguments.seconds}
        write(path, found)
        bits = found["bits"]["1 draw"]
        print(
            f"  {bits['mean']:.4f} ({bits['std_error']:.4f}) bits/dim, trained in {found['seconds']:.0f} s", flush=True
        )


if __name__ == "__main__":
    main()

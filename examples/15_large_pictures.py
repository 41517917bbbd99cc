"""Pictures of 64 x 64 pixels, made on the spot: what adaptive steps cost where RNODE and flow matching do without."""

import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville import ImageDensity, SolveError
from liouville.data import tile

# Nets that two cores can train: likelihoods need some hundred evaluations a step, flow matching three.
DENSE = {"vector_field": "concat_squash", "width": 64, "batch_size": 32, "max_seconds": 120}
RECIPES = {
    "flow matching": {"vector_field": "unet", "width": 16, "depth": 1, "batch_size": 16, "max_seconds": 240},
    "RNODE": {"recipe": "rnode", **DENSE},
    "FFJORD, vanilla": {"recipe": "ffjord", **DENSE},
}
FAST = {"width": 4, "batch_size": 8, "max_seconds": None, "max_iter": 2}


def discs(num: int, side: int, seed: int) -> np.ndarray:
    """Return pictures of a disc before a sky that brightens downwards, each with its place, size and greys."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    centre, radius = rng.uniform(0.25, 0.75, (2, num, 1, 1)), rng.uniform(0.1, 0.25, (num, 1, 1))
    sky, grey = rng.uniform(size=(2, num, 1, 1))
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    return np.floor(255.99 * np.where(inside, grey, sky * (0.5 + 0.5 * y))).astype(np.uint8)[..., None]


def fit(example: Example, name: str, pixels: np.ndarray) -> ImageDensity | None:
    """Fit by a recipe; None where the solver gives up, which is printed."""
    params = {**RECIPES[name], "verbose": 1, **(FAST if example.fast else {})}
    try:
        return ImageDensity(**params, random_state=0).fit(pixels)
    except SolveError as error:
        example.figure(name, f"stopped: {error}")
        return None


def draw(densities: dict[str, ImageDensity], test: np.ndarray, num: int) -> tuple[Figure, Figure]:
    """Draw the evaluations of each step and the validations, and sheets of samples beside real pictures."""
    curves = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = curves.subplots(1, 2)
    for name, density in densities.items():
        history = {key: np.asarray(values) for key, values in density.history_.items()}
        left.plot(history["seconds"], history["evaluations"], label=name)
        known = np.isfinite(history["bits_per_dim"])
        right.plot(history["seconds"][known], history["bits_per_dim"][known], "o-", ms=4)
    left.set(xlabel="seconds of training", ylabel="evaluations of the field per picture", yscale="log")
    right.set(xlabel="seconds of training", ylabel="validation bits/dim")
    left.legend(frameon=False)
    sheets = Figure(figsize=(3.2 * (1 + len(densities)), 3.6), layout="constrained")
    panels = {"real pictures": test[:num]}
    panels |= {name: density.sample(num, random_state=0) for name, density in densities.items()}
    for axes, (name, pixels) in zip(sheets.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(tile(pixels, 256)[..., 0], cmap="gray", vmin=0, vmax=255)
        axes.set(title=name, xticks=[], yticks=[])
    return curves, sheets


def main() -> None:
    """Train, measure, draw."""
    example = Example(
        "15_large_pictures",
        "Large pictures: a U-Net by flow matching, a dense net by likelihood",
        "Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE, 2020",
        "on ImageNet64 vanilla FFJORD's step underflows",
    )
    side = example.size(64, 8)
    train, test = discs(example.size(2000, 100), side, 0), discs(example.size(100, 8), side, 1)
    densities = {}
    for name in list(RECIPES)[-example.size(3, 1) :]:
        density = fit(example, name, train)
        if density is None:
            continue
        densities[name], bits = density, density.bits_per_dim(test)
        evaluations = [int(density.history_["evaluations"][i]) for i in (2, -1)]
        said = f"{bits.mean:.3f} ({bits.std_error:.3f}) bits/dim after {density.n_iter_} steps of {evaluations[0]}"
        example.figure(name, f"{said} evaluations at first, {evaluations[1]} at last")
    for figure, name in zip(draw(densities, test, example.size(16, 4)), ("curves", "samples"), strict=True):
        example.picture(figure, name)
    example.end()


if __name__ == "__main__":
    main()

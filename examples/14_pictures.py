"""Handwritten digits: flow matching, RNODE and vanilla FFJORD in the same time, in bits per dimension."""

from functools import partial

import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville import ImageDensity
from liouville.data import digits, tile
from liouville.metrics import bits_per_dim, evaluate_baselines

RECIPES = {
    "flow matching": "flow_matching",
    "RNODE": "rnode",
    "FFJORD, vanilla": "ffjord",
}
LEVELS = 17


def split(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits in random order: four fifths to train on, the others to test on."""
    pixels = digits().pixels
    pixels = pixels[np.random.default_rng(seed).permutation(len(pixels))]
    return pixels[:1437], pixels[1437:]


def baselines(example: Example, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Print and return what densities that anybody has at hand make of pixels with uniform noise."""
    rng = np.random.default_rng(1)
    noisy = lambda x: x.reshape(len(x), -1) + rng.uniform(size=(len(x), x[0].size))
    found = {}
    for name, nll, std_error in evaluate_baselines(noisy(train), noisy(test)):
        found[name] = bits_per_dim(nll, test[0].size)
        example.figure(name, f"{found[name]:.4f} ({bits_per_dim(std_error, test[0].size):.4f}) bits/dim")
    return found


def fit(example: Example, recipe: str, train: np.ndarray) -> ImageDensity:
    """Fit one of the recipes for two minutes; two steps of a small net under ``--fast``."""
    make = partial(ImageDensity, recipe=recipe, levels=LEVELS, random_state=0)
    if example.fast:
        return make(vector_field="conv", width=4, depth=1, batch_size=16, max_iter=2).fit(train[:160])
    return make(max_seconds=120, verbose=1).fit(train)


def measure(example: Example, name: str, density: ImageDensity, test: np.ndarray) -> None:
    """Print the lines of the protocol: how many bits a pixel takes, and how that was measured."""
    example.figure(f"{name}, steps", f"{density.n_iter_}")
    found = density.evaluate(test, num_draws=example.size(10, 2), num_exact=example.size(16, 2))
    for line, bits in found.items():
        how = f"{bits.mean:.4f} ({bits.std_error:.4f}) bits/dim, {bits.evaluations:.0f} evaluations"
        example.figure(f"{name}, {line}", how)


def curves(densities: dict[str, ImageDensity], simple: dict[str, float]) -> Figure:
    """Draw validation bits per dimension against the seconds of training."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for name, density in densities.items():
        seconds, bits = (np.asarray(density.history_[key]) for key in ("seconds", "bits_per_dim"))
        known = np.isfinite(bits)
        axes.plot(seconds[known], bits[known], "o-", ms=4, label=name)
    for style, (name, bits) in zip((":", "--", "-."), simple.items(), strict=True):
        axes.axhline(bits, color="0.5", lw=1, ls=style, label=f"{name} (test)")
    axes.set(xlabel="seconds of training", ylabel="validation bits/dim", ylim=(None, max(simple.values()) + 0.2))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def sheets(densities: dict[str, ImageDensity], test: np.ndarray, num: int) -> Figure:
    """Draw samples of each density beside real digits."""
    figure = Figure(figsize=(3.2 * (1 + len(densities)), 3.6), layout="constrained")
    panels = {"real digits": test[:num]}
    panels |= {name: density.sample(num, random_state=0) for name, density in densities.items()}
    for axes, (name, pixels) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(tile(pixels, LEVELS)[..., 0], cmap="gray", vmin=0, vmax=255)
        axes.set(title=name, xticks=[], yticks=[])
    return figure


def main() -> None:
    """Train, evaluate, compare, draw."""
    authors = "Finlay, Jacobsen, Nurbekyan, Oberman"
    example = Example(
        "14_pictures",
        "Pictures: three recipes in the same time",
        f"{authors}: How to train your neural ODE, 2020",
        "RNODE before vanilla FFJORD: MNIST 0.973 in 24.4 h, 0.974 in 68.5 h",
    )
    train, test = split()
    test = test[: example.size(len(test), 6)]
    simple = {} if example.fast else baselines(example, train, test)
    densities = {}
    for name, recipe in list(RECIPES.items())[: example.size(3, 1)]:
        densities[name] = fit(example, recipe, train)
        measure(example, name, densities[name], test)
    if simple:
        example.picture(curves(densities, simple), "curves")
    example.picture(sheets(densities, test, example.size(49, 4)), "samples")
    example.end()


if __name__ == "__main__":
    main()

"""Handwritten digits given their class: bits per dimension, the class by Bayes' rule, and samples of each class."""

from pathlib import Path

import numpy as np
from example import Example
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

from liouville import ImageDensity
from liouville.data import Pictures, digits, read_pictures

PER_CLASS = 8
# Of more test pictures the first are asked for their class: ten densities each.
MOST_ASKED = 1000


def halves(found: Pictures, seed: int = 0) -> tuple[Pictures, Pictures]:
    """Return scikit-learn's digits in random order: four fifths to train on, the others to test on."""
    order = np.random.default_rng(seed).permutation(len(found.pixels))
    some = lambda chosen: found._replace(pixels=found.pixels[chosen], labels=found.labels[chosen])
    return some(order[:1437]), some(order[1437:])


def halved(found: Pictures) -> Pictures:
    """Return pictures of half the sides: means of each 2 x 2 pixels, rounded."""
    num, height, width, channels = found.pixels.shape
    blocks = found.pixels.reshape(num, height // 2, 2, width // 2, 2, channels)
    return found._replace(pixels=np.floor(blocks.mean(axis=(2, 4)) + 0.5).astype(np.uint8))


def mnist(folder: Path) -> tuple[Pictures, Pictures]:
    """Return MNIST, averaged to 14 x 14 pixels: to train and to test on."""
    train, test = (halved(read_pictures(folder / f"{part}-images-idx3-ubyte.gz")) for part in ("train", "t10k"))
    return train, test


def fit(example: Example, train: Pictures, y: np.ndarray | None, seconds: float) -> ImageDensity:
    """Fit pictures given their classes, or as they are; two steps of a small net under ``--fast``."""
    if example.fast:
        density = ImageDensity(levels=train.levels, vector_field="mlp", width=8, depth=1, max_iter=2, random_state=0)
        return density.fit(train.pixels, y)
    return ImageDensity(levels=train.levels, max_seconds=seconds, random_state=0, verbose=1).fit(train.pixels, y)


def compare(example: Example, name: str, train: Pictures, test: Pictures, seconds: float) -> ImageDensity:
    """Fit with the class and without, print what both make of the test pictures, and return the former."""
    given, plain = (fit(example, train, y, seconds) for y in (train.labels, None))
    for how, density, y in (("given the class", given, test.labels), ("without it", plain, None)):
        bits = density.bits_per_dim(test.pixels, y)
        example.figure(f"{name}, {how}", f"{bits.mean:.4f} ({bits.std_error:.4f}) bits/dim, {density.n_iter_} steps")
    ahead = given.score_samples(test.pixels, test.labels) - plain.score_samples(test.pixels)
    example.figure(f"{name}, nats that the class saves", f"{ahead.mean():.2f} ({ahead.std() / len(ahead) ** 0.5:.2f})")
    asked = slice(0, example.size(MOST_ASKED, 5))
    truth = test.labels[asked]
    rows = [part.pixels.reshape(len(part.pixels), -1) / (train.levels - 1) for part in (train, test)]
    share = given.predict_proba(test.pixels[asked])
    place = np.searchsorted(given.classes_, truth)
    of_truth = np.log(np.maximum(share[np.arange(len(place)), place], 1e-12))
    right = (given.classes_[share.argmax(axis=1)] == truth).mean()
    example.figure(f"{name}, class by Bayes' rule", f"{right:.1%} right, {-of_truth.mean():.3f} nats")
    plain_model = LogisticRegression(max_iter=1000).fit(rows[0], train.labels)
    logs = plain_model.predict_log_proba(rows[1][asked])[np.arange(len(place)), place]
    right = plain_model.score(rows[1][asked], truth)
    example.figure(f"{name}, logistic regression", f"{right:.1%} right, {-logs.mean():.3f} nats")
    return given


def sheet(density: ImageDensity, test: Pictures, levels: int) -> Figure:
    """Draw samples of each class beside real pictures of it, a row for each class."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    real = np.concatenate([test.pixels[test.labels == k][:PER_CLASS] for k in density.classes_])
    y = np.repeat(density.classes_, PER_CLASS)
    panels = {"real pictures": real, "samples given the class": density.sample(len(y), random_state=0, y=y)}
    for axes, (name, pixels) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        rows = [
            np.concatenate(list(np.pad(pixels[start : start + PER_CLASS, ..., 0], ((0, 0), (1, 1), (1, 1)))), axis=1)
            for start in range(0, len(y), PER_CLASS)
        ]
        axes.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=levels - 1)
        middles = (np.arange(len(rows)) + 0.5) * rows[0].shape[0]
        axes.set(title=name, xticks=[], yticks=middles, yticklabels=density.classes_)
        axes.tick_params(length=0)
    return figure


def main() -> None:
    """Fit, compare, draw."""
    example = Example(
        "21_pictures_by_class",
        "Pictures given their class, and the class by Bayes' rule",
        "no paper: what a density of each class is good for",
        data="mnist",
    )
    train, test = halves(digits())
    few = slice(0, example.size(len(test.pixels), 20))
    measured = test._replace(pixels=test.pixels[few], labels=test.labels[few])
    density = compare(example, "digits", train, measured, 100)
    example.picture(sheet(density, test, train.levels), "digits")
    if example.data is not None:
        train, test = mnist(example.data)
        density = compare(example, "MNIST 14 x 14", train, test, 600)
        example.picture(sheet(density, test, train.levels), "mnist")
    example.end()


if __name__ == "__main__":
    main()

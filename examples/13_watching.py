"""Watching a density as it is learned: an animated GIF, a log for TensorBoard, and a run that is stopped and kept."""

import numpy as np
from example import Example
from matplotlib.figure import Figure
from PIL import Image

from liouville import FlowDensity
from liouville.callbacks import DensityMovie, TensorBoardLog
from liouville.data import six_gaussians

LIMITS = ((-7.0, 7.0), (-7.0, 7.0))


def main() -> None:
    """Run the example."""
    example = Example(
        "13_watching",
        "Watching a density as it is learned",
        "the blog on normalizing flows and neural ODEs: the picture that moves, the callback that says when to halt",
    )
    target, rng = six_gaussians(), np.random.default_rng(0)
    rows, test = target.sample(rng, example.size(10_000, 500)), target.sample(rng, example.size(2000, 100))
    density = FlowDensity(max_iter=example.size(3000, 9), preprocess="standardize", random_state=0)
    looks = {"step": [], "loss": [], "nll": []}

    # A frame for each look: by default there is one a second at most.
    movie = DensityMovie(
        example.folder / "13_watching.gif", LIMITS, num=example.size(64, 12), min_seconds=0, max_frames=20
    )
    logs = []
    try:
        logs = [TensorBoardLog(example.folder / "13_watching_log", picture_seconds=5)]
    except ImportError as error:
        print(error)

    def watch(step: int, loss: float, flow) -> None:
        """Do with each look what there is to do; a callback is any function."""
        for callback in (movie, *logs):
            callback(step, loss, flow)
        for name in looks:
            looks[name].append(flow.numbers[name])

    with movie:
        density.fit(rows, callback=watch)
    for log in logs:
        log.close()

    example.pictures.append(movie.path.name)
    with Image.open(movie.path) as image:
        example.figure("frames of the movie", str(image.n_frames))
    example.figure("looks", str(len(looks["step"])))
    example.figure("truth's NLL", -np.mean(target.log_prob(test)))
    example.figure("NLL", -density.score(test))
    example.figure("TensorBoard log", "written" if logs else "tensorboardX is not installed")
    # What returns True ends the training: it is validated, and the best weights are kept.
    enough = -np.mean(target.log_prob(test)) + 0.1
    density.fit(rows, callback=lambda step, loss, flow: flow.numbers["nll"] < enough)
    example.figure("stopped at 0.1 nats above the truth: steps, NLL", f"{density.n_iter_}, {-density.score(test):.4f}")
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(looks["step"], looks["loss"], color="#0072B2")
    left.set(title="what the callback was told: loss", xlabel="step", ylabel="matching loss")
    right.plot(looks["step"], looks["nll"], color="#D55E00", drawstyle="steps-post")
    right.set(title="best NLL of the validations so far", xlabel="step", ylabel="nats")
    example.picture(figure, "told")
    example.end()


if __name__ == "__main__":
    main()

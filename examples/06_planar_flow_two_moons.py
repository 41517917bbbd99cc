"""Twenty planar layers on two moons: fitted data to base, by formula, and sampled by their numerical inverse."""

import equinox as eqx
import jax
import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville import FlowDensity, evaluation
from liouville.bijections import Chain, Invert, Standardize
from liouville.data import two_moons
from liouville.distributions import Normal, Transformed
from liouville.objectives import MaximumLikelihood
from liouville.papers import Planar
from liouville.plots import plot_training
from liouville.training import Budget, Options, Trainer, TrainingData

LAYERS, WINDOW, TARGET_TOP = 20, (-3.8, 3.8, -2.8, 2.8), 0.17


def train(example: Example, rows: np.ndarray, validation: np.ndarray, units: Standardize) -> Trainer:
    """Fit the flow: 2,000 iterations of 500 rows."""

    def build(key) -> Transformed:
        layers = [Planar((2,), key=k) for k in jax.random.split(key, example.size(LAYERS, 3))]
        # Inverted, data to base is the direction of the formula: the one that likelihood needs.
        return Transformed(Normal.standard((2,)), Chain([Invert(Chain(layers)), units]))

    trainer = Trainer(
        build,
        MaximumLikelihood(),
        TrainingData.pad(rows, np.ones(len(rows))),
        lambda flow: evaluation.score(flow, validation)[0],
        options=Options(learning_rate=2e-2, batch_size=500),
        budget=Budget(max_iter=example.size(2000, 5)),
        seed=0,
    )
    return trainer.run(goals=(0.24, 0.5, 0.75, 1.0), patience=5)


def density_map(axes, log_prob, title: str, num: int = 160) -> None:
    """Draw a density on a grid."""
    x, y = np.linspace(*WINDOW[:2], num), np.linspace(*WINDOW[2:], num)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    density = np.exp(log_prob(grid)).reshape(num, num)
    axes.imshow(density, origin="lower", extent=WINDOW, cmap="viridis", vmin=0, vmax=TARGET_TOP)
    axes.set_title(title)


def pictures(example: Example, flow: Transformed, default: FlowDensity, rows: np.ndarray, drawn: np.ndarray) -> None:
    """Draw data, both densities and what the numerical inverse draws."""
    figure = Figure(figsize=(13, 2.7), layout="constrained")
    panels = figure.subplots(1, 4)
    for axes, points, title in ((panels[0], rows, "data"), (panels[2], drawn, "planar flow: samples")):
        axes.scatter(*points[:2000].T, s=2, color="0.2", linewidths=0)
        axes.set_title(title)
    density_map(panels[1], lambda grid: evaluation.score(flow, grid)[0], f"planar flow: density ({LAYERS} layers)")
    density_map(panels[3], default.score_samples, "FlowDensity(): density")
    for axes in panels:
        axes.set(xlim=WINDOW[:2], ylim=WINDOW[2:], xticks=[], yticks=[], aspect="equal")
    example.picture(figure, "densities")


def main() -> None:
    """Fit both, say how well, and sample by bisection."""
    example = Example(
        "06_planar_flow_two_moons",
        "Planar flow on two moons",
        "Rezende and Mohamed, Variational inference with normalizing flows, 2015; FlowJAX's layers in a notebook",
        "train 1.55, validation 1.62 at iteration 479",
    )
    target, rng = two_moons(), np.random.default_rng(0)
    # As published: 5,000 points, a tenth of them to validate.
    rows, validation, test = (
        target.sample(rng, num) for num in (example.size(4500, 600), example.size(500, 100), 5000)
    )
    units = Standardize.fit(rows, np.ones(len(rows)))
    trainer = train(example, rows, validation, units)
    history = trainer.history
    # The published figures are of standardized columns: so are these.
    shift = np.log(units.scale).sum()
    step, nll = next((s, n) for s, n in zip(history["step"], history["nll"], strict=True) if np.isfinite(n))
    example.figure(f"validation NLL at iteration {step}", nll - shift)
    flow = trainer.best_flow()
    for name, points in (("train", rows), ("validation", validation), ("test", test)):
        example.figure(f"{name} NLL, at the end", -evaluation.score(flow, points)[0].mean() - shift)
    example.figure("the truth's NLL, of the test rows", -target.log_prob(test).mean() - shift)

    options = {"max_iter": 5, "preprocess": "standardize"} if example.fast else {}
    default = FlowDensity(random_state=0, **options).fit(rows)
    example.figure("test NLL, FlowDensity()", -default.score(test) - shift)

    draw = eqx.filter_jit(lambda flow, key: flow.sample_and_log_prob(key, (example.size(5000, 100),)))
    drawn, log_prob = (np.asarray(part, np.float64) for part in draw(flow, jax.random.key(2)))
    # There the inverse, here the formula: both must say the same of the same points.
    error = np.abs(evaluation.score(flow, drawn)[0] - log_prob)
    example.figure("samples whose inverse failed", f"{np.isnan(drawn).any(axis=1).sum()} of {len(drawn)}")
    example.figure("log-density by inverse against formula, largest difference", f"{np.nanmax(error):.1e}")
    pictures(example, flow, default, rows, drawn[np.isfinite(drawn).all(axis=1)])
    example.picture(plot_training(history, "step"), "training")
    example.end()


if __name__ == "__main__":
    main()

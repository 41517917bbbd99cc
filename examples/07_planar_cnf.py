"""The planar CNF on two moons, in the paper's form and the notebook's, its divergence in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville import FlowDensity, evaluation
from liouville.bijections import CNF
from liouville.data import two_moons
from liouville.density import Density
from liouville.distributions import Normal, Transformed
from liouville.divergences import Exact, Hutchinson
from liouville.frames import fit_table
from liouville.integrate import Integrator
from liouville.objectives import MaximumLikelihood
from liouville.papers import PlanarField
from liouville.plots import plot_training
from liouville.training import Budget, Options, Trainer, TrainingData

TERMS, TIME = 20, 0.7


def train(example: Example, rows: np.ndarray, form: str) -> tuple[Density, dict]:
    """Fit the planar CNF: 1,500 iterations of 256 rows; return it with its history."""
    frame, points = fit_table("standardize", rows, np.ones(len(rows)))

    def build(key):
        field = PlanarField((2,), width=TERMS, depth=2, form=form, key=key)
        # Adaptive: between a few constant steps gates without bounds hide what the flow itself does not do.
        return Transformed(Normal.standard((2,)), CNF(field, integrator=Integrator()))

    trainer = Trainer(
        build,
        MaximumLikelihood(),
        TrainingData.pad(points, np.ones(len(points))),
        lambda core: evaluation.score(Density(core, frame), rows[:500])[0],
        options=Options(learning_rate=1e-2, batch_size=example.size(256, 50)),
        budget=Budget(max_iter=example.size(1500, 5)),
        seed=0,
    )
    trainer.run((0.25, 0.5, 0.75, 1.0))
    return Density(trainer.best_flow(), frame), trainer.history


def divergences(field: PlanarField, points: np.ndarray) -> dict[str, np.ndarray]:
    """Return the field's divergence at points, in closed form and by what knows nothing of it."""
    value = lambda x: field(TIME, x)
    ways = {"forward": Hutchinson("gaussian"), "reverse": Hutchinson("gaussian", mode="reverse")}

    @jax.jit
    @jax.vmap
    def at(x, key):
        closed = field.value_and_divergence(TIME, x, None, lambda fn, x: Exact().linearize(fn, x, None))
        found = {"closed form": closed.estimates[0], "exact": Exact()(value, x, None)[1]}
        # One key: both modes meet the same probe.
        return found | {name: way(value, x, way.init(x, key))[1] for name, way in ways.items()}

    return at(jnp.asarray(points), jax.random.split(jax.random.key(1), len(points)))


def density_picture(scores: dict, data: np.ndarray, samples: np.ndarray, num: int) -> Figure:
    """Draw data, the samples of the planar CNF, and the log-density of each model."""
    x, y = np.linspace(-3.8, 3.8, num), np.linspace(-2.8, 2.8, num)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for axes, (name, rows) in zip(panels, {"data": data, "samples of the planar CNF": samples}.items(), strict=False):
        axes.scatter(*rows[:2000].T, s=3, alpha=0.4, linewidths=0)
        axes.set_title(name)
    for axes, (name, score) in zip(panels[2:], scores.items(), strict=True):
        log_prob = score(grid).reshape(num, num)
        top = np.nanmax(log_prob)
        image = axes.pcolormesh(x, y, log_prob, vmin=top - 10, vmax=top, cmap="magma", rasterized=True)
        figure.colorbar(image, ax=axes, label="log-density (nats)", extend="min")
        axes.set_title(name)
    for axes in panels:
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    return figure


def divergence_picture(found: dict[str, np.ndarray]) -> Figure:
    """Draw each way to the divergence against the closed form."""
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    titles = {
        "exact": "exact, by the Jacobian",
        "forward": "one probe, forward mode (jvp)",
        "reverse": "one probe, reverse mode (vjp)",
    }
    for axes, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        axes.scatter(found["closed form"], found[name], s=8, alpha=0.6, linewidths=0)
        axes.axline((0, 0), slope=1, color="0.5", lw=1, zorder=0)
        axes.set(title=title, xlabel="closed form")
    figure.axes[0].set_ylabel("divergence")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    example = Example(
        "07_planar_cnf",
        "Planar CNF on two moons",
        "Chen, Rubanova, Bettencourt, Duvenaud: Neural ordinary differential equations, 2018",
    )
    target, rng = two_moons(), np.random.default_rng(0)
    rows, test = target.sample(rng, example.size(10_000, 500)), target.sample(rng, example.size(5000, 100))
    # In standardized columns, as the notebook's.
    shift = np.log(rows.std(0)).sum()
    example.figure("the truth's NLL", -target.log_prob(test).mean() - shift)
    for form in ("terms", "layers")[-example.size(2, 1) :]:
        flow, history = train(example, rows, form)
        example.figure(f"NLL, {TERMS} {form}", -evaluation.score(flow, test)[0].mean() - shift)
    options = {"max_iter": 5, "preprocess": "standardize"} if example.fast else {"max_iter": 3000}
    default = FlowDensity(random_state=0, **options).fit(rows)
    example.figure("NLL, default recipe", -default.score(test) - shift)

    field, units = flow.core.bijection, flow.frame.links[0]
    found = divergences(field.vector_field, units.inverse(test[:400]).astype(np.float32))
    closed = found["closed form"]
    example.figure("largest difference, closed form and exact", f"{np.max(np.abs(closed - found['exact'])):.1e}")
    forward, reverse = found["forward"], found["reverse"]
    example.figure("largest difference, forward and reverse", f"{np.max(np.abs(forward - reverse)):.1e}")
    error = np.asarray(forward - closed)
    std_error = error.std() / np.sqrt(len(error))
    example.figure("mean error of one probe", f"{error.mean():.3f} (standard error {std_error:.3f})")

    samples = evaluation.sample(flow, example.size(2000, 100), seed=0)[0]
    scores = {"planar CNF": lambda x: evaluation.score(flow, x)[0], "default recipe": default.score_samples}
    example.picture(density_picture(scores, rows, samples, example.size(120, 12)), "density")
    example.picture(divergence_picture(found), "divergences")
    example.picture(plot_training(history, "step"), "training")
    example.end()


if __name__ == "__main__":
    main()

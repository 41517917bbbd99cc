"""Stability of a flow: Lyapunov exponents of its paths, and training that keeps them and the last velocity small."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville import evaluation
from liouville.bijections import CNF
from liouville.data import six_gaussians
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.objectives import AbstractObjective, Batch, FlowMatching, WeightedSum
from liouville.papers import LyapunovPenalty, TerminalVelocity, lyapunov_exponents
from liouville.training import Budget, Options, Trainer, TrainingData
from liouville.vector_fields import MLP, Preconditioned

SCALE = 3.0
OBJECTIVES = {
    "none": FlowMatching(),
    "Lyapunov": WeightedSum([(1.0, FlowMatching()), (0.05, LyapunovPenalty(num_points=32))]),
    "Lyapunov, 4 segments": WeightedSum(
        [(1.0, FlowMatching()), (0.05, LyapunovPenalty(num_points=32, num_intervals=4))]
    ),
    "terminal velocity": WeightedSum([(1.0, FlowMatching()), (0.3, TerminalVelocity())]),
}


def build(key) -> Transformed:
    """Return a flow with random weights, which takes eight constant steps."""
    field = Preconditioned(MLP((2,), width=32, depth=2, key=key))
    return Transformed(Normal.standard((2,)), CNF(field, integrator=Integrator.constant(8)))


def train(objective: AbstractObjective, rows: np.ndarray, steps: int) -> Transformed:
    """Return a flow trained by matching plus a penalty; it takes adaptive steps again."""
    data, options = TrainingData.pad(rows, np.ones(len(rows))), Options(learning_rate=3e-3, batch_size=256)
    trainer = Trainer(build, objective, data, lambda flow: np.zeros(1), options=options, budget=Budget(steps), seed=0)
    trainer.run((1.0,))
    field = trainer.flow(trainer.state.average).bijection.vector_field
    return Transformed(Normal.standard((2,)), CNF(field))


@eqx.filter_jit
def exponents(field, z):
    """Return largest finite-time exponents, spectra and evaluations of the paths from base points."""
    one = lambda z: lyapunov_exponents(field, z, integrator=Integrator(), num_intervals=4)
    found = jax.vmap(one)(z)
    return found.largest, found.spectrum, found.info.num_evaluations


def draw(maps: dict[str, np.ndarray], rows: dict[str, np.ndarray], side: np.ndarray) -> Figure:
    """Draw the field of the largest exponent over the base, and where its paths lead."""
    figure = Figure(figsize=(3.6 * len(maps) + 1, 7), layout="constrained")
    panels = figure.subplots(2, len(maps), squeeze=False)
    top = max(np.abs(values).max() for values in maps.values())
    image = None
    for (name, values), upper, lower in zip(maps.items(), *panels, strict=True):
        extent = (side[0], side[-1], side[0], side[-1])
        style = {"cmap": "RdBu_r", "vmin": -top, "vmax": top, "interpolation": "bilinear"}
        image = upper.imshow(values, origin="lower", extent=extent, **style)
        upper.set(title=f"penalty: {name}", xlabel="base, first column")
        lower.scatter(*rows[name].T, s=2, alpha=0.3, color="#D55E00", linewidths=0)
        lower.set(xlim=(-6, 6), ylim=(-6, 6), xlabel="samples, first column", aspect="equal")
    panels[0, 0].set_ylabel("base, second column")
    panels[1, 0].set_ylabel("samples, second column")
    figure.colorbar(image, ax=panels[0], label="largest exponent (nats per unit of time)")
    return figure


def main() -> None:
    """Run the example."""
    example = Example(
        "12_stability",
        "Lyapunov exponents of a flow, and penalties on them and on the terminal velocity",
        "Massaroli, Poli, Park, Yamashita, Asama: Dissecting neural ODEs, 2020",
    )
    target, rng = six_gaussians(), np.random.default_rng(0)
    rows, test = (target.sample(rng, num) / SCALE for num in (example.size(20_000, 500), example.size(1000, 100)))
    side = np.linspace(-3, 3, example.size(81, 11))
    grid = jnp.asarray(np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2))
    base = jax.random.normal(jax.random.key(1), grid.shape)
    example.figure("truth's NLL", -np.mean(target.log_prob(SCALE * test)))
    maps, samples = {}, {}
    for name, objective in list(OBJECTIVES.items())[-example.size(len(OBJECTIVES), 1) :]:
        flow = train(objective, rows, example.size(2000, 20))
        log_prob, info = evaluation.score(flow, test)
        field = flow.bijection.vector_field
        maps[name] = np.asarray(exponents(field, grid)[0]).reshape(len(side), len(side))
        largest, spectrum, _ = exponents(field, base)
        speed, _ = TerminalVelocity()(flow, Batch(jnp.asarray(test)), key=jax.random.key(0))
        mean = np.mean(np.asarray(spectrum), axis=0)
        samples[name] = SCALE * evaluation.sample(flow, example.size(2000, 100), seed=0)[0]
        example.figure(f"{name}: NLL", np.log(SCALE**2) - np.mean(log_prob), 3)
        example.figure(f"{name}: largest exponent, mean and 99th percentile", pair(largest), 2)
        example.figure(f"{name}: spectrum, mean", f"{mean[0]:.2f}, {mean[1]:.2f}")
        example.figure(f"{name}: terminal velocity", float(speed), 2)
        example.figure(f"{name}: evaluations per row", float(np.mean(info.num_evaluations)), 0)
    example.picture(draw(maps, samples, side), "exponents")
    example.end()


def pair(values) -> str:
    """Return mean and 99th percentile in words."""
    return f"{np.mean(values):.2f}, {np.quantile(values, 0.99):.2f}"


if __name__ == "__main__":
    main()

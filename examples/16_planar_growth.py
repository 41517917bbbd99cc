"""Planar flow against planar CNF as both grow: by KL on a known density, by likelihood on two moons."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville import evaluation
from liouville.bijections import CNF, Chain, Invert
from liouville.data import ring_with_two_lobes, two_moons
from liouville.density import Density
from liouville.distributions import AbstractDistribution, Normal, Transformed
from liouville.flows import until
from liouville.frames import fit_table
from liouville.objectives import AbstractObjective, MaximumLikelihood
from liouville.papers import Planar, PlanarField, ReverseKL, evidence, log_weights
from liouville.training import Budget, Options, Trainer, TrainingData

SIZES, TIMES = (2, 8, 32), (0.0, 0.25, 0.5, 0.75, 1.0)


def planar_flow(num: int, inverted: bool) -> Callable:
    """Return a function of a key that builds `num` planar layers; inverted, the formula goes from data to base."""

    def build(key) -> Transformed:
        layers = Chain([Planar((2,), key=k) for k in jax.random.split(key, num)])
        return Transformed(Normal.standard((2,)), Invert(layers) if inverted else layers)

    return build


def planar_cnf(num: int) -> Callable:
    """Return a function of a key that builds a CNF of `num` planar terms."""

    def build(key) -> Transformed:
        field = PlanarField((2,), width=num, depth=2, gate_width=40, form="layers", key=key)
        return Transformed(Normal.standard((2,)), CNF(field))

    return build


def fit(example: Example, build: Callable, objective: AbstractObjective, rows: np.ndarray, validate, steps: int):
    """Train by an objective; return the best flow."""
    trainer = Trainer(
        build,
        objective,
        TrainingData.pad(rows, np.ones(len(rows))),
        validate,
        options=Options(learning_rate=1e-2, batch_size=example.size(256, 16)),
        budget=Budget(max_iter=example.size(steps, 3)),
        seed=0,
    )
    return trainer.run(goals=(0.5, 0.75, 1.0)).best_flow()


def by_kl(example: Example, energy) -> dict[str, Transformed]:
    """Fit flows of all sizes to a density that is known up to a factor, without data."""
    found = {}
    for size in SIZES[: example.size(3, 1)]:
        for kind, build in (("planar flow, K", planar_flow(size, False)), ("planar CNF, M", planar_cnf(size))):
            score = lambda flow: log_weights(flow, energy.log_density, 1000, seed=1)[1]
            flow = fit(example, build, ReverseKL(energy.log_density), np.zeros((1, 2)), score, 1500)
            weights = log_weights(flow, energy.log_density, example.size(10_000, 100), seed=2)[1]
            # The bound's distance from log Z is the divergence itself.
            name = f"{kind} = {size}"
            divergence = energy.log_normalizer() - np.mean(weights)
            share = evidence(weights).effective_sample_size
            example.figure(f"{energy.name}, {name}: KL (nats), effective sample size", f"{divergence:.3f}, {share:.2f}")
            found[name] = flow
    return found


def by_likelihood(example: Example, target) -> dict[str, Density]:
    """Fit flows of all sizes to rows of a target whose density is known."""
    rng = np.random.default_rng(0)
    rows, validation, test = (
        target.sample(rng, num) for num in (example.size(10_000, 300), example.size(1000, 50), 4000)
    )
    test = test[: example.size(4000, 100)]
    frame, points = fit_table("standardize", rows, np.ones(len(rows)))
    truth, found = target.log_prob(test), {}
    for size in SIZES[: example.size(3, 1)]:
        kinds = (("planar flow, K", planar_flow(size, True)), ("planar CNF, M", planar_cnf(size)))
        for kind, build in kinds:
            score = lambda core: evaluation.score(Density(core, frame), validation)[0]
            flow = Density(fit(example, build, MaximumLikelihood(), points, score, 2000), frame)
            gap = np.mean(truth - evaluation.score(flow, test)[0])
            name = f"{kind} = {size}"
            example.figure(f"{target.name}, {name}: NLL above the truth's (nats)", gap)
            found[name] = flow
    return found


def maps(title: str, truth: Callable, flows: dict[str, AbstractDistribution], reach: float, num: int) -> Figure:
    """Draw the density of the truth and of each flow: flows above, CNFs below."""
    grid = np.stack(np.meshgrid(*[np.linspace(-reach, reach, num)] * 2), axis=-1).reshape(-1, 2)
    values = {title: np.exp(truth(grid))}
    values |= {name: np.exp(np.asarray(flow_log_prob(flow, grid))) for name, flow in flows.items()}
    top, columns = values[title].max(), 1 + len(flows) // 2
    figure = Figure(figsize=(2.6 * columns, 5.4), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False)
    names = [title, *[n for n in flows if "flow" in n], title, *[n for n in flows if "CNF" in n]]
    for axes, name in zip(panels.ravel(), names, strict=True):
        axes.imshow(values[name].reshape(num, num), origin="lower", extent=(-reach, reach) * 2, vmin=0, vmax=top)
        axes.set(title=name, xticks=[], yticks=[])
    return figure


@eqx.filter_jit
def flow_log_prob(flow: AbstractDistribution, points):
    """Return log-densities of points; of flows that are solved, NaN where the solve failed."""
    return flow.log_prob(jnp.asarray(points))


def on_the_way(flow: Transformed | Density, reach: float, num: int) -> Figure:
    """Draw the density of a CNF at several times from base to data."""
    grid = np.stack(np.meshgrid(*[np.linspace(-reach, reach, num)] * 2), axis=-1).reshape(-1, 2)
    figure = Figure(figsize=(13, 2.9), layout="constrained")
    for axes, time in zip(figure.subplots(1, len(TIMES)), TIMES, strict=True):
        density = np.exp(evaluation.score(until(flow, time), grid)[0]).reshape(num, num)
        axes.imshow(density, origin="lower", extent=(-reach, reach) * 2, vmin=0)
        axes.set(title=f"t = {time:g}", xticks=[], yticks=[])
    return figure


def main() -> None:
    """Fit all, print how far each is from the truth, and draw."""
    authors = "Chen, Rubanova, Bettencourt, Duvenaud"
    example = Example(
        "16_planar_growth", "Planar flow against planar CNF", f"{authors}: Neural ODEs, 2018, figures 4 and 5"
    )
    energy, moons, num = ring_with_two_lobes(), two_moons(), example.size(90, 12)
    flows = by_kl(example, energy)
    truth = lambda x: np.asarray(energy.log_density(jnp.asarray(x))) - energy.log_normalizer()
    example.picture(maps("target", truth, flows, 4.5, num), "kl")
    flows = by_likelihood(example, moons)
    example.picture(maps("two moons", moons.log_prob, flows, 4.0, num), "moons")
    example.picture(on_the_way(list(flows.values())[-1], 4.0, num), "times")
    example.end()


if __name__ == "__main__":
    main()

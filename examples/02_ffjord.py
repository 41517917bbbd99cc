"""FFJORD on eight Gaussians: one fixed probe in training, exact evaluation, a trained end time, stacked flows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville.bijections import CNF, Chain, map_cnfs
from liouville.data import Target, mixture
from liouville.distributions import Normal, Transformed
from liouville.divergences import AbstractDivergence, Hutchinson
from liouville.integrate import Integrator
from liouville.objectives import MaximumLikelihood
from liouville.papers import MovingAverages, MovingNorm, TrainedTime
from liouville.training import Budget, Options, Trainer, TrainingData
from liouville.vector_fields import ConcatSquash

CONDITIONINGS = ("concat_squash", "concat", "squash", "blend", "hyper")


def eight_gaussians() -> Target:
    """Return the paper's target: eight narrow Gaussians on a circle."""
    angles = np.arange(8) * np.pi / 4
    centres = 4 * np.stack([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(2)
    return mixture("eight Gaussians", centres, np.full(8, 0.5 / np.sqrt(2)))


def ffjord(key, divergence: AbstractDivergence, integrator: Integrator, depth: int, blocks: int = 1, **options):
    """Return the paper's toy flow: fields of 64-64-64 tanh units with end times of their own, normalized between."""
    field = lambda k: ConcatSquash((2,), width=64, depth=depth, key=k, **options)
    keys = jax.random.split(key, blocks)
    links = [CNF(TrainedTime(field(k), end_time=0.5), divergence, integrator) for k in keys]
    parts = [part for link in links for part in (link, MovingNorm((2,)))][:-1]
    return Transformed(Normal.standard((2,)), parts[0] if blocks == 1 else Chain(parts))


def train(example: Example, build, rows: np.ndarray, steps: int) -> Transformed:
    """Train by likelihood on the paper's batches of 100; three steps under ``--fast``."""
    trainer = Trainer(
        build,
        MovingAverages(MaximumLikelihood()),
        TrainingData.pad(rows, np.ones(len(rows))),
        lambda flow: log_prob(flow, rows[:100])[0],
        options=Options(learning_rate=5e-3, batch_size=example.size(100, 16)),
        budget=Budget(max_iter=example.size(steps, 3)),
        seed=0,
    )
    while trainer.progress < 1:
        trainer.train_towards(1.0)
    return trainer.flow(trainer.state.average)


def exact(flow: Transformed, integrator: Integrator) -> Transformed:
    """Return the same weights with the exact divergence, for evaluation."""
    return map_cnfs(lambda cnf: CNF(cnf.vector_field, integrator=integrator), flow)


@eqx.filter_jit
def log_prob(flow: Transformed, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Return the log-density of each row, and the mean number of evaluations of the fields."""
    keys = jax.random.split(jax.random.key(3), len(rows))
    moved = jax.vmap(lambda x, key: flow.bijection.to_base(x, key=key))(jnp.asarray(rows), keys)
    return flow.base.log_prob(moved.x) + moved.log_det, jnp.mean(moved.info.num_evaluations)


def report(example: Example, label: str, flow: Transformed, rows: np.ndarray) -> tuple[float, float]:
    """Print and return the NLL and the evaluations of a flow."""
    values, evaluations = log_prob(flow, rows)
    example.figure(label, f"NLL {-values.mean():.3f}, {evaluations:.0f} evaluations")
    return -float(values.mean()), float(evaluations)


def density_picture(target: Target, rows: np.ndarray, flows: dict[str, Transformed], num: int) -> Figure:
    """Draw data, samples of the first flow, and the log-densities of the target and the flows on one scale."""
    axis = np.linspace(-4.5, 4.5, num)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    figure = Figure(figsize=(3.4 * (2 + len(flows)), 3.6), layout="constrained")
    data, *panels = figure.subplots(1, 2 + len(flows), sharex=True, sharey=True)
    samples = flows["FFJORD"].sample(jax.random.key(4), (2000,))
    for cloud, name in ((rows[:2000], "data"), (np.asarray(samples), "samples of FFJORD")):
        data.scatter(*cloud.T, s=3, alpha=0.4, linewidths=0, label=name)
    data.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, markerscale=4, frameon=False)
    maps = {"target": target.log_prob(grid)} | {name: log_prob(flow, grid)[0] for name, flow in flows.items()}
    top = maps["target"].max()
    for axes, (name, values) in zip(panels, maps.items(), strict=True):
        values = np.reshape(values, (num, num))
        image = axes.pcolormesh(axis, axis, values, vmin=top - 10, vmax=top, cmap="magma", rasterized=True)
        axes.set(title=name, box_aspect=1)
    data.set(title="data and samples", box_aspect=1, xlim=(-4.5, 4.5), ylim=(-4.5, 4.5))
    figure.colorbar(image, ax=panels, label="log-density (nats)", extend="min")
    return figure


def conditioning_picture(found: dict[str, tuple[float, float]], truth: float) -> Figure:
    """Draw what each time conditioning reached in as many steps, and what an evaluation of it costs."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    names, places = [name.replace("_", "-") for name in found], range(len(found))
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(places, [nll - truth for nll, _ in found.values()])
    left.set(yticks=places, yticklabels=names, xlabel="NLL above the target's (nats)")
    right.barh(places, [evaluations for _, evaluations in found.values()])
    right.set(xlabel="evaluations of the field")
    left.invert_yaxis()
    figure.suptitle("Five ways to tell a layer the time, 200 steps each")
    return figure


def main() -> None:
    """Train, evaluate, compare, draw."""
    authors = "Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud"
    example = Example("02_ffjord", "FFJORD in two dimensions", f"{authors}: FFJORD, 2019")
    target = eight_gaussians()
    rows = target.sample(np.random.default_rng(0), example.size(20_000, 200))
    test = target.sample(np.random.default_rng(1), example.size(2000, 50))
    truth = -target.log_prob(test).mean()
    example.figure("NLL, the target itself", truth)
    constant = Integrator.constant(example.size(8, 1))
    adaptive, final = (constant, constant) if example.fast else (Integrator.adaptive(1e-4, 1e-4), Integrator())
    gaussian, signs, depth = Hutchinson("gaussian"), Hutchinson("rademacher"), example.size(3, 1)

    flow = train(example, lambda key: ffjord(key, gaussian, adaptive, depth), rows, steps=1500)
    flows = {"FFJORD": exact(flow, final)}
    report(example, "FFJORD", flows["FFJORD"], test)
    example.figure("the same weights by one probe", f"NLL {-log_prob(flow, test)[0].mean():.3f}")
    example.figure("end time, from 0.5", float(flow.bijection.vector_field.end_time), 3)
    stacked = train(example, lambda key: ffjord(key, signs, constant, depth, blocks=2), rows, steps=300)
    flows["two flows stacked"] = exact(stacked, final)
    report(example, "two flows stacked", flows["two flows stacked"], test)
    example.picture(density_picture(target, rows, flows, example.size(100, 10)), "density")

    found = {}
    for name in CONDITIONINGS[: example.size(5, 1)]:
        build = lambda key, name=name: ffjord(key, gaussian, constant, depth, conditioning=name)
        trained = train(example, build, rows, steps=200)
        found[name] = report(example, f"{name}, 200 steps", exact(trained, final), test)
    example.picture(conditioning_picture(found, truth), "conditionings")
    example.end()


if __name__ == "__main__":
    main()

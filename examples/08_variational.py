"""Fits without data: four kinds of flow on densities that are known up to a factor, and what their weights say."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville.bijections import CNF, Chain
from liouville.data import Energy, rezende_mohamed
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.papers import (
    Evidence,
    Planar,
    Radial,
    Residual,
    ReverseKL,
    effective_sample_size_of_target,
    evidence,
    log_weights,
)
from liouville.training import Budget, Options, Trainer, TrainingData
from liouville.vector_fields import MLP

CNF_STEPS = 6


def layers(cls: type, num: int, **options) -> Callable:
    """Return a function of a key that builds a flow of `num` layers of one kind."""

    def build(key) -> Transformed:
        chain = Chain([cls((2,), key=k, **options) for k in jax.random.split(key, num)])
        return Transformed(Normal.standard((2,)), chain)

    return build


def build_cnf(key) -> Transformed:
    """Build a CNF, for training by constant steps."""
    field = MLP((2,), width=32, depth=2, key=key)
    return Transformed(Normal.standard((2,)), CNF(field, integrator=Integrator.constant(CNF_STEPS)))


def fit(example: Example, build: Callable, energy: Energy, steps: int, learning_rate: float) -> Transformed:
    """Fit a flow by the reverse divergence. The table is empty: all points are the flow's own draws."""
    trainer = Trainer(
        build,
        ReverseKL(energy.log_density),
        TrainingData.pad(np.zeros((1, 2)), np.ones(1)),
        # The key is fixed, so that validations differ by the fit alone; the mean is a lower bound.
        lambda flow: log_weights(flow, energy.log_density, 1000, seed=1)[1],
        options=Options(learning_rate=learning_rate, batch_size=128 if build is build_cnf else 256),
        budget=Budget(max_iter=example.size(steps, 3)),
        seed=0,
    )
    flow = trainer.run(goals=(1.0,)).best_flow()
    return eqx.tree_at(lambda f: f.bijection.integrator, flow, Integrator()) if build is build_cnf else flow


def judge(example: Example, name: str, flow: Transformed, energy: Energy) -> tuple[np.ndarray, Evidence]:
    """Print what a fit's draws say, and what draws of the target say of it; return the draws."""
    points, weights = log_weights(flow, energy.log_density, example.size(4000, 100), seed=2)
    found = evidence(weights)
    target = jnp.asarray(energy.sample(np.random.default_rng(0), example.size(2000, 100)))
    backward = np.asarray(energy.log_density(target) - eqx.filter_jit(lambda f, x: f.log_prob(x))(flow, target))
    seen = effective_sample_size_of_target(backward)
    covers = "covers the target" if seen > 0.1 * found.effective_sample_size else "not judged"
    verdict = "drops part of the target" if seen <= 0.1 * found.effective_sample_size else covers
    example.figure(
        f"{energy.name}, {name}",
        f"log Z {found.log_normalizer:.3f} (standard error {found.std_error:.3f}, bound {found.lower_bound:.3f}), "
        f"ESS {found.effective_sample_size:.2f}, from the target {seen:.2g}: {verdict}",
    )
    return points, found


def draw_row(panels, energy: Energy, fits: dict, num: int) -> None:
    """Draw the densities of a target and of fits in the first row, draws in the second."""
    reach = 4.5
    edge = np.linspace(-reach, reach, num)
    grid = jnp.asarray(np.stack(np.meshgrid(edge, edge), axis=-1).reshape(-1, 2))
    values = {"target": np.asarray(energy.log_density(grid)) - energy.log_normalizer()}
    draws = {"target": energy.sample(np.random.default_rng(1), 1500)}
    for name, (flow, points, _) in fits.items():
        values[name] = np.asarray(eqx.filter_jit(lambda f, x: f.log_prob(x))(flow, grid))
        draws[name] = points[:1500]
    top = np.exp(values["target"].max())
    for axes, name in zip(panels[0], values, strict=True):
        share = "" if name == "target" else f"\nESS {fits[name][2].effective_sample_size:.2f}"
        axes.imshow(
            np.exp(values[name]).reshape(num, num), origin="lower", extent=(-reach, reach) * 2, vmin=0, vmax=top
        )
        axes.set_title(name + share if share else f"{energy.name}\ntarget", fontsize=10)
    for axes, points in zip(panels[1], draws.values(), strict=True):
        axes.scatter(*points.T, s=2, color="0.2", linewidths=0)
    for axes in [*panels[0], *panels[1]]:
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")


def main() -> None:
    """Fit, judge and draw: the ring by each kind of flow, the other targets by two."""
    example = Example(
        "08_variational",
        "Variational fits to unnormalized densities",
        "Rezende and Mohamed, Variational inference with normalizing flows, 2015",
    )
    most = example.size(16, 2)
    blocks = layers(Residual, example.size(8, 1), width=32, depth=1, activation="tanh")
    kinds = {
        "16 planar layers": (layers(Planar, most), 1200, 1e-2),
        "16 radial layers": (layers(Radial, most), 1200, 1e-2),
        "residual flow": (blocks, 600, 3e-3),
        "residual, in haste": (blocks, 400, 1e-2),
        "CNF": (build_cnf, 300, 1e-2),
    }
    ring, *waves = rezende_mohamed()
    width = example.size(90, 20)
    figure = Figure(figsize=(12.5, 4.8), layout="constrained")
    few = {name: kinds[name] for name in ("16 planar layers", "CNF")}
    if example.fast:
        kinds = {name: kinds[name] for name in ("16 planar layers", "16 radial layers")}
    plans = [(ring, kinds, figure.subplots(2, 1 + len(kinds)))]
    other = Figure(figsize=(12.5, 3.3), layout="constrained")
    grid = other.subplots(2, 9)
    plans += [(wave, few, grid[:, 3 * i : 3 * i + 3]) for i, wave in enumerate(waves[: example.size(3, 0)])]
    for energy, chosen, panels in plans:
        example.figure(f"{energy.name}, log Z by quadrature", energy.log_normalizer(), 3)
        fits = {}
        for name, (build, steps, rate) in chosen.items():
            flow = fit(example, build, energy, steps, rate)
            fits[name] = flow, *judge(example, name, flow, energy)
        draw_row(panels, energy, fits, width)
    example.picture(figure, "ring")
    example.picture(other, "waves")
    example.end()


if __name__ == "__main__":
    main()

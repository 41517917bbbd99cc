"""Weights that vary with time: Galerkin and hypernetwork fields beside a plain one with as many parameters."""

import equinox as eqx
import jax
import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville import evaluation
from liouville.bijections import CNF, Standardize
from liouville.data import Target, six_gaussians
from liouville.density import Density
from liouville.distributions import Normal, Transformed
from liouville.frames import Frame
from liouville.objectives import FlowMatching
from liouville.papers import Galerkin, Hypernetwork
from liouville.training import Budget, Options, Trainer, TrainingData
from liouville.vector_fields import MLP, AbstractVectorField

FIELDS = {
    "plain": lambda **size: MLP((2,), depth=1, **size),
    "polynomial": lambda **size: Galerkin((2,), basis="polynomial", **size),
    "Chebyshev": lambda **size: Galerkin((2,), basis="chebyshev", **size),
    "Fourier": lambda **size: Galerkin((2,), basis="fourier", **size),
    "hypernetwork": lambda **size: Hypernetwork((2,), hyper_width=4, **size),
}
PARAMETERS = 12_000


def num_parameters(field: AbstractVectorField) -> int:
    """Return the number of parameters of a field, or of its shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(field, lambda leaf: hasattr(leaf, "size"))))


def width_for(build) -> int:
    """Return the width with which a field comes nearest to the number of parameters."""
    shapes = lambda width: eqx.filter_eval_shape(lambda: build(width=width, key=jax.random.key(0)))
    return min(range(16, 97, 2), key=lambda width: abs(num_parameters(shapes(width)) - PARAMETERS))


def train(example: Example, build, rows: np.ndarray) -> Density:
    """Fit a flow by flow matching, in the same number of steps for all."""
    units, width = Standardize.fit(rows, np.ones(len(rows))), width_for(build)
    core = units.inverse(rows)
    trainer = Trainer(
        lambda key: Transformed(Normal.standard((2,)), CNF(build(width=width, key=key))),
        FlowMatching(time_skew=2.0),
        TrainingData.pad(core, np.ones(len(core))),
        lambda flow: evaluation.score(flow, core[:500])[0],
        options=Options(learning_rate=3e-3, batch_size=example.size(512, 32)),
        budget=Budget(max_iter=example.size(3000, 3)),
        seed=0,
    )
    while trainer.progress < 1:
        trainer.train_towards(1.0)
    flow = trainer.flow(trainer.state.average)
    return Density(flow, Frame((2,), (units,)))


def density_picture(target: Target, flows: dict[str, Density], figures: dict[str, float], num: int) -> Figure:
    """Draw the target's log-density and that of every flow, on one scale."""
    axis = np.linspace(-6.5, 6.5, num)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    maps = {"the target": target.log_prob(grid)}
    maps |= {f"{name}, NLL {figures[name]:.3f}": evaluation.score(flow, grid)[0] for name, flow in flows.items()}
    top = maps["the target"].max()
    for axes, (title, log_prob) in zip(panels, maps.items(), strict=False):
        image = axes.pcolormesh(
            axis, axis, log_prob.reshape(num, num), vmin=top - 10, vmax=top, cmap="magma", rasterized=True
        )
        axes.set(title=title, box_aspect=1)
    figure.colorbar(image, ax=panels, label="log-density (nats)", extend="min")
    return figure


def weights_picture(flows: dict[str, Density], num_units: int = 6) -> Figure:
    """Draw how the first weights of some hidden units change from base to data."""
    times = np.linspace(0, 1, 101, dtype=np.float32)
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    for axes, (name, flow) in zip(panels, list(flows.items())[1:], strict=False):
        field = flow.core.bijection.vector_field
        weights = np.asarray(jax.vmap(field.coefficients)(times)) @ np.asarray(field.layers[0].weight[:, :num_units, 0])
        axes.plot(times, weights, lw=1.5)
        axes.set(title=name, xlabel="time: 0 base, 1 data")
    panels[0].set_ylabel("weight of the first layer")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    example = Example(
        "11_depth_varying",
        "Depth-varying parameters on six Gaussians",
        "Massaroli, Poli, Park, Yamashita, Asama: Dissecting neural ODEs, 2020",
    )
    target = six_gaussians()
    rows = target.sample(np.random.default_rng(0), example.size(16_384, 500))
    test = target.sample(np.random.default_rng(1), example.size(2000, 100))
    example.figure("NLL, the target itself", -target.log_prob(test).mean())
    builds = dict(list(FIELDS.items())[: example.size(5, 2)])
    flows, figures = {}, {}
    for name, build in builds.items():
        flows[name] = train(example, build, rows)
        log_prob, info = evaluation.score(flows[name], test)
        figures[name] = -log_prob.mean()
        example.figure(
            name,
            f"NLL {figures[name]:.4f}, {info.num_evaluations.mean():.0f} evaluations, "
            f"{num_parameters(flows[name].core.bijection.vector_field)} parameters",
        )
    example.picture(density_picture(target, flows, figures, example.size(90, 12)), "density")
    example.picture(weights_picture(flows), "weights")
    example.end()


if __name__ == "__main__":
    main()

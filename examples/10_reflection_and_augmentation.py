"""What a flow cannot do: the reflection x to -x on a line; one more dimension goes around, for densities too."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from example import Example
from matplotlib.figure import Figure
from scipy.special import logsumexp

from liouville import evaluation
from liouville.bijections import CNF
from liouville.data import three_modes
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.objectives import AbstractObjective, FlowMatching
from liouville.papers import AugmentedBound
from liouville.plots import draw_streamlines
from liouville.training import Budget, Options, Trainer, TrainingData
from liouville.vector_fields import MLP, AbstractVectorField, Preconditioned

TIMES = np.linspace(0, 1, 41)


class Reflection(AbstractObjective):
    """Mean squared error of the flow's end against -x: the regression of a neural ODE."""

    def __call__(self, flow, batch, *, key):
        ends = jax.vmap(lambda x: flow.bijection.transform(jnp.append(x, 0.0)))(batch.x)
        return jnp.mean((ends[:, 0] + batch.x[:, 0]) ** 2), {"evaluations": jnp.ones(())}


def train(build, objective: AbstractObjective, rows: np.ndarray, steps: int, rate: float, batch_size: int):
    """Return the flow at the end of training."""
    data, options = TrainingData.pad(rows, np.ones(len(rows))), Options(learning_rate=rate, batch_size=batch_size)
    trainer = Trainer(build, objective, data, lambda flow: np.zeros(1), options=options, budget=Budget(steps), seed=0)
    trainer.run((1.0,))
    return trainer.flow(trainer.state.average)


class Masked(AbstractVectorField):
    """A field that neither sees nor moves what its mask hides: in one dimension, or in two, by one program."""

    shape = (2,)
    cond_shape = None
    field: MLP
    mask: np.ndarray

    def __call__(self, t, x, condition=None):
        return self.mask * self.field(t, self.mask * x)


def reflect(mask: list[float], steps: int) -> CNF:
    """Train a flow of the dimensions that the mask shows to reflect the first one."""
    # Constant steps would be cheated: a few large ones jump over what the flow itself cannot cross.
    integrator = Integrator.adaptive(1e-4, 1e-4, diffrax.Bosh3(), adjoint=diffrax.BacksolveAdjoint())
    field = lambda key: Masked(MLP((2,), width=16, depth=1, key=key), np.array(mask))
    build = lambda key: Transformed(Normal.standard((2,)), CNF(field(key), integrator=integrator))
    rows = np.random.default_rng(0).uniform(-1, 1, (4000, 1))
    return train(build, Reflection(), rows, steps, 1e-2, 64).bijection


@eqx.filter_jit
def paths(cnf: CNF, x):
    """Return the paths of points of the line, of shape ``(points, times, size)``, solved finely."""
    fine = CNF(cnf.vector_field, integrator=Integrator.adaptive(1e-6, 1e-6, max_steps=10_000))
    move = lambda x: fine.move(jnp.append(x, 0.0), 0.0, 1.0, save_times=jnp.asarray(TIMES)).path
    return jax.vmap(move)(x)


def draw_reflection(plain: CNF, line: np.ndarray, plane: np.ndarray) -> Figure:
    """Draw both flows' paths: over time, and in the plane of x and the dimension that was added."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    t, places = np.meshgrid(np.linspace(0, 1, 21), np.linspace(-1.6, 1.6, 33))
    points = np.stack([places.ravel(), np.zeros(places.size)], axis=1)
    velocity = jax.vmap(plain.vector_field)(jnp.asarray(t.ravel()), jnp.asarray(points))[:, 0]
    draw_streamlines(left, t[0], places[:, 0], np.stack([np.ones_like(t), np.reshape(velocity, t.shape)], axis=-1))
    for axes, found in ((left, line), (middle, plane)):
        for path in found:
            axes.plot(TIMES, path[:, 0], color="#0072B2" if path[0, 0] < 0 else "#D55E00", lw=1)
        axes.plot(np.ones(len(found)), -found[:, 0, 0], "k.", ms=5)
        axes.set(xlabel="time", ylabel="x", ylim=(-1.6, 1.6))
    left.set_title("one dimension: field and paths, which\ncannot cross, and the targets (dots)")
    middle.set_title("two dimensions: the paths' shadows\non the first one cross")
    for path in plane:
        right.plot(*path.T, color="#0072B2" if path[0, 0] < 0 else "#D55E00", lw=1)
        right.plot(*path[-1], "k.", ms=5)
    right.set(title="two dimensions:\nthe paths go around", xlabel="x", ylabel="added dimension", aspect="equal")
    return figure


def match(rows: np.ndarray, steps: int) -> Transformed:
    """Train a flow on rows by matching."""
    field = lambda key: Preconditioned(MLP((2,), width=32, depth=2, key=key))
    build = lambda key: Transformed(Normal.standard((2,)), CNF(field(key)))
    return train(build, FlowMatching(), rows, steps, 3e-3, 256)


def bound(flow: Transformed, x: np.ndarray) -> np.ndarray:
    """Return the lower bound of the log-density at each point, by 16 weighted draws."""
    score = eqx.filter_jit(lambda density, x: density.log_prob(x, key=jax.random.key(0)))
    return np.asarray(score(AugmentedBound(flow, 1, 16), x))


def integral(flow: Transformed, x: np.ndarray) -> np.ndarray:
    """Return the log-density at each point by the trapezoidal rule over the dimension that was added."""
    e = np.linspace(-5, 5, 81)
    joint = np.stack(np.meshgrid(x[:, 0], e, indexing="ij"), axis=-1).reshape(-1, 2)
    return logsumexp(evaluation.score(flow, joint)[0].reshape(len(x), len(e)), axis=1) + np.log(e[1] - e[0])


def main() -> None:
    """Run the example."""
    works = (
        "Dupont, Doucet, Teh: Augmented neural ODEs, 2019; Huang, Dinh, Courville: Augmented normalizing flows, 2020"
    )
    example = Example("10_reflection_and_augmentation", "What a flow cannot do, and augmentation", works)
    steps = example.size(1000, 20)
    plain, augmented = reflect([1.0, 0.0], steps), reflect([1.0, 1.0], steps)
    x = np.linspace(-1, 1, example.size(169, 25))[:, None]
    line, plane = (np.asarray(paths(cnf, x)) for cnf in (plain, augmented))
    example.figure("best of any increasing map, mean squared error", np.mean(x**2))
    for name, found in (("one dimension", line), ("one more dimension", plane)):
        example.figure(f"reflection in {name}, mean squared error", np.mean((found[:, -1, 0] + x[:, 0]) ** 2), 6)
    example.picture(draw_reflection(plain, line[::12], plane[::12]), "paths")

    target, rng, scale = three_modes(), np.random.default_rng(1), 3.0
    rows, test = (target.sample(rng, num) / scale for num in (example.size(20_000, 500), example.size(500, 50)))
    flow = match(np.concatenate([rows, rng.normal(size=rows.shape)], axis=1), 4 * steps)
    grid = np.linspace(-2, 2, example.size(201, 21))[:, None]
    truth = lambda x: target.log_prob(scale * x) + np.log(scale)
    example.figure("truth's NLL", -np.mean(truth(test)))
    bounds = bound(flow, np.concatenate([test, grid]))
    example.figure("augmented flow, estimate of the bound by 16 draws", -np.mean(bounds[: len(test)]))
    example.figure("augmented flow, NLL by quadrature", -np.mean(integral(flow, test)))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(grid, np.exp(truth(grid)), color="0.6", lw=4, label="truth")
    axes.plot(grid, np.exp(bounds[len(test) :]), color="#D55E00", label="lower bound by 16 draws")
    axes.plot(grid, np.exp(integral(flow, grid)), "k--", lw=1, label="augmented flow, by quadrature")
    axes.set(title="A density on the line from a flow in the plane", xlabel="x", ylabel="density")
    axes.legend(frameon=False)
    example.picture(figure, "density")
    example.end()


if __name__ == "__main__":
    main()

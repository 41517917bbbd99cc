"""Flow-GAN: one CNF trained by likelihood, against an adversary, and by both losses; the truth is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from example import Example
from matplotlib.figure import Figure

from liouville import evaluation
from liouville._types import partition
from liouville.bijections import CNF, Chain, Standardize
from liouville.data import six_gaussians
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.vector_fields import MLP

# What multiplies the adversary's loss, and what the negative log-likelihood.
KINDS = {"likelihood": (0.0, 1.0), "adversary": (1.0, 0.0), "both": (1.0, 1.0)}
TARGET, REACH, PENALTY = six_gaussians(), 6.5, 0.05
# Adaptive in training, too: a likelihood by few constant steps is no bound, and long training finds that out.
LOOSE, FINE = Integrator.adaptive(1e-3, 1e-3).sharing(), Integrator.adaptive(1e-5, 1e-5, max_steps=20_000)


def models(units: Standardize, key) -> tuple[Transformed, eqx.nn.MLP]:
    """Return a flow and its adversary."""
    keys = jax.random.split(key)
    cnf = CNF(MLP((2,), width=48, depth=2, key=keys[0]), integrator=LOOSE)
    adversary = eqx.nn.MLP(2, "scalar", 128, 3, activation=jax.nn.silu, key=keys[1])
    return Transformed(Normal.standard((2,)), Chain([cnf, units])), adversary


def flow_loss(flow: Transformed, adversary: eqx.nn.MLP, rows, key, weights: tuple[float, float]):
    """Return the weighted sum of how well the adversary tells draws apart, and of the negative log-likelihood."""
    loss, told = jnp.zeros(()), lambda x: jax.nn.softplus(-adversary(x))
    if weights[0]:
        loss += weights[0] * jnp.mean(jax.vmap(told)(flow.sample(key, (len(rows),))))
    if weights[1]:
        loss -= weights[1] * jnp.mean(flow.log_prob(rows))
    return loss


def adversary_loss(adversary: eqx.nn.MLP, rows, drawn):
    """Return the logistic loss of telling rows from draws, and a penalty on the slope at rows."""
    slopes = jax.vmap(jax.grad(adversary))(rows)
    told = jax.nn.softplus(-jax.vmap(adversary)(rows)) + jax.nn.softplus(jax.vmap(adversary)(drawn))
    return jnp.mean(told + PENALTY * jnp.sum(slopes**2, axis=1))


def train(example: Example, weights: tuple[float, float], rows: np.ndarray) -> Transformed:
    """Train a flow by a weighted sum of both losses, its adversary beside it; return the average of its weights."""
    num, size = example.size(1500, 3), example.size(200, 16)
    pair, data = models(Standardize.fit(rows, np.ones(len(rows))), jax.random.key(0)), jnp.asarray(rows)
    # The optimizers move what is trained; what is fixed, such as the change of units, they do not see.
    parameters, constants = partition(pair)
    optimizers = [
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, num), b1=b1))
        for rate, b1 in ((1e-3, 0.9), (2e-3, 0.5))
    ]

    def stepped(i: int, loss, parameters, state):
        # Optax raises floats to whole powers, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizers[i].update(jax.grad(loss)(parameters), state)
        return eqx.apply_updates(parameters, updates), state

    @eqx.filter_jit
    def step(flow, adversary, states, average, key):
        keys = jax.random.split(key, 3)
        batch = data[jax.random.randint(keys[0], (size,), 0, len(data))]
        whole = lambda flow, adversary: eqx.combine((flow, adversary), constants)
        flow_state, adversary_state = states
        if weights[0]:
            drawn = whole(flow, adversary)[0].sample(keys[1], (size,))
            loss = lambda adversary: adversary_loss(whole(flow, adversary)[1], batch, drawn)
            adversary, adversary_state = stepped(1, loss, adversary, adversary_state)
        loss = lambda flow: flow_loss(*whole(flow, adversary), batch, keys[2], weights)
        flow, flow_state = stepped(0, loss, flow, flow_state)
        return flow, adversary, (flow_state, adversary_state), optax.incremental_update(flow, average, 0.005)

    flow, adversary = parameters
    states, average = (optimizers[0].init(flow), optimizers[1].init(adversary)), flow
    for key in jax.random.split(jax.random.key(1), num):
        flow, adversary, states, average = step(flow, adversary, states, average, key)
    return eqx.tree_at(lambda f: f.bijection.links[0].integrator, eqx.combine(average, constants[0]), FINE)


def draw(flows: dict[str, Transformed], num: int) -> Figure:
    """Draw the log-density of the truth and of each flow, above draws of each."""
    axis = np.linspace(-REACH, REACH, num)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = {"truth": TARGET.log_prob(grid)} | {name: evaluation.score(f, grid)[0] for name, f in flows.items()}
    points = {"truth": TARGET.sample(np.random.default_rng(3), 2000)}
    points |= {name: np.asarray(evaluation.sample(f, 2000, seed=3)[0]) for name, f in flows.items()}
    figure = Figure(figsize=(12, 6.3), layout="constrained")
    for column, name in zip(figure.subplots(2, len(values), squeeze=False).T, values, strict=True):
        image, top = values[name].reshape(num, num), values["truth"].max()
        column[0].imshow(image, vmin=top - 12, vmax=top + 2, origin="lower", extent=(-REACH, REACH) * 2)
        column[0].set(title=name)
        column[1].scatter(*points[name].T, s=2, color="#0072B2", linewidths=0)
        for axes in column:
            axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect="equal")
    return figure


def main() -> None:
    """Train three, print how far each is from the truth both ways, and draw."""
    example = Example("18_flow_gan", "Likelihood and an adversary", "Grover, Dhar, Ermon: Flow-GAN, 2018")
    rng = np.random.default_rng(0)
    rows, test = TARGET.sample(rng, 16_384), TARGET.sample(rng, example.size(4000, 20))
    truth = TARGET.log_prob(test)
    example.figure("truth: NLL (nats)", -np.mean(truth))
    found = {}
    for name, weights in KINDS.items():
        flow = found[name] = train(example, weights, rows)
        nll, drawn = -evaluation.score(flow, test)[0], evaluation.sample(flow, len(test), seed=2)[0]
        # How far draws are from the truth, by both log-densities: small where they look right, whatever they miss.
        back = np.mean(evaluation.score(flow, drawn)[0] - TARGET.log_prob(drawn))
        text = f"{np.mean(nll):.3f}, {np.mean(nll + truth):.3f}, {back:.3f}"
        example.figure(f"{name}: NLL, above the truth's, KL of draws from the truth (nats)", text)
    example.picture(draw(found, example.size(120, 12)), "flows")
    example.end()


if __name__ == "__main__":
    main()

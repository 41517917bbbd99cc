"""A variational autoencoder of digits with three posteriors; two latent numbers, so that the truth is a quadrature."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from example import Example
from jax.scipy.special import logsumexp
from matplotlib.figure import Figure

from liouville.bijections import CNF
from liouville.data import digits
from liouville.distributions import Normal
from liouville.integrate import Integrator
from liouville.objectives import AbstractObjective
from liouville.papers import Planar
from liouville.training import Budget, Options, Trainer, TrainingData
from liouville.vector_fields import MLP

PIXELS, FEATURES, LAYERS, PRIOR = 64, 16, 8, Normal.standard((2,))


def move(flow: CNF | tuple[Planar, ...], z, features):
    """Move a point by the flow that an encoder's features drive: its condition, or what is added to its numbers."""
    if isinstance(flow, CNF):
        return flow.transform_and_log_det(z, features)
    total, numbers = jnp.zeros(()), lambda p: (p.weight, p.direction, p.bias)
    for layer, f in zip(flow, features.reshape(-1, 5), strict=True):
        moved = jax.tree.map(jnp.add, numbers(layer), (f[:2], f[2:4], f[4]))
        z, log_det = eqx.tree_at(numbers, layer, moved).transform_and_log_det(z)
        total = total + log_det
    return z, total


class Autoencoder(eqx.Module):
    """``p(z) p(x | z)``, and the posterior ``q(z | x)``: a Gaussian by the encoder, moved by a flow of its features."""

    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP
    flow: CNF | tuple[Planar, ...]

    def posterior(self, x, key):
        """Draw from the posterior of one picture; return the draw and its log-density."""
        mean, log_scale, features = jnp.split(self.encoder(x), (2, 4))
        e, log_prob = PRIOR.sample_and_log_prob(key)
        z, log_det = move(self.flow, mean + jnp.exp(log_scale) * e, features)
        return z, log_prob - jnp.sum(log_scale) - log_det

    def joint(self, x, z):
        """Return ``log p(x, z)`` of one picture of zeros and ones."""
        return jnp.sum(jax.nn.log_sigmoid((2 * x - 1) * self.decoder(z))) + PRIOR.log_prob(z)

    def bound(self, x, key):
        """Return one draw of the evidence's lower bound, in nats."""
        z, log_prob = self.posterior(x, key)
        return self.joint(x, z) - log_prob


class Bound(AbstractObjective):
    """Minus the evidence's lower bound: the batch's pictures are what the posterior is conditioned on."""

    def __call__(self, flow, batch, *, key):
        keys = jax.random.split(key, batch.x.shape[0])
        return -jnp.mean(jax.vmap(flow.bound)(batch.x, keys)), {"evaluations": jnp.ones(())}


def flow_of(kind: str, key) -> tuple[CNF | tuple[Planar, ...], int]:
    """Return what moves the Gaussian posterior of a kind, and how many features it takes."""
    if kind == "CNF":
        field = MLP((2,), width=32, depth=1, cond_shape=(FEATURES,), key=key)
        return CNF(field, integrator=Integrator.constant(4)), FEATURES
    layers = tuple(Planar((2,), key=k) for k in jax.random.split(key, LAYERS if kind == "planar" else 0))
    return layers, 5 * len(layers)


def train(example: Example, kind: str, rows: np.ndarray, validation: np.ndarray) -> Autoencoder:
    """Train encoder, posterior and decoder together."""

    def build(key) -> Autoencoder:
        keys = jax.random.split(key, 3)
        flow, features = flow_of(kind, keys[2])
        encoder = eqx.nn.MLP(PIXELS, 4 + features, 64, 2, activation=jax.nn.silu, key=keys[0])
        return Autoencoder(encoder, eqx.nn.MLP(2, PIXELS, 64, 2, activation=jax.nn.silu, key=keys[1]), flow)

    data, score = TrainingData.pad(rows, np.ones(len(rows))), lambda model: bounds(model, validation, 20).mean(0)
    options = Options(learning_rate=2e-3, batch_size=example.size(128, 8))
    trainer = Trainer(build, Bound(), data, score, options=options, budget=Budget(example.size(6000, 3)), seed=0)
    return trainer.run(goals=(0.4, 0.6, 0.8, 1.0)).best_flow()


@eqx.filter_jit
def bounds(model: Autoencoder, rows, num: int):
    """Return draws of the bound of each row, of shape ``(num, rows)``; the keys are fixed."""
    keys = jax.random.split(jax.random.key(1), (num, len(rows)))
    return jax.lax.map(lambda k: jax.vmap(model.bound)(jnp.asarray(rows), k), keys)


@eqx.filter_jit
def on_grids(model: Autoencoder, rows, num: int):
    """Return ``log p(x)`` of rows by the trapezoidal rule over both latent numbers, and ``log p(x, z)`` there."""
    axis, joint = jnp.linspace(-5.0, 5.0, num), model.joint
    line = lambda x, a: jax.vmap(lambda b: joint(x, jnp.stack([a, b])))(axis)
    values = jax.lax.map(lambda x: jax.lax.map(lambda a: line(x, a), axis), jnp.asarray(rows))
    return logsumexp(values, axis=(1, 2)) + 2 * jnp.log(axis[1] - axis[0]), values


@eqx.filter_jit
def draws(model: Autoencoder, x, num: int):
    """Return draws of the posterior of one picture."""
    return jax.vmap(lambda key: model.posterior(x, key)[0])(jax.random.split(jax.random.key(2), num))


def draw(models: dict[str, Autoencoder], rows: np.ndarray, num: int) -> Figure:
    """Draw the true posterior of some pictures under each model, and what its own posterior draws."""
    figure = Figure(figsize=(9.2, 9.2), layout="constrained")
    panels = figure.subplots(len(rows), 1 + len(models), squeeze=False)
    for i, x in enumerate(rows):
        panels[i, 0].imshow(x.reshape(8, 8), cmap="gray")
        for axes, (name, model) in zip(panels[i, 1:], models.items(), strict=True):
            values, z = np.asarray(on_grids(model, x[None], num)[1][0]), np.asarray(draws(model, x, 1000))
            axes.imshow(np.exp(values - values.max()).T, origin="lower", extent=(-5, 5, -5, 5), cmap="magma")
            axes.scatter(*z.T, s=1.5, color="#56B4E9", linewidths=0)
            xlim, ylim = z.mean(0)[:, None] + 4 * z.std(0).max() * np.array([-1, 1])
            axes.set(title=name if i == 0 else None, xlim=xlim, ylim=ylim, xticks=[], yticks=[])
    return figure


def main() -> None:
    """Train three, print bound, truth and what lies between, and draw posteriors."""
    works = "Grathwohl and others: FFJORD, 2019; the blog on normalizing flows and neural ODEs, chapter 1"
    example = Example("17_autoencoder", "Posteriors of a variational autoencoder", works)
    pixels = np.random.default_rng(0).permutation(digits().pixels.reshape(-1, PIXELS) > 7).astype(np.float64)
    rows, validation, test = pixels[:1300], pixels[1300:1450], pixels[1450 : 1450 + example.size(347, 10)]
    num, models = example.size(301, 41), {}
    for kind in ("Gaussian", "planar", "CNF")[-example.size(3, 1) :]:
        model = models[kind] = train(example, kind, rows, validation)
        bound, truth = bounds(model, test, example.size(200, 4)).mean(0), on_grids(model, test, num)[0]
        gap, error = np.mean(truth - bound), np.std(truth - bound) / np.sqrt(len(test))
        text = f"{np.mean(bound):.3f}, {np.mean(truth):.3f}, {gap:.3f} (standard error {error:.3f})"
        example.figure(f"{kind}: bound, log-likelihood, their difference (nats)", text)
    example.picture(draw(models, test[:4], num), "posteriors")
    example.end()


if __name__ == "__main__":
    main()

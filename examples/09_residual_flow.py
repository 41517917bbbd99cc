"""A residual flow on eight Gaussians: three log-determinants against autodiff, the inverse, and the likelihood."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from example import Example
from matplotlib.figure import Figure

from liouville import evaluation
from liouville.bijections import Chain, Invert, Standardize
from liouville.data import mixture
from liouville.distributions import Normal, Transformed
from liouville.objectives import MaximumLikelihood
from liouville.papers import PowerSeries, Residual, with_series
from liouville.training import Budget, Options, Trainer, TrainingData

BLOCKS, LIPSCHITZ, REACH = 8, 0.9, 5.5
ANGLES = np.arange(8) * np.pi / 4
TARGET = mixture("eight Gaussians", 4 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1), np.full(8, 0.5))
# Two terms always, then on, with a chance of 15% to end after each.
TRAINED_WITH = PowerSeries(2, stop=0.15)


def train(example: Example, rows: np.ndarray, validation: np.ndarray, units: Standardize) -> Transformed:
    """Fit by likelihood with the unbiased log-determinant; validate with the exact one."""

    def build(key) -> Transformed:
        keys = jax.random.split(key, example.size(BLOCKS, 1))
        blocks = [Residual((2,), width=48, lipschitz=LIPSCHITZ, series=TRAINED_WITH, key=k) for k in keys]
        return Transformed(Normal.standard((2,)), Chain([Invert(Chain(blocks)), units]))

    trainer = Trainer(
        build,
        MaximumLikelihood(),
        TrainingData.pad(rows, np.ones(len(rows))),
        lambda flow: evaluation.score(with_series(flow, None), validation)[0],
        options=Options(learning_rate=5e-3, batch_size=256),
        budget=Budget(max_iter=example.size(1000, 3)),
        seed=0,
    )
    return with_series(trainer.run(goals=(0.5, 1.0)).best_flow(), None)


def truth(flow: Transformed, points: jax.Array) -> np.ndarray:
    """Return the log-determinant of the blocks by autodiff of the map itself."""
    inverse = flow.bijection.links[0].inverse
    at = eqx.filter_jit(lambda x: jnp.linalg.slogdet(jax.vmap(jax.jacfwd(inverse))(x))[1])
    return np.asarray(at(points), np.float64)


def log_dets(flow: Transformed, points: jax.Array, series: PowerSeries | None, num_keys: int = 1) -> np.ndarray:
    """Return log-determinants by a series, of shape ``(keys, points)``."""
    link = with_series(flow.bijection.links[0], series)
    keys = jax.random.split(jax.random.key(0), (num_keys, len(points)))
    at = jax.vmap(jax.vmap(lambda x, key: link.inverse_and_log_det(x, key=key)[1]), (None, 0))
    return np.asarray(eqx.filter_jit(at)(points, keys), np.float64)


def compare(example: Example, flow: Transformed, points: jax.Array) -> dict[str, list]:
    """Print how far each log-determinant is from autodiff's; return mean errors by number of terms."""
    exact, draws = truth(flow, points), example.size(400, 20)
    example.figure(
        "exact log-det against autodiff, largest error", f"{np.abs(log_dets(flow, points, None) - exact).max():.1e}"
    )
    curve = {"terms": [1, 2, 4, 8, 16, 24][: example.size(6, 2)], "error": [], "bound": []}
    for terms in curve["terms"]:
        curve["error"].append(np.abs(log_dets(flow, points, PowerSeries(terms))[0] - exact).mean())
        curve["bound"].append(BLOCKS * PowerSeries(terms).bound(2, LIPSCHITZ))
    example.figure("truncated after 2 terms, mean absolute error", curve["error"][1])
    for label, series in (("unbiased", TRAINED_WITH), ("the same with one probe", PowerSeries(2, 0.15, num_probes=1))):
        error = (log_dets(flow, points, series, draws) - exact).mean(axis=1)
        text = f"{error.mean():.4f} (standard error {error.std() / np.sqrt(draws):.4f})"
        example.figure(f"{label}, mean error", text)
    return curve


def settling(flow: Transformed, z: jax.Array, num: int = 30) -> np.ndarray:
    """Return how far the fixed-point iteration of the block that bends most is from its end, by iteration."""
    blocks = flow.bijection.links[0].bijection.links

    def distances(block):
        layers, x = block.flat_layers(), jax.vmap(block.transform)(z)
        steps = [x]
        for _ in range(num):
            steps.append(x - jax.vmap(lambda z: block.branch(layers, z))(steps[-1]))
        return np.asarray(jnp.max(jnp.abs(jnp.stack(steps) - z), axis=(1, 2)))

    return max((distances(block) for block in blocks), key=lambda found: found[8])


def draw(
    example: Example, flow: Transformed, rows: np.ndarray, drawn: np.ndarray, curve: dict, gaps: np.ndarray
) -> None:
    """Draw data, density, samples and the two convergences."""
    figure = Figure(figsize=(15, 3.3), layout="constrained")
    panels = figure.subplots(1, 5)
    num = example.size(140, 20)
    edge = np.linspace(-REACH, REACH, num)
    grid = np.stack(np.meshgrid(edge, edge), axis=-1).reshape(-1, 2)
    density = np.exp(evaluation.score(flow, grid)[0]).reshape(num, num)
    panels[1].imshow(density, origin="lower", extent=(-REACH, REACH) * 2)
    for axes, points in ((panels[0], rows[:2000]), (panels[2], drawn)):
        axes.scatter(*points.T, s=2, color="0.2", linewidths=0)
    for axes, title in zip(panels[:3], ("data", "density", "samples, by fixed points"), strict=True):
        axes.set(title=title, xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect="equal")
    panels[3].semilogy(curve["terms"], np.maximum(curve["error"], 1e-7), "o-", label="mean error")
    panels[3].semilogy(curve["terms"], curve["bound"], "--", color="0.5", label="bound")
    panels[3].set(title="truncated log-det", xlabel="terms", ylabel="nats")
    panels[3].legend(frameon=False)
    panels[4].semilogy(np.maximum(gaps, 1e-7), label="stiffest block")
    panels[4].semilogy(gaps[0] * LIPSCHITZ ** np.arange(len(gaps)), "--", color="0.5", label="bound")
    panels[4].set(title="inverse by fixed point", xlabel="iterations", ylabel="largest error")
    panels[4].legend(frameon=False)
    example.picture(figure, "flow")


def main() -> None:
    """Fit, hold each number against another way to it, draw."""
    example = Example(
        "09_residual_flow",
        "Residual flow on eight Gaussians",
        "Behrmann and others, Invertible residual networks, 2019; Chen and others, Residual flows, 2019",
    )
    rng = np.random.default_rng(0)
    rows, validation, test = (TARGET.sample(rng, num) for num in (example.size(10_000, 500), 1000, 2000))
    units = Standardize.fit(rows, np.ones(len(rows)))
    flow = train(example, rows, validation, units)
    example.figure("test NLL, exact", -evaluation.score(flow, test)[0].mean())
    example.figure("test NLL, the truth", -TARGET.log_prob(test).mean())
    curve = compare(example, flow, jnp.asarray(units.inverse(test[: example.size(200, 20)]), jnp.float32))
    drawn, log_prob = eqx.filter_jit(lambda f, k: f.sample_and_log_prob(k, (2000,)))(flow, jax.random.key(1))
    drawn, log_prob = np.asarray(drawn, np.float64), np.asarray(log_prob, np.float64)
    example.figure("samples whose inverse did not settle", f"{np.isnan(drawn).any(axis=1).sum()} of {len(drawn)}")
    error = np.nanmax(np.abs(evaluation.score(flow, drawn)[0] - log_prob))
    example.figure("log-density by fixed point against formula, largest difference", f"{error:.1e}")
    draw(example, flow, rows, drawn, curve, settling(flow, jnp.asarray(units.inverse(test[:200]), jnp.float32)))
    example.end()


if __name__ == "__main__":
    main()

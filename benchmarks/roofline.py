"""What a training step and a log-density cost, against what this machine can do; and where the time goes.

Usage: python benchmarks/roofline.py
XLA counts operations and bytes of the compiled programs (bytes as if no cache held anything). The ceilings are
measured: products of matrices, large ones and of a layer's shape, and sums of arrays that no cache holds and that one
does. A batch's activations fit into the cache, so the roof is the cache's.
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from run import FOLDER, keep

from liouville import FlowDensity
from liouville.bijections import CNF
from liouville.distributions import Transformed
from liouville.divergences import Exact
from liouville.flows import FlowSpec
from liouville.objectives import Batch, FlowMatching, MaximumLikelihood
from liouville.training import Options, TrainingData, init_state, learning_rate_factor, make_step

sys.path.insert(0, str(FOLDER / "peers"))
from common import machine, seconds_of

BATCH, LARGE, REPEATS = 512, 1024, 50
SIZES = {"few columns": (5, 64, 3), "many columns": (63, 256, 2)}


def measured(name: str, function, *arguments, repeats: int = REPEATS) -> dict:
    """Return the seconds of a compiled call, and XLA's counts of its operations and bytes."""
    compiled = jax.jit(function).lower(*arguments).compile()
    counts = compiled.cost_analysis()
    return {
        "name": name,
        "seconds": seconds_of(lambda: jax.block_until_ready(compiled(*arguments)), repeats),
        "operations": float(counts["flops"]),
        "bytes": float(counts["bytes accessed"]),
    }


def ceilings(width: int) -> dict:
    """Return the rates of products of matrices, in operations a second, and of memory, in bytes a second."""
    product = lambda a, b: a @ b
    large = measured("large", product, jnp.ones((LARGE, LARGE)), jnp.ones((LARGE, LARGE)))
    layer = measured("layer", product, jnp.ones((BATCH, width)), jnp.ones((width, width)), repeats=500)
    tops = {
        "large product": 2 * LARGE**3 / large["seconds"],
        "layer's product": 2 * BATCH * width**2 / layer["seconds"],
    }
    for name, entries, repeats in (("memory", 2**26, 5), ("cache", 2**18, 500)):
        add = measured(name, lambda a, b: a + b, jnp.ones(entries), jnp.ones(entries), repeats=repeats)
        tops[name] = 12 * entries / add["seconds"]
    return tops


def programs(columns: int, width: int, depth: int) -> list[dict]:
    """Return what the parts of a training step and of an evaluation cost."""
    recipe, options = FlowSpec(columns, width=width, depth=depth), Options(batch_size=BATCH)
    state, static = init_state(recipe, np.asarray(0, np.int32), options)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10_000, columns)) + 2 * rng.choice([-1.0, 1.0], size=(10_000, 1))
    data, objective = TrainingData.pad(rows, np.ones(len(rows))), FlowMatching()
    batch, key = Batch(jnp.asarray(rows[:BATCH], jnp.float32)), jax.random.key(1)

    def loss(params, x, objective=objective):
        return objective(eqx.combine(params, static), Batch(x), key=key)[0]

    def update(grads, state):
        updates, opt_state = options.optimizer().update(grads, state.opt_state, state.params)
        rate = learning_rate_factor(state.step, jnp.asarray(0.5))
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        return params, opt_state, jax.tree.map(lambda a, p: a + 0.1 * (p - a), state.average, params)

    flow = eqx.combine(state.params, static)
    one_evaluation = lambda params, x: evaluate(eqx.combine(params, static), x)
    found = [
        measured("step of flow matching", make_step(static, objective, options), state, batch, key, jnp.asarray(0.5)),
        measured("- its loss and gradient", jax.value_and_grad(loss), state.params, batch.x),
        measured("- its loss alone", loss, state.params, batch.x),
        measured("- its optimizer and average", update, state.params, state),
        measured("- its draw of rows", lambda key: data.draw(key, BATCH)[0], key),
        measured("field and exact divergence", one_evaluation, state.params, batch.x),
        measured("field alone", lambda p, x: jax.vmap(field_of(eqx.combine(p, static)))(x), state.params, batch.x),
    ]
    likelihood = measured(
        "step of likelihood", jax.value_and_grad(lambda p, x: loss(p, x, MaximumLikelihood())), state.params, batch.x,
        repeats=5,
    )  # fmt: skip
    evaluations = float(MaximumLikelihood()(flow, batch, key=key)[1]["evaluations"])
    # Loops are counted once: a step is as many forward and backward evaluations as it took.
    gradient = measured(
        "field, divergence and their gradient",
        jax.grad(lambda p, x: sum(map(jnp.sum, one_evaluation(p, x)))), state.params, batch.x,
    )  # fmt: skip
    for count in ("operations", "bytes"):
        likelihood[count] = evaluations * gradient[count]
    return [*found, gradient, likelihood, scoring(rows, width, depth, found[5])]


def field_of(flow: Transformed):
    """Return the field at a time as a function of the point."""
    return lambda x: flow.bijection.vector_field(0.5, x)


def evaluate(flow: Transformed, rows):
    """Return velocities and divergences at one time."""
    cnf: CNF = flow.bijection
    return jax.vmap(lambda x: tuple(jax.tree.leaves(value_and_divergence(cnf, x))))(rows)


def value_and_divergence(cnf: CNF, x):
    """Return velocity and exact divergence at one point."""
    local = cnf.vector_field.value_and_divergence(
        0.5, x, None, lambda fn, x: Exact().linearize(fn, x, Exact().init(x, None))
    )
    return local.value, local.estimates


def scoring(rows: np.ndarray, width: int, depth: int, evaluation_cost: dict) -> dict:
    """Return what it costs to score a table with fitted steps, after a short training."""
    density = FlowDensity(width=width, depth=depth, max_iter=300, preprocess="standardize", random_state=0).fit(rows)
    _, info = density.score_samples(rows, error=1e-2, return_info=True)
    share = info.num_evaluations.sum() / BATCH
    return {
        "name": f"scoring 10,000 rows, {info.num_evaluations.mean():.0f} evaluations each",
        "seconds": seconds_of(lambda: density.score_samples(rows, error=1e-2), 3),
        "operations": share * evaluation_cost["operations"],
        "bytes": share * evaluation_cost["bytes"],
    }


def main() -> None:
    """Measure, and print the tables."""
    results = {}
    for name, (columns, width, depth) in SIZES.items():
        size = f"{name} ({columns}, width {width}, depth {depth})"
        results[size] = {"ceilings": ceilings(width), "programs": programs(columns, width, depth)}
    keep("roofline", {"machine": machine(), **results})


if __name__ == "__main__":
    main()

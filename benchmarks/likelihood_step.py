"""Time one step of maximum likelihood, forward and backward, by each library on one field, one batch, one tolerance.

Usage: python benchmarks/likelihood_step.py [--columns D] [--rows N] [--repeats R] [--train STEPS]
All solve the same ODE with the exact divergence, by dopri5 or constant steps; NLL and gradient are compared, so that
none is fast by being wrong. With --train the field is one that some steps of Adam made of a random one, whose solves
are harder. `peers/likelihood_step.py` has the other libraries' steps.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from run import FOLDER, collect, keep

from liouville._types import partition
from liouville.bijections import CNF
from liouville.distributions import Normal, Transformed
from liouville.divergences import Exact
from liouville.integrate import Integrator
from liouville.objectives import Batch, CheckedSteps, MaximumLikelihood
from liouville.vector_fields import AbstractVectorField

sys.path.insert(0, str(FOLDER / "peers"))
from common import main_of_steps

WIDTH, DEPTH, TOLERANCE = 64, 3, 1e-5


class Field(AbstractVectorField):
    """A tanh network of ``(x, t)``, with given weights."""

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)
    weights: list[jax.Array]
    biases: list[jax.Array]

    def __init__(self, layers):
        self.shape, self.cond_shape = (len(layers[-1][1]),), None
        self.weights, self.biases = [jnp.asarray(w) for w, _ in layers], [jnp.asarray(b) for _, b in layers]

    def __call__(self, t, x, condition=None):
        """Return the velocity."""
        h = jnp.append(x, t)
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = jnp.tanh(h @ w.T + b)
        return h @ self.weights[-1].T + self.biases[-1]


def flow_of(layers, tolerance):
    """Return the flow of a field."""
    size = len(layers[-1][1])
    integrator = Integrator.adaptive(tolerance, tolerance)
    return Transformed(Normal.standard((size,)), CNF(Field(layers), Exact(), integrator))


def liouville_step(objective):
    """Return our method: the objective's gradient."""

    def step(layers, rows, tolerance):
        params, static = partition(flow_of(layers, tolerance))

        def loss(params, x):
            return objective(eqx.combine(params, static), Batch(x), key=jax.random.key(0))

        return stepper(loss, params, rows, lambda grads: grads.bijection.vector_field)

    return step


def exact(layers, rows, tolerance):
    """Return what gradients are compared with."""
    jax.config.update("jax_enable_x64", True)
    fine = [(w.astype(np.float64), b.astype(np.float64)) for w, b in layers]
    return diffrax_by_hand(fine, rows.astype(np.float64), 1e-9)


def diffrax_by_hand(layers, rows, tolerance):
    """Return the method of Diffrax's tutorial: each row's solve mapped, through the solver's steps."""
    size = rows.shape[1]

    def log_prob(field, x):
        def rates(t, state, args):
            v, pull = jax.vjp(lambda x: field(t, x), state[0])
            return v, jnp.trace(jax.vmap(pull)(jnp.eye(size))[0])

        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rates), diffrax.Dopri5(), 1.0, 0.0, -0.1, (x, jnp.zeros(())), stepsize_controller=controller
        )
        z, change = solution.ys[0][-1], solution.ys[1][-1]
        normal = -0.5 * jnp.sum(z**2) - 0.5 * size * math.log(2 * math.pi)
        return normal + change, 6 * solution.stats["num_steps"] + 1

    def loss(field, x):
        values, evaluations = jax.vmap(lambda x: log_prob(field, x))(x)
        return -jnp.mean(values), {"evaluations": jnp.mean(evaluations)}

    return stepper(loss, Field(layers), rows, lambda grads: grads)


def stepper(loss, params, rows, field_of):
    """Return the compiled step of a loss of parameters and rows."""
    run, x = jax.jit(jax.value_and_grad(loss, has_aux=True)), jnp.asarray(rows)

    def step():
        (value, aux), grads = jax.block_until_ready(run(params, x))
        field = field_of(grads)
        return (
            float(value),
            np.concatenate([np.ravel(g) for g in [*field.weights, *field.biases]]),
            float(aux["evaluations"]),
        )

    return step


EXACT = "exact"
METHODS = {
    "liouville": liouville_step(CheckedSteps(MaximumLikelihood())),
    "liouville, adaptive": liouville_step(MaximumLikelihood()),
    "Diffrax by hand": diffrax_by_hand,
    EXACT: exact,
}
OTHERS = (
    "torchdiffeq by hand, through the steps",
    "torchdiffeq by hand, RK4 x 6",
    "torchdiffeq by hand, adjoint",
    "torchdyn, autograd",
    "torchdyn, RK4 x 6",
    "torchdyn, adjoint",
    "zuko",
)


def trained(layers: list[tuple], rows: np.ndarray, steps: int) -> list[tuple]:
    """Return a field after some steps of Adam."""
    params, static = partition(flow_of(layers, TOLERANCE))
    optimizer, key = optax.adam(1e-3), jax.random.key(0)
    loss = lambda params: CheckedSteps(MaximumLikelihood(), 16)(eqx.combine(params, static), Batch(rows), key=key)[0]

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    field = params.bijection.vector_field
    return [(np.asarray(w), np.asarray(b)) for w, b in zip(field.weights, field.biases, strict=True)]


def setup(columns: int, rows: int, repeats: int, train: int, path: Path) -> None:
    """Write the field's weights and the batch: of a trained one a mixture of two normal laws."""
    rng, sizes = np.random.default_rng(0), [columns + 1, *[WIDTH] * DEPTH, columns]
    parts = {"layers": DEPTH + 1, "tolerance": TOLERANCE, "repeats": repeats}
    batch, layers = rng.normal(size=(rows, columns)).astype(np.float32), []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        weight = (rng.normal(size=(after, before)) * 1.5 / np.sqrt(before)).astype(np.float32)
        layers.append((weight, (0.3 * rng.normal(size=after)).astype(np.float32)))
    if train:
        batch = (0.2 * batch + np.where(np.arange(rows) % 2, 1, -1)[:, None]).astype(np.float32)
        layers = trained(layers, batch, train)
    for i, (weight, bias) in enumerate(layers):
        parts |= {f"weight{i}": weight, f"bias{i}": bias}
    np.savez(path, **parts, rows=batch)


def compare_gradients(found: list[dict]) -> None:
    """Put in place of each gradient how far it is from the exact one."""
    exact = next(np.asarray(run["gradient"]) for run in found if run["method"] == EXACT)
    for run in found:
        run["gradient_off"] = float(np.linalg.norm(run.pop("gradient") - exact) / np.linalg.norm(exact))


def main() -> None:
    """Run each method in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--train", type=int, default=0, help="steps of training before")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "setup.npz"
        setup(arguments.columns, arguments.rows, arguments.repeats, arguments.train, data)
        found = collect("likelihood_step.py", METHODS, OTHERS, data)
    compare_gradients(found)
    runs = [run for run in found if run["method"] != EXACT]
    name = f"likelihood_step_{arguments.columns}{'_trained' * (arguments.train > 0)}"
    keep(name, {"train": arguments.train, "runs": runs})


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in METHODS:
        main_of_steps(METHODS, ("liouville", "jax", "diffrax"))
    else:
        main()

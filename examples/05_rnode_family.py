"""Ways to fewer evaluations: STEER, TayNODE, TPR, RNODE and OT-Flow beside plain FFJORD."""

import time

import matplotlib.pyplot as plt
import numpy as np
from example import Example

from liouville import evaluation
from liouville.bijections import CNF
from liouville.data import Target, mixture
from liouville.distributions import Normal, Transformed
from liouville.divergences import Exact
from liouville.integrate import Integrator
from liouville.objectives import AbstractObjective, MaximumLikelihood, TrainedWith, WeightedSum
from liouville.papers import HamiltonJacobi, Potential, RandomEndTime, TaylorDerivative, TrajectoryPolynomial
from liouville.regularizers import JacobianFrobenius, KineticEnergy
from liouville.training import Budget, Options, Trainer, TrainingData
from liouville.vector_fields import ConcatSquash

STEPS = Integrator.constant(8)


def grid() -> Target:
    """Return 25 narrow Gaussians on a grid: what is far from one Gaussian takes paths that bend."""
    centres = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    return mixture("grid", centres, np.full(25, 0.2))


def likelihood(*penalties) -> AbstractObjective:
    """Return maximum likelihood through eight steps of RK4, with penalties."""
    return TrainedWith(MaximumLikelihood(), Exact(), STEPS, penalties)


METHODS: dict[str, AbstractObjective] = {
    "FFJORD": likelihood(),
    "STEER (2020)": RandomEndTime(likelihood(), 0.25),
    "RNODE (2020)": likelihood(KineticEnergy(weight=0.1), JacobianFrobenius(weight=0.1)),
    "TayNODE, order 2 (2020)": likelihood(TaylorDerivative(2, weight=0.03)),
    "TayNODE, order 3 (2020)": likelihood(TaylorDerivative(3, weight=0.003)),
    "TPR (2020)": WeightedSum([(1.0, likelihood()), (10.0, TrainedWith(TrajectoryPolynomial(), integrator=STEPS))]),
    "OT-Flow (2021)": likelihood(KineticEnergy(weight=0.003, reduce="sum"), HamiltonJacobi(weight=0.05)),
}


def train(method: str, rows: np.ndarray, steps: int) -> tuple[Transformed, float]:
    """Train by a method; return the flow and the seconds that it took."""

    def build(key) -> Transformed:
        kind = Potential if method.startswith("OT-Flow") else ConcatSquash
        field = kind((2,), width=32, depth=2, key=key)
        return Transformed(Normal.standard((2,)), CNF(field, Exact(), Integrator.adaptive(1e-5, 1e-5)))

    start = time.perf_counter()
    trainer = Trainer(
        build,
        METHODS[method],
        TrainingData.pad(rows, np.ones(len(rows))),
        validate=lambda flow: np.zeros(1),
        options=Options(learning_rate=1e-2, batch_size=128),
        budget=Budget(steps),
        seed=0,
    ).run(goals=(1.0,))
    return trainer.flow(trainer.state.average), time.perf_counter() - start


def main() -> None:
    """Train all, print gap, evaluations and costs of each, and draw evaluations against the gap."""
    example = Example(
        "05_rnode_family",
        "The family around RNODE",
        "STEER, RNODE, TayNODE, TPR (2020); OT-Flow (2021)",
        "TPR: 42-71% fewer evaluations",
    )
    target, rng = grid(), np.random.default_rng(0)
    rows, test = target.sample(rng, example.size(8000, 500)), target.sample(rng, example.size(1000, 50))
    centre, scale = rows.mean(0), rows.std(0)
    truth = target.log_prob(test) + np.log(scale).sum()
    methods = list(METHODS) if not example.fast else ["FFJORD", "OT-Flow (2021)"]
    found = {}
    for method in methods:
        flow, seconds = train(method, (rows - centre) / scale, example.size(2000, 2))
        log_prob, info = evaluation.score(flow, (test - centre) / scale)
        gap, evaluations = float(np.mean(truth - log_prob)), float(info.num_evaluations.mean())
        found[method] = gap, evaluations
        saved = 1 - evaluations / found["FFJORD"][1]
        text = f"{gap:.3f}, {evaluations:.0f} ({saved:+.0%} saved), {seconds:.0f} s"
        example.figure(f"{method}: gap to the truth (nats), evaluations, time", text)
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for method, (gap, evaluations) in found.items():
        axes.scatter(evaluations, gap, label=method)
    axes.set(
        xlabel="evaluations of the field per row, at a tolerance of 1e-5",
        ylabel="gap to the truth (nats)",
        title="25 Gaussians, equal steps of training: lower left is better",
    )
    axes.legend()
    example.picture(figure, "evaluations")
    example.end()


if __name__ == "__main__":
    main()

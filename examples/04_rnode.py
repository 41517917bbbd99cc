"""RNODE: penalties on kinetic energy and on the Jacobian, that make fixed steps of Runge-Kutta enough."""

import time

import matplotlib.pyplot as plt
import numpy as np
from example import Example

from liouville import evaluation
from liouville.bijections import CNF
from liouville.data import Target, six_gaussians, three_modes
from liouville.distributions import Normal, Transformed
from liouville.divergences import Exact, Hutchinson
from liouville.integrate import Integrator
from liouville.objectives import MaximumLikelihood, TrainedWith
from liouville.regularizers import JacobianFrobenius, KineticEnergy
from liouville.training import Budget, Options, Trainer, TrainingData
from liouville.vector_fields import ConcatSquash

# Per-dimension means, as published; the weights are larger than for images, where the likelihood is per dimension.
KINETIC, JACOBIAN = KineticEnergy(weight=0.5), JacobianFrobenius(weight=0.2)
PENALTIES = {
    "none": (),
    "kinetic only": (KINETIC,),
    "Jacobian only": (JACOBIAN,),
    "both": (KINETIC, JACOBIAN),
}
# A single step of four stages, in which a field that is not smooth can hide anything.
TRAINED = Integrator.constant(1)


def train(example: Example, target: Target, penalties: tuple, steps: int) -> tuple[Transformed, dict, float]:
    """Train through one step of RK4, with one probe per solve; return the flow, its history and its seconds."""
    size, rng = target.size, np.random.default_rng(0)
    rows = target.sample(rng, example.size(8000, 500))
    centre, scale = rows.mean(0), rows.std(0)
    rows = (rows - centre) / scale

    def build(key) -> Transformed:
        field = ConcatSquash((size,), width=64, depth=3, key=key)
        return Transformed(Normal.standard((size,)), CNF(field, Exact(), Integrator.adaptive(1e-5, 1e-5)))

    start = time.perf_counter()
    trainer = Trainer(
        build,
        TrainedWith(MaximumLikelihood(), Hutchinson(noise="gaussian", mode="reverse"), TRAINED, penalties),
        TrainingData.pad(rows, np.ones(len(rows))),
        validate=lambda flow: np.zeros(1),
        options=Options(learning_rate=3e-3, batch_size=256),
        budget=Budget(steps),
        seed=0,
    ).run(goals=(1.0,))
    return trainer.flow(trainer.state.average), trainer.history, time.perf_counter() - start


def judge(target: Target, flow: Transformed, history: dict, num: int) -> dict[str, float]:
    """Return what an adaptive solver and the exact divergence say of a flow, in the coordinates of training."""
    rng = np.random.default_rng(0)
    known = target.sample(rng, 8000)
    test = target.sample(rng, num)
    units = (test - known.mean(0)) / known.std(0)
    log_prob, info = evaluation.score(flow, units)
    costs = evaluation.path_costs(flow, units, (KINETIC, JACOBIAN))
    truth = target.log_prob(test) + np.log(known.std(0)).sum()
    return {
        "gap": float(np.mean(truth - log_prob)),
        "training loss": history["loss"][-1],
        "evaluations": float(info.num_evaluations.mean()),
        "kinetic": float(costs["kinetic_energy"].mean()),
        "jacobian": float(costs["jacobian_frobenius"].mean()),
    }


def draw_paths(flows: dict[str, Transformed], num: int) -> plt.Figure:
    """Return the two-panel picture: paths of a generic flow, and of one that is nearly optimal transport."""
    figure = plt.figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, len(flows), sharey=True, squeeze=False)[0]
    z = np.linspace(-2.5, 2.5, num)[:, None]
    for panel, (name, flow) in zip(panels, flows.items(), strict=True):
        paths = evaluation.paths(flow, evaluation.from_base(flow, z), 60)
        panel.plot(np.linspace(0, 1, 60), paths[:, :, 0], color="tab:blue", lw=0.7)
        panel.set(title=name, xlabel="t (0: base, 1: data)")
    panels[0].set_ylabel("x, standardized")
    return figure


def main() -> None:
    """Print the ablation, and draw paths with and without penalties."""
    example = Example(
        "04_rnode",
        "RNODE",
        "Finlay and others, How to train your neural ODE, 2020",
        "MNIST 0.973 bits/dim in 24.37 h, FFJORD 0.974 in 68.47 h",
    )
    steps, plane = example.size(900, 3), six_gaussians()
    for name, penalties in list(PENALTIES.items())[-example.size(4, 1) :]:
        flow, history, seconds = train(example, plane, penalties, steps)
        found = judge(plane, flow, history, example.size(1000, 100))
        text = (
            f"{found['gap']:.3f}, {found['training loss']:.3f}, {found['evaluations']:.0f}, "
            f"{found['kinetic']:.2f}, {found['jacobian']:.1f}, {seconds:.0f} s"
        )
        example.figure(f"{name}: gap to the truth (nats), training loss, evaluations, kinetic, Jacobian, time", text)
    shown = {"a generic flow (no penalty)": (), "nearly optimal transport (both penalties)": (KINETIC, JACOBIAN)}
    flows = {
        name: train(example, three_modes(), penalties, steps)[0]
        for name, penalties in list(shown.items())[: example.size(2, 1)]
    }
    example.picture(draw_paths(flows, 41), "paths")
    example.end()


if __name__ == "__main__":
    main()

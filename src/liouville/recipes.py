"""Recipes: how papers put the parts together, by name."""

import dataclasses
import math
from collections.abc import Callable

from .couplings import ExactOT
from .divergences import Exact
from .flows import FOUR_STEPS, ONE_PROBE
from .integrate import Integrator
from .objectives import (
    AbstractObjective,
    CheckedSteps,
    Encoded,
    FlowMatching,
    MaximumLikelihood,
    TrainedWith,
    WeightedSum,
)
from .papers import HamiltonJacobi, PowerSeries, RandomEndTime, TaylorDerivative, TrajectoryPolynomial, WithSeries
from .regularizers import JacobianFrobenius, KineticEnergy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a paper puts the parts together.

    Attributes
    ----------
    year, paper
        Whose work it is.
    figure
        What was published, and where.
    objective
        Function of the number of entries of a point that returns what is made small.
    vector_field
        A key of `liouville.flows.VECTOR_FIELDS`.
    small_field, small_size
        Another one, for points of at most so many entries: up to there a network without convolutions learns more of
        pictures in the same time.
    layer
        A key of `liouville.flows.LAYERS` makes it a discrete flow, of `depth` layers; None makes it a CNF.
    multiscale
        True squeezes and splits between several flows, where they are convolutional.
    width, depth, learning_rate, batch_size, max_iter
        None leaves them to the size of the data.
    preconditioned
        True adds the Gaussian field in closed form.
    weight_decay
        Of AdamW.
    preprocess
        How data become numbers, where a paper says so: of pictures a key of `liouville.frames.PIXELS`.
    """

    year: int
    paper: str
    objective: Callable[[int], AbstractObjective]
    figure: str = "-"
    vector_field: str = "mlp"
    small_field: str | None = None
    small_size: int = 0
    layer: str | None = None
    multiscale: bool = False
    width: int | None = None
    depth: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    max_iter: int | None = None
    preconditioned: bool = False
    weight_decay: float = 0.0
    preprocess: str | None = None


def matching(size: int) -> FlowMatching:
    """Return flow matching of a table: training crowds near the data where fine detail lives in several columns.

    Few columns are learned soon, and then crowding fits the sample's noise; of many columns the coarse structure takes
    the longest.
    """
    return FlowMatching(time_skew=1.5 if size < 4 else 3.0 if size < 24 else 1.0)


def of_layers(size: int) -> MaximumLikelihood:
    """Return maximum likelihood of discrete layers, which solve nothing."""
    return MaximumLikelihood()


def likelihood(size: int) -> CheckedSteps:
    """Return maximum likelihood of a table, whose steps take half the time by constant ones."""
    return CheckedSteps(MaximumLikelihood())


ADAPTIVE = Integrator.adaptive(1e-5, 1e-5)
FFJORD = TrainedWith(MaximumLikelihood(), ONE_PROBE, ADAPTIVE)


def in_bits(objective: AbstractObjective, size: int) -> AbstractObjective:
    """Return a likelihood of pictures of so many pixels in bits per dimension."""
    return WeightedSum([(1 / (size * math.log(2)), Encoded(objective))])


def rnode_image(size: int, penalties: tuple[type, ...] = (KineticEnergy, JacobianFrobenius)) -> AbstractObjective:
    """Return RNODE's objective: bits per dimension, and a hundredth of each penalty."""
    # The penalties are divided with the nats.
    weighted = tuple(penalty(weight=0.01 * size * math.log(2)) for penalty in penalties)
    return in_bits(TrainedWith(MaximumLikelihood(), ONE_PROBE, FOUR_STEPS, weighted), size)


FFJORD_PAPER = {"year": 2019, "paper": "Grathwohl and others, FFJORD", "figure": "MNIST 0.99, CIFAR-10 3.40 bits/dim"}
RNODE_PAPER = {
    "year": 2020,
    "paper": "Finlay and others, How to train your neural ODE",
    "figure": "MNIST 0.973, CIFAR-10 3.398 bits/dim",
}
MATCHING_PAPER = {
    "year": 2023,
    "paper": "Lipman and others, Flow matching for generative modeling",
    "figure": "CIFAR-10 2.99 bits/dim",
}
REZENDE_PAPER = {
    "year": 2015,
    "paper": "Rezende and Mohamed, Variational inference with normalizing flows",
}
CHEN_PAPER = {"year": 2018, "paper": "Chen and others, Neural ordinary differential equations"}
RECIPES: dict[str, Recipe] = {
    "flow_matching": Recipe(**MATCHING_PAPER, objective=matching, preconditioned=True),
    "ot_flow_matching": Recipe(
        year=2024,
        paper="Tong and others, Improving and generalizing flow-based generative models",
        objective=lambda size: FlowMatching(coupling=ExactOT()),
        batch_size=256,
    ),
    "cnf": Recipe(
        **CHEN_PAPER,
        figure="six Gaussians in 1 hour or more",
        objective=lambda size: TrainedWith(MaximumLikelihood(), Exact(), Integrator.adaptive(1e-4, 1e-4)),
        learning_rate=2e-3,
        batch_size=1024,
        weight_decay=1e-5,
    ),
    "planar_cnf": Recipe(
        **CHEN_PAPER,
        objective=likelihood,
        vector_field="planar_layers",
        learning_rate=1e-2,
        batch_size=500,
        max_iter=2000,
    ),
    "planar_flow": Recipe(**REZENDE_PAPER, objective=of_layers, layer="planar", depth=20, learning_rate=2e-2),
    "radial_flow": Recipe(**REZENDE_PAPER, objective=of_layers, layer="radial", depth=20, learning_rate=2e-2),
    "residual_flow": Recipe(
        year=2019,
        paper="Chen and others, Residual flows for invertible generative modeling",
        figure="MNIST 0.970 bits/dim",
        objective=lambda size: WithSeries(MaximumLikelihood(), PowerSeries(2, stop=0.15)),
        layer="residual",
        width=48,
        depth=8,
    ),
    "galerkin": Recipe(
        year=2020,
        paper="Massaroli and others, Dissecting neural ODEs",
        objective=matching,
        vector_field="galerkin",
        preconditioned=True,
    ),
    "hypernetwork": Recipe(
        year=2019,
        paper="Grathwohl and others, FFJORD; Ha and others, HyperNetworks",
        objective=matching,
        vector_field="hypernetwork",
        preconditioned=True,
    ),
    "ffjord": Recipe(**FFJORD_PAPER, objective=lambda size: FFJORD, vector_field="concat_squash"),
    "rnode": Recipe(
        **RNODE_PAPER,
        objective=lambda size: TrainedWith(
            MaximumLikelihood(), ONE_PROBE, FOUR_STEPS, (KineticEnergy(weight=0.01), JacobianFrobenius(weight=0.01))
        ),
        vector_field="concat_squash",
    ),
    "steer": Recipe(
        year=2020,
        paper="Ghosh and others, STEER",
        objective=lambda size: RandomEndTime(FFJORD, 0.5),
        vector_field="concat_squash",
    ),
    "taynode": Recipe(
        year=2020,
        paper="Kelly and others, Learning differential equations that are easy to solve",
        objective=lambda size: TrainedWith(
            MaximumLikelihood(), ONE_PROBE, ADAPTIVE, (TaylorDerivative(2, weight=0.01),)
        ),
        vector_field="concat_squash",
    ),
    "tpr": Recipe(
        year=2020,
        paper="Huang and others, Trajectory polynomial regularization",
        figure="42-71% fewer evaluations",
        objective=lambda size: WeightedSum(
            [(1.0, FFJORD), (5.0, TrainedWith(TrajectoryPolynomial(), integrator=ADAPTIVE))]
        ),
        vector_field="concat_squash",
    ),
    "ot_flow": Recipe(
        year=2021,
        paper="Onken and others, OT-Flow",
        figure="8x faster training, 24x faster inference than FFJORD",
        objective=lambda size: TrainedWith(
            MaximumLikelihood(),
            Exact(),
            Integrator.constant(6),
            (KineticEnergy(weight=0.01, reduce="sum"), HamiltonJacobi(weight=0.15)),
        ),
        vector_field="potential",
        depth=1,
        learning_rate=1e-2,
    ),
}
# Of pictures, whose likelihoods are in bits per dimension.
LIKELIHOOD_OF_PICTURES = {
    "preprocess": "logit",
    "small_field": "concat_squash",
    "small_size": 256,
    "vector_field": "conv",
    "multiscale": True,
    "learning_rate": 1e-3,
    "batch_size": 200,
}
IMAGE_RECIPES: dict[str, Recipe] = {
    "flow_matching": Recipe(
        **MATCHING_PAPER,
        objective=lambda size: Encoded(FlowMatching()),
        preprocess="margins",
        small_field="mlp",
        small_size=100,
        vector_field="unet",
        preconditioned=True,
        learning_rate=1e-3,
        batch_size=128,
    ),
    "ffjord": Recipe(**FFJORD_PAPER, objective=lambda size: in_bits(FFJORD, size), **LIKELIHOOD_OF_PICTURES),
    "rnode": Recipe(**RNODE_PAPER, objective=rnode_image, **LIKELIHOOD_OF_PICTURES),
}

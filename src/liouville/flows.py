"""Recipes: members of the nine nouns put together under a name, from strings and numbers."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np

from ._types import Key
from .bijections import (
    CNF,
    AbstractBijection,
    Chain,
    Invert,
    Planar,
    PowerSeries,
    Radial,
    Residual,
    map_cnfs,
    map_integrators,
    multiscale,
)
from .couplings import ExactOT
from .density import Density
from .dequantization import VariationalDequantization
from .distributions import Normal, Transformed, cnf_of
from .divergences import AbstractDivergence, Exact, Hutchinson
from .frames import Frame
from .integrate import CONSTANT_STEP_SOLVERS, SOLVERS, Integrator
from .objectives import (
    AbstractObjective,
    Encoded,
    FlowMatching,
    MaximumLikelihood,
    RandomEndTime,
    TrainedWith,
    TrajectoryPolynomial,
    WeightedSum,
)
from .regularizers import HamiltonJacobi, JacobianFrobenius, KineticEnergy, TaylorDerivative
from .vector_fields import (
    MLP,
    AbstractVectorField,
    BesidePicture,
    ConcatSquash,
    ConvNet,
    Galerkin,
    Hypernetwork,
    PlanarField,
    Potential,
    Preconditioned,
    UNet,
)

VECTOR_FIELDS = {
    "concat_squash": ConcatSquash,
    "galerkin": Galerkin,
    "hypernetwork": Hypernetwork,
    "mlp": MLP,
    "planar": PlanarField,
    "planar_layers": partial(PlanarField, form="layers"),
    "potential": Potential,
}
DIVERGENCES: dict[str, AbstractDivergence] = {"exact": Exact(), "hutchinson": Hutchinson()}
# Layers of discrete flows, by name: functions of size, width and key.
LAYERS: dict[str, Callable[[int, int, Key], AbstractBijection]] = {
    "planar": lambda size, width, key: Planar((size,), key=key),
    "radial": lambda size, width, key: Radial((size,), key=key),
    "residual": lambda size, width, key: Residual((size,), width=width, key=key),
}
_CONSTANT_STEPS = 20
Tree = TypeVar("Tree")
# Standard deviation of the logit of a uniform number.
_LOGISTIC_SCALE = math.pi / math.sqrt(3)


class Recipe(NamedTuple):
    """How a paper puts the parts together.

    Attributes
    ----------
    year, paper
        Whose work it is.
    figure
        What was published, and where.
    objective
        What is made small; None is flow matching, its times skewed by the number of columns.
    vector_field
        A key of `VECTOR_FIELDS`.
    layer
        A key of `LAYERS` makes it a discrete flow, of `depth` layers; None makes it a CNF.
    width, depth, learning_rate, batch_size, max_iter
        None leaves them to the number of rows and columns.
    preconditioned
        True adds the Gaussian field in closed form.
    weight_decay
        Of AdamW.
    """

    year: int
    paper: str
    figure: str
    objective: AbstractObjective | None
    vector_field: str = "mlp"
    layer: str | None = None
    width: int | None = None
    depth: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    max_iter: int | None = None
    preconditioned: bool = False
    weight_decay: float = 0.0


# As FFJORD and its kin train: one probe per solve, adaptive steps. (Gradients go through the steps, in less than half
# the time that it takes to solve backwards, as the papers do.)
ONE_PROBE = Hutchinson(noise="gaussian", mode="reverse")
ADAPTIVE = Integrator.adaptive(1e-5, 1e-5)
FOUR_STEPS = Integrator.constant(4)
FFJORD = TrainedWith(MaximumLikelihood(), ONE_PROBE, ADAPTIVE)
RECIPES: dict[str, Recipe] = {
    "flow_matching": Recipe(
        2023, "Lipman and others, Flow matching for generative modeling", "CIFAR-10 2.99 bits/dim", None,
        preconditioned=True,
    ),
    "ot_flow_matching": Recipe(
        2024, "Tong and others, Improving and generalizing flow-based generative models", "-",
        FlowMatching(coupling=ExactOT()), batch_size=256,
    ),
    "cnf": Recipe(
        2018, "Chen and others, Neural ordinary differential equations", "six Gaussians in 1 hour or more",
        TrainedWith(
            MaximumLikelihood(), Exact(), Integrator.adaptive(1e-4, 1e-4)
        ),
        learning_rate=2e-3, batch_size=1024, weight_decay=1e-5,
    ),
    "planar_cnf": Recipe(
        2018, "Chen and others, Neural ordinary differential equations", "-",
        MaximumLikelihood(), vector_field="planar_layers", learning_rate=1e-2, batch_size=500, max_iter=2000,
    ),
    "planar_flow": Recipe(
        2015, "Rezende and Mohamed, Variational inference with normalizing flows", "-",
        MaximumLikelihood(), layer="planar", depth=20, learning_rate=2e-2,
    ),
    "radial_flow": Recipe(
        2015, "Rezende and Mohamed, Variational inference with normalizing flows", "-",
        MaximumLikelihood(), layer="radial", depth=20, learning_rate=2e-2,
    ),
    "residual_flow": Recipe(
        2019, "Chen and others, Residual flows for invertible generative modeling", "MNIST 0.970 bits/dim",
        TrainedWith(MaximumLikelihood(), series=PowerSeries(2, stop=0.15)), layer="residual", width=48, depth=8,
    ),
    "galerkin": Recipe(
        2020, "Massaroli and others, Dissecting neural ODEs", "-", None, "galerkin", preconditioned=True,
    ),
    "hypernetwork": Recipe(
        2019, "Grathwohl and others, FFJORD; Ha and others, HyperNetworks", "-", None, "hypernetwork",
        preconditioned=True,
    ),
    "ffjord": Recipe(
        2019, "Grathwohl and others, FFJORD", "MNIST 0.99, CIFAR-10 3.40 bits/dim", FFJORD, "concat_squash",
    ),
    "rnode": Recipe(
        2020, "Finlay and others, How to train your neural ODE", "MNIST 0.973, CIFAR-10 3.398 bits/dim",
        TrainedWith(
            MaximumLikelihood(), ONE_PROBE, FOUR_STEPS, (KineticEnergy(weight=0.01), JacobianFrobenius(weight=0.01))
        ),
        "concat_squash",
    ),
    "steer": Recipe(
        2020, "Ghosh and others, STEER", "-", RandomEndTime(FFJORD, 0.5), "concat_squash",
    ),
    "taynode": Recipe(
        2020, "Kelly and others, Learning differential equations that are easy to solve", "-",
        TrainedWith(MaximumLikelihood(), ONE_PROBE, ADAPTIVE, (TaylorDerivative(2, weight=0.01),)),
        "concat_squash",
    ),
    "tpr": Recipe(
        2020, "Huang and others, Trajectory polynomial regularization", "42-71% fewer evaluations",
        WeightedSum([(1.0, FFJORD), (5.0, TrainedWith(TrajectoryPolynomial(), integrator=ADAPTIVE))]),
        "concat_squash",
    ),
    "ot_flow": Recipe(
        2021, "Onken and others, OT-Flow", "8x faster training, 24x faster inference than FFJORD",
        TrainedWith(
            MaximumLikelihood(), Exact(), Integrator.constant(6),
            (KineticEnergy(weight=0.01, reduce="sum"), HamiltonJacobi(weight=0.15)),
        ),
        "potential", depth=1, learning_rate=1e-2,
    ),
}  # fmt: skip


class FlowRecipe(eqx.Module):
    """A flow by strings and numbers: call it with a key to build the flow.

    Parameters
    ----------
    size
        Number of columns.
    vector_field
        A key of `VECTOR_FIELDS`.
    width, depth
        Size of its network.
    layer
        A key of `LAYERS`: the flow is then `depth` such layers instead, data to base by their formula.
    preconditioned
        True adds the Gaussian field in closed form: right for flow matching.
    base
        ``"standard"`` normal, or ``"trainable"``: normal columns whose means and scales are trained with the rest.
    solver
        A key of `liouville.integrate.SOLVERS`; those without error estimate take 20 constant steps.
    rtol, atol
        Tolerances of adaptive steps.

    Examples
    --------
    >>> import jax
    >>> flow = FlowRecipe(2, width=16, depth=1)(jax.random.key(0))
    >>> flow.sample(jax.random.key(1), (5,)).shape
    (5, 2)
    """

    size: int = eqx.field(static=True)
    vector_field: str = eqx.field(default="mlp", static=True)
    width: int = eqx.field(default=64, static=True)
    depth: int = eqx.field(default=2, static=True)
    layer: str | None = eqx.field(default=None, static=True)
    preconditioned: bool = eqx.field(default=True, static=True)
    base: str = eqx.field(default="standard", static=True)
    solver: str = eqx.field(default="dopri5", static=True)
    rtol: float = eqx.field(default=1e-5, static=True)
    atol: float = eqx.field(default=1e-5, static=True)

    def __call__(self, key: Key) -> Transformed:
        """Build the flow, on a base that starts as standard normal, with weights drawn from `key`."""
        base = Normal(np.zeros(self.size), np.ones(self.size), trainable=self.base == "trainable")
        if self.layer is not None:
            make = LAYERS[self.layer]
            # Likelihood goes from data to base, so that is the direction of the formula.
            layers = [Invert(make(self.size, self.width, k)) for k in jax.random.split(key, self.depth)]
            return Transformed(base, Chain(layers))
        field = VECTOR_FIELDS[self.vector_field]((self.size,), width=self.width, depth=self.depth, key=key)
        if self.preconditioned:
            field = Preconditioned(field)
        return Transformed(base, CNF(field, Exact(), integrator_of(self.solver, self.rtol, self.atol)))


class ImageRecipe(NamedTuple):
    """How a paper learns pictures.

    Attributes
    ----------
    year, paper, figure
        Whose work it is, and what was published.
    objective
        Function of the number of pixels that makes the objective; likelihoods are in bits per dimension.
    preprocess
        How pixels become numbers: a key of `liouville.frames.PIXELS`.
    small_field, field
        Keys of `IMAGE_FIELDS`: for pictures of at most `small_size` numbers, and for others.
    small_size
        Up to where a network without convolutions learns more in the same time.
    multiscale
        True squeezes and splits between several flows, where they are convolutional; False is one flow of the whole
        picture.
    preconditioned
        True adds the Gaussian field in closed form.
    learning_rate, batch_size, weight_decay
        As in `Recipe`.
    """

    year: int
    paper: str
    figure: str
    objective: Callable[[int], AbstractObjective]
    preprocess: str
    small_field: str
    field: str
    small_size: int
    multiscale: bool
    preconditioned: bool
    learning_rate: float
    batch_size: int
    weight_decay: float = 0.0


IMAGE_FIELDS: dict[str, Callable[..., AbstractVectorField]] = {
    "concat_squash": ConcatSquash,
    "conv": ConvNet,
    "mlp": MLP,
    "unet": UNet,
}
CONVOLUTIONAL = ("conv", "unet")


def in_bits(objective: AbstractObjective, size: int) -> AbstractObjective:
    """Return a likelihood of pictures of so many pixels in bits per dimension."""
    return WeightedSum([(1 / (size * math.log(2)), Encoded(objective))])


def rnode_image(size: int, penalties: tuple[type, ...] = (KineticEnergy, JacobianFrobenius)) -> AbstractObjective:
    """Return RNODE's objective: bits per dimension, and a hundredth of each penalty."""
    # The penalties are divided with the nats.
    weighted = tuple(penalty(weight=0.01 * size * math.log(2)) for penalty in penalties)
    return in_bits(TrainedWith(MaximumLikelihood(), ONE_PROBE, FOUR_STEPS, weighted), size)


IMAGE_RECIPES = {
    "flow_matching_image": ImageRecipe(
        2023, "Lipman and others, Flow matching for generative modeling", "CIFAR-10 2.99 bits/dim",
        lambda size: Encoded(FlowMatching()), "margins", "mlp", "unet", 100, False, True, 1e-3, 128,
    ),
    "ffjord_image": ImageRecipe(
        2019, "Grathwohl and others, FFJORD", "MNIST 0.99, CIFAR-10 3.40 bits/dim",
        lambda size: in_bits(FFJORD, size), "logit", "concat_squash", "conv", 256, True, False, 1e-3, 200,
    ),
    "rnode_image": ImageRecipe(
        2020, "Finlay and others, How to train your neural ODE", "MNIST 0.973, CIFAR-10 3.398 bits/dim",
        rnode_image, "logit", "concat_squash", "conv", 256, True, False, 1e-3, 200,
    ),
}  # fmt: skip


class ImageFlow(eqx.Module):
    """A flow of pictures by strings and numbers: call it with a key to build the flow.

    Parameters
    ----------
    shape
        Shape of one picture: height, width, channels.
    field
        A key of `IMAGE_FIELDS`.
    width, depth
        Size of its network.
    multiscale
        True puts several flows, with squeezes and splits between them (`liouville.bijections.multiscale`).
    preconditioned
        True adds the Gaussian field in closed form: right for flow matching.
    solver
        A key of `liouville.integrate.SOLVERS`.
    rtol, atol
        Tolerances of adaptive steps.

    Examples
    --------
    >>> import jax
    >>> flow = ImageFlow((8, 8, 1), "conv", width=4, depth=1)(jax.random.key(0))
    >>> flow.shape
    (8, 8, 1)
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    field: str = eqx.field(default="unet", static=True)
    width: int = eqx.field(default=32, static=True)
    depth: int = eqx.field(default=1, static=True)
    multiscale: bool = eqx.field(default=False, static=True)
    preconditioned: bool = eqx.field(default=True, static=True)
    solver: str = eqx.field(default="dopri5", static=True)
    rtol: float = eqx.field(default=1e-5, static=True)
    atol: float = eqx.field(default=1e-5, static=True)

    def __call__(self, key: Key) -> Transformed:
        """Build the flow, on a standard normal base, with weights drawn from `key`."""
        base, integrator = Normal.standard(self.shape), integrator_of(self.solver, self.rtol, self.atol)
        if self.multiscale:
            bijection = multiscale(self.shape, self.make_field, key=key, integrator=integrator)
        else:
            bijection = CNF(self.make_field(self.shape, key), integrator=integrator)
        return Transformed(base, bijection)

    def make_field(self, shape: tuple[int, ...], key: Key) -> AbstractVectorField:
        """Build the vector field of pictures of a shape."""
        field = IMAGE_FIELDS[self.field](shape, width=self.width, depth=self.depth, key=key)
        return Preconditioned(field) if self.preconditioned else field


class NoiseFlow(eqx.Module):
    """The noise of variational dequantization: call it with a key to build it.

    Its flow starts at the logits of uniform noise but for their tails, is solved in four constant steps, and its
    divergence is estimated by one probe.

    Parameters
    ----------
    shape
        Shape of one picture: height, width, channels.
    width, depth
        Channels of the hidden layers, and their number.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(default=32, static=True)
    depth: int = eqx.field(default=2, static=True)

    def __call__(self, key: Key) -> VariationalDequantization:
        """Build the noise, with weights drawn from `key`."""
        height, width, channels = self.shape
        field = ConvNet((height, width, 2 * channels), width=self.width, depth=self.depth, key=key)
        base = Normal(np.zeros(self.shape), np.full(self.shape, _LOGISTIC_SCALE))
        return VariationalDequantization(Transformed(base, CNF(BesidePicture(field), ONE_PROBE, FOUR_STEPS)))


class FramedFlow(eqx.Module):
    """A flow of pictures of whole numbers, in its frame: call it with a key to build it.

    Parameters
    ----------
    flow
        Builds the core.
    frame
        What is done to pictures before it.
    noise
        Builds the frame's noise; None leaves it as it is.
    """

    flow: ImageFlow
    frame: Frame
    noise: NoiseFlow | None = None

    def __call__(self, key: Key) -> Density:
        """Build the density, with weights drawn from `key`."""
        key, noise_key = jax.random.split(key)
        frame = self.frame if self.noise is None else dataclasses.replace(self.frame, noise=self.noise(noise_key))
        return Density(self.flow(key), frame)


def integrator_of(solver: str, rtol: float, atol: float) -> Integrator:
    """Return an integrator by name; its tolerances are arrays, so that changing them compiles nothing."""
    if solver in CONSTANT_STEP_SOLVERS:
        return Integrator.constant(_CONSTANT_STEPS, SOLVERS[solver]())
    return Integrator.adaptive(np.asarray(rtol), np.asarray(atol), SOLVERS[solver]())


def with_tolerance(flow: Tree, factor: float) -> Tree:
    """Return the flow with the tolerances of its solves multiplied by `factor` (`Integrator.with_tolerance`)."""
    return map_integrators(lambda integrator: integrator.with_tolerance(factor), flow)


Flow = TypeVar("Flow", Transformed, Density)


def until(flow: Flow, time: float) -> Flow:
    """Return the flow that ends at a time from 0 (base) to 1 (data): of a `Density`, in the data's coordinates.

    Its frame stays as it is: it is no part of the way.

    Raises
    ------
    TypeError
        Where the flow is no CNF.
    """
    if isinstance(flow, Density):
        return dataclasses.replace(flow, core=until(flow.core, time))
    cnf = cnf_of(flow)
    # An array, so that another time compiles nothing.
    return eqx.tree_at(lambda f: f.bijection.t1, flow, np.asarray(cnf.t0 + time * (cnf.t1 - cnf.t0)))


def with_divergence(flow: Tree, divergence: AbstractDivergence) -> Tree:
    """Return the flow with another divergence: train with one, evaluate with another."""
    return map_cnfs(lambda cnf: eqx.tree_at(lambda c: c.divergence, cnf, divergence), flow)

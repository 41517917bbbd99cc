"""Flows by strings and numbers: what they are built by fits into a file."""

import dataclasses
import math
import numbers
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import equinox as eqx
import numpy as np

from ._draws import split
from ._types import Key
from .bijections import CNF, AbstractBijection, Chain, Invert, map_cnfs, map_integrators, multiscale
from .density import Density
from .dequantization import AbstractDequantization, VariationalDequantization
from .distributions import Normal, Transformed, cnf_of
from .divergences import AbstractDivergence, Exact, Hutchinson
from .frames import Frame
from .integrate import CONSTANT_STEP_SOLVERS, SOLVERS, Integrator
from .mixed import (
    Beside,
    Cells,
    Codes,
    Expected,
    ExpectedOfAny,
    GaussianMixture,
    Grid,
    MaskedNormal,
    Mixed,
    MixedFrame,
    Subsets,
    as_tuple,
    moments_of,
    told_size,
)
from .papers import Galerkin, Hypernetwork, Planar, PlanarField, Potential, Radial, Residual
from .vector_fields import MLP, AbstractVectorField, BesidePicture, ConcatSquash, ConvNet, Masked, Preconditioned, UNet

VECTOR_FIELDS: dict[str, Callable[..., AbstractVectorField]] = {
    "concat_squash": ConcatSquash,
    "conv": ConvNet,
    "galerkin": Galerkin,
    "hypernetwork": Hypernetwork,
    "mlp": MLP,
    "planar": PlanarField,
    "planar_layers": partial(PlanarField, form="layers"),
    "potential": Potential,
    "unet": UNet,
}
# Those that take pictures, of shape (height, width, channels), and the convolutions among them.
IMAGE_FIELDS, CONVOLUTIONAL = ("concat_squash", "conv", "mlp", "unet"), ("conv", "unet")
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


# As FFJORD and its kin train: one probe per solve. (Gradients go through the steps, in less than half the time that it
# takes to solve backwards, as the papers do.)
ONE_PROBE = Hutchinson(noise="gaussian", mode="reverse")
FOUR_STEPS = Integrator.constant(4)


def _as_shape(shape: Any) -> Any:
    """Return a shape, of which a number is that of columns, or None."""
    return shape if shape is None else (int(shape),) if isinstance(shape, numbers.Integral) else tuple(shape)


class FlowSpec(eqx.Module):
    """A flow by strings and numbers: call it with a key to build the flow.

    Parameters
    ----------
    shape
        Shape of one point; a number is that of columns.
    vector_field
        A key of `VECTOR_FIELDS`.
    width, depth
        Size of its network.
    layer
        A key of `LAYERS`: the flow is then `depth` such layers instead, data to base by their formula.
    multiscale
        True puts several flows, with squeezes and splits between them (`liouville.bijections.multiscale`).
    preconditioned
        True adds the Gaussian field in closed form: right for flow matching.
    base
        ``"standard"`` normal, or ``"trainable"``: normal entries whose means and scales are trained with the rest.
    solver
        A key of `liouville.integrate.SOLVERS`; those without error estimate take 20 constant steps.
    rtol, atol
        Tolerances of adaptive steps.
    cond_shape
        Shape of what the vector field is conditioned on, or None.

    Raises
    ------
    ValueError
        Where discrete layers are to be conditioned.

    Examples
    --------
    >>> import jax
    >>> flow = FlowSpec(2, width=16, depth=1)(jax.random.key(0))
    >>> flow.sample(jax.random.key(1), (5,)).shape
    (5, 2)
    """

    shape: tuple[int, ...] = eqx.field(static=True, converter=_as_shape)
    vector_field: str = eqx.field(default="mlp", static=True)
    width: int = eqx.field(default=64, static=True)
    depth: int = eqx.field(default=2, static=True)
    layer: str | None = eqx.field(default=None, static=True)
    multiscale: bool = eqx.field(default=False, static=True)
    preconditioned: bool = eqx.field(default=True, static=True)
    base: str = eqx.field(default="standard", static=True)
    solver: str = eqx.field(default="dopri5", static=True)
    rtol: float = eqx.field(default=1e-5, static=True)
    atol: float = eqx.field(default=1e-5, static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(default=None, static=True, converter=_as_shape)

    def __check_init__(self):
        if self.layer is not None and self.cond_shape is not None:
            raise ValueError(
                f"Expected no condition for layers {self.layer!r}, which take none, got cond_shape={self.cond_shape}; "
                "try a vector_field."
            )

    def __call__(self, key: Key) -> Transformed:
        """Build the flow, on a base that starts as standard normal, with weights drawn from `key`."""
        base = Normal(np.zeros(self.shape), np.ones(self.shape), trainable=self.base == "trainable")
        return Transformed(base, self._bijection(key))

    def _bijection(self, key: Key) -> AbstractBijection:
        if self.layer is not None:
            make, size = LAYERS[self.layer], math.prod(self.shape)
            # Likelihood goes from data to base, so that is the direction of the formula.
            return Chain([Invert(make(size, self.width, k)) for k in split(key, self.depth)])
        integrator = integrator_of(self.solver, self.rtol, self.atol)
        if self.multiscale:
            return multiscale(self.shape, self.make_field, key=key, integrator=integrator)
        return CNF(self.make_field(self.shape, key), Exact(), integrator)

    def make_field(self, shape: tuple[int, ...], key: Key) -> AbstractVectorField:
        """Build the vector field of points of a shape."""
        given = {} if self.cond_shape is None else {"cond_shape": self.cond_shape}
        field = VECTOR_FIELDS[self.vector_field](shape, width=self.width, depth=self.depth, key=key, **given)
        return Preconditioned(field) if self.preconditioned else field


class MixedSpec(eqx.Module):
    """A `liouville.mixed.Mixed` by strings and numbers: call it with a key to build it.

    Parameters
    ----------
    flow
        Builds what is learned of the continuous numbers; the other parts have its width.
    shares
        For each code the share of each of its levels.
    means, scale, slopes, effects, shift, spread, bend
        What is expected of each whole number (`liouville.mixed.Expected`).
    mixture
        Of numbers of which any may be known (`liouville.mixed.GaussianMixture`), instead of lines.
    lowest, highest, seen, unseen
        Where its cells are (`liouville.mixed.Grid`).
    switches
        As of `Mixed`.
    columns
        As of `liouville.mixed.Subsets`, which is then built; None builds a `Mixed`.
    given
        As of `Mixed`.

    Examples
    --------
    >>> import jax
    >>> mixed = MixedSpec(FlowSpec(2, width=8, depth=1), shares=((0.5, 0.5),), switches=(0, None))(jax.random.key(0))
    >>> mixed.shape
    (3,)
    """

    flow: FlowSpec
    shares: tuple[tuple[float, ...], ...] = eqx.field(default=(), static=True)
    means: tuple[float, ...] = eqx.field(default=(), static=True)
    scale: tuple[float, ...] = eqx.field(default=(), static=True)
    slopes: tuple[tuple[float, ...], ...] | None = eqx.field(default=None, static=True)
    effects: tuple[tuple[tuple[float, ...], ...], ...] = eqx.field(default=(), static=True)
    shift: tuple[float, ...] | None = eqx.field(default=None, static=True)
    spread: tuple[float, ...] | None = eqx.field(default=None, static=True)
    bend: float = eqx.field(default=4.0, static=True)
    mixture: tuple | None = eqx.field(default=None, static=True)
    lowest: tuple[float, ...] = eqx.field(default=(), static=True)
    highest: tuple[float, ...] = eqx.field(default=(), static=True)
    seen: tuple[tuple[float, ...], ...] | None = eqx.field(default=None, static=True)
    unseen: tuple[float, ...] | None = eqx.field(default=None, static=True)
    switches: tuple[int | None, ...] = eqx.field(default=(), static=True)
    columns: tuple[int, ...] | None = eqx.field(default=None, static=True)
    given: tuple[tuple[int, ...], int] | None = eqx.field(default=None, static=True)

    @staticmethod
    def fit(
        flow: FlowSpec,
        frame: MixedFrame,
        points: np.ndarray,
        weight: np.ndarray,
        of_subsets: bool = False,
        mixture: GaussianMixture | None = None,
        given: tuple[tuple[int, ...], int] | None = None,
    ) -> "MixedSpec":
        """Return the specification of a table's distribution, given its rows as `fit_mixed` returns them.

        A level's share has half a row more than there are, so that one that is known to exist is never impossible.

        Parameters
        ----------
        flow
            Builds what is learned of the continuous numbers.
        frame, points, weight
            The frame, its points of the rows, and how much each counts.
        of_subsets
            True for a `liouville.mixed.Subsets`.
        mixture
            What such a distribution has of all numbers (`liouville.mixed.mixture_of`), or None.
        given
            As of `Mixed`.
        """
        num, total = len(frame.levels), weight.sum()
        is_there, points = ~np.isnan(points), np.nan_to_num(points)
        of_row = weight * len(weight) / total
        count = lambda j, levels: np.bincount(points[:, j].astype(int), of_row * is_there[:, j], minlength=levels)
        counts = [count(j, levels) + 0.5 for j, levels in enumerate(frame.levels)]
        shares = tuple(tuple(map(float, column / column.sum())) for column in counts)
        whole = [column for column in frame.columns if column.kind == "whole"]
        facts: dict[str, Any] = {"shares": shares, "switches": frame.switches, "given": given}
        facts["columns"] = frame.owners if of_subsets else None
        if whole:
            grid = Grid.of(whole)
            are_whole = slice(num, num + len(whole))
            numbers, are_on = points[:, are_whole], frame.are_on(points[:, :num])[:, : len(whole)]
            mask = (are_on & is_there[:, are_whole]).astype(float)
            facts |= {"lowest": _as_tuples(grid.lowest), "highest": _as_tuples(grid.highest)}
            facts |= {"seen": tuple(c.seen for c in whole), "unseen": tuple(c.unseen for c in whole)}
            if of_subsets:
                moments = moments_of(numbers, mask, weight, grid)
                facts |= dict(zip(("means", "scale"), map(_as_tuples, moments), strict=True))
            else:
                expected = Expected.fit(numbers, mask, weight, grid, points[:, :num], frame.levels)
                facts |= {name: _as_tuples(value) for name, value in vars(expected).items()}
        if mixture is not None:
            facts["mixture"] = tuple(map(_as_tuples, vars(mixture).values()))
        return MixedSpec(flow, **facts)

    def __call__(self, key: Key) -> Mixed | Subsets:
        """Build the distribution, with weights drawn from `key`."""
        flow, width, (size,) = self.flow, self.flow.width, self.flow.shape
        told = width if self.columns is None else told_size(len(self.means), size, width)
        code_key, cell_key, core_key, key = split(key, 4)
        integrator, core = integrator_of(flow.solver, flow.rtol, flow.atol), None
        is_told = self.columns is not None or self.given is not None
        codes = Codes(self.shares, width=width, is_told=is_told, key=code_key) if self.shares else None
        cells, mixture = None, None if self.mixture is None else GaussianMixture(*self.mixture)
        if self.means:
            sizes: dict[str, Any] = {"width": width, "depth": flow.depth, "integrator": integrator}
            lines = (self.slopes, self.effects, self.shift, self.spread, self.bend)
            if mixture is None:
                expected = Expected(self.means, self.scale, *lines)
            else:
                expected = ExpectedOfAny(self.means, self.scale, mixture, self.bend)
            grid = Grid(self.lowest, self.highest, self.seen, self.unseen)
            cells = Cells(expected, grid, told=told, **sizes, key=cell_key)
        if size:
            cond_shape = (size + told,)
            field = dataclasses.replace(flow, cond_shape=cond_shape).make_field(flow.shape, core_key)
            core = Transformed(MaskedNormal(flow.shape, cond_shape), CNF(Masked(field), Exact(), integrator))
        if self.columns is not None:
            parts = (codes, cells, core, self.switches, self.columns)
            beside = None if mixture is None else Beside(mixture)
            return Subsets(*parts, beside=beside, width=width, key=key)
        return Mixed(codes, cells, core, self.switches, width=width, given=self.given, key=key)


def _as_tuples(arrays: Any) -> tuple:
    """Return an array, or several, as tuples of numbers."""
    return tuple(map(_as_tuples, arrays)) if isinstance(arrays, tuple) else as_tuple(arrays.tolist())


class NoiseSpec(eqx.Module):
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
    """A flow in its frame: call it with a key to build the density.

    Parameters
    ----------
    flow
        Builds the core.
    frame
        What is done to data before it.
    noise
        Builds the frame's noise; None leaves it as it is.
    """

    flow: Callable[[Key], Transformed]
    frame: Frame
    noise: Callable[[Key], AbstractDequantization] | None = None

    def __call__(self, key: Key) -> Density:
        """Build the density, with weights drawn from `key`."""
        key, noise_key = split(key)
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


Solved = TypeVar("Solved", Transformed, Density)


def until(flow: Solved, time: float) -> Solved:
    """Return the flow that ends at a time from 0 (base) to 1 (data): of a `Density`, in the data's coordinates.

    Its frame stays as it is: it is no part of the way. It is for evaluation: its end time is an array.

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
    """Return the flow with another divergence, of its noise too: train with one, evaluate with another."""
    return map_cnfs(lambda cnf: eqx.tree_at(lambda c: c.divergence, cnf, divergence), flow)

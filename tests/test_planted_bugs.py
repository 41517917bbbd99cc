"""The tests can fail: each of the field's classic bugs, planted, makes the checker of the real part raise.

That the real parts pass the same checkers is for the other files to show.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from checks import (
    check_condition,
    check_hutchinson,
    check_linear_flow,
    check_log_det,
    check_mass,
    check_mixed,
    check_subsets,
    mixed_density,
    scaled_flow,
    subsets,
)
from liouville.bijections import CNF, Moved, Standardize
from liouville.distributions import Normal, Transformed
from liouville.divergences import Hutchinson
from liouville.mixed import Mixed, MixedFrame, Subsets
from liouville.vector_fields import Masked, mask_of


class FlippedSign(CNF):
    """The log-determinant of the other direction."""

    def _solve(self, *args):
        moved = super()._solve(*args)
        return dataclasses.replace(moved, log_det=None if moved.log_det is None else -moved.log_det)


class SwappedTimes(CNF):
    """The flow runs the wrong way."""

    def _solve(self, x, start, end, *args):
        return super()._solve(x, end, start, *args)


class HalfSpan(CNF):
    """The flow stops half way."""

    def _solve(self, x, start, end, *args):
        return super()._solve(x, start, (start + end) / 2, *args)


class SummedProbes(Hutchinson):
    """Estimates are summed over the probes, not averaged."""

    def __call__(self, fn, x, noise):
        local = self.linearize(fn, x, noise)
        return local.value, jnp.sum(local.estimates)


class OneProbe(Hutchinson):
    """All probes are the first."""

    def init(self, x, key):
        noise = super().init(x, key)
        return jnp.broadcast_to(noise[:1], noise.shape)


class DroppedCondition(Transformed):
    """The field sees no condition but zero."""

    def _log_prob(self, x, condition, key):
        return super()._log_prob(x, jnp.zeros_like(condition), key)


class DroppedSampleCondition(Transformed):
    """Samples are drawn under no condition but zero."""

    def _sample(self, key, condition):
        return super()._sample(key, jnp.zeros_like(condition))


class Unscaled(Standardize):
    """The density of standardized data is passed off as that of the data."""

    def to_base(self, x, condition=None, **options):
        moved = super().to_base(x, condition, **options)
        return Moved(moved.x, 0 * moved.log_det)


class UnscaledColumns(MixedFrame):
    """The log of the columns' scale is left out."""

    def encode(self, x, drawn=None):
        points, change = super().encode(x, drawn)
        return points, 0 * change


class ShiftedLevels(MixedFrame):
    """A level has the code of the next one."""

    def encode(self, x, drawn=None):
        points, change = super().encode(x, drawn)
        points[..., 0] = (points[..., 0] + 1) % 3
        return points, change


class AtomsWithDensity(Mixed):
    """The density of an atom is counted beside its mass."""

    def masks(self, codes):
        return jax.tree.map(jnp.ones_like, super().masks(codes))


def finite_outermost_cells(mixed: Mixed) -> Mixed:
    """The cell of the lowest number ends, as the others do."""
    return eqx.tree_at(lambda m: m.cells.grid.lowest, mixed, jnp.array([-jnp.inf]))


def with_density(mixed: Mixed) -> Mixed:
    broken = object.__new__(AtomsWithDensity)
    for name, value in vars(mixed).items():
        object.__setattr__(broken, name, value)
    return broken


@pytest.mark.parametrize(
    ("frame", "change"),
    [
        (UnscaledColumns, lambda m: m),
        (ShiftedLevels, lambda m: m),
        (MixedFrame, finite_outermost_cells),
        (MixedFrame, with_density),
    ],
)
def test_broken_masses_are_found(frame, change):
    check_mixed(mixed_density())
    with pytest.raises(AssertionError):
        check_mixed(mixed_density(frame, change))


class UnmaskedDivergence(Masked):
    """The mask does not reach the divergence."""

    def value_and_divergence(self, t, x, condition, estimate):
        local = self.field.value_and_divergence(t, mask_of(condition, self.shape) * x, condition, estimate)
        return dataclasses.replace(local, value=mask_of(condition, self.shape) * local.value)


class Leaking(Subsets):
    """What is asked for is told as if it were given."""

    def _told(self, network, row, known, asked):
        return super()._told(network, row, known | asked, asked)


def without_mask_in_divergence(flow: Subsets) -> Subsets:
    field = flow.core.bijection.vector_field
    return eqx.tree_at(lambda f: f.core.bijection.vector_field, flow, UnmaskedDivergence(field.field))


def leaking(flow: Subsets) -> Subsets:
    broken = object.__new__(Leaking)
    for name, value in vars(flow).items():
        object.__setattr__(broken, name, value)
    return broken


@pytest.mark.parametrize("broken", [without_mask_in_divergence, leaking])
def test_a_broken_mask_is_found(broken):
    check_subsets(subsets())
    with pytest.raises(AssertionError):
        check_subsets(subsets(broken))


@pytest.mark.parametrize("broken", [FlippedSign, SwappedTimes, HalfSpan])
def test_a_broken_flow_is_found(broken):
    with pytest.raises(AssertionError):
        check_linear_flow(broken, atol=1e-5)


@pytest.mark.parametrize("broken", [SummedProbes, OneProbe])
@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_broken_probes_are_found(broken, noise):
    with pytest.raises(AssertionError):
        check_hutchinson(broken(noise, 4), 4)


@pytest.mark.parametrize("broken", [DroppedCondition, DroppedSampleCondition])
def test_a_dropped_condition_is_found(broken):
    with pytest.raises(AssertionError):
        check_condition(lambda cnf: broken(Normal.standard((1,)), cnf))


def test_unscaled_data_are_found():
    with pytest.raises(AssertionError):
        check_mass(scaled_flow(Unscaled), centre=1e3, scale=50.0)
    with pytest.raises(AssertionError), jax.enable_x64(True):
        check_log_det(Unscaled([1.0, 2.0], [3.0, 4.0]), jnp.ones((2, 2)) * jnp.arange(1.0, 3.0)[:, None], atol=1e-6)

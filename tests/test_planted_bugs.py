"""The tests can fail: each of the field's classic bugs, planted, makes the checker of the real part raise.

That the real parts pass the same checkers is for the other files to show.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from checks import check_condition, check_hutchinson, check_linear_flow, check_log_det, check_mass, scaled_flow
from liouville.bijections import CNF, Moved, Standardize
from liouville.distributions import Normal, Transformed
from liouville.divergences import Hutchinson


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

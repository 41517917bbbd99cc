"""Fits to a density that is known up to a factor: the reverse divergence, and what importance weights say of a fit."""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import AnyArray, Key, Point, Scalar
from ..bijections import Moved
from ..distributions import Transformed
from ..objectives import AbstractObjective, Batch, costs, sharing_steps


class ReverseKL(AbstractObjective):
    """The reverse Kullback-Leibler divergence to an unnormalized density, less its log-normalizer.

    The loss is the mean of ``log q(x) - log_density(x)`` over draws of the flow `q` (Rezende and Mohamed,
    Variational inference with normalizing flows, 2015, equation 15, at temperature 1), in nats, plus the weighted
    penalties of the flow's regularizers. It is an unbiased estimate of a bound: minus its expectation is at most the
    log-normalizer. The gradient passes through the draws. No table is needed: a batch gives the number of draws.
    The divergence forgives what the flow leaves out, so a fit may miss modes: see `evidence`.

    Parameters
    ----------
    log_density
        Function of one point: the log-density up to a constant, in nats.
    num_samples
        Draws per step; None means as many as the batch has rows.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from liouville.papers import Planar
    >>> from liouville.distributions import Normal
    >>> flow = Transformed(Normal.standard((2,)), Planar((2,), key=jax.random.key(0)))
    >>> objective = ReverseKL(lambda x: -jnp.sum(x**2) / 2, num_samples=64)
    >>> loss, _ = objective(flow, empty_batch(flow), key=jax.random.key(1))
    >>> print(bool(loss > -jnp.log(2 * jnp.pi)))
    True
    """

    log_density: Callable[[Point], Scalar]
    num_samples: int | None = eqx.field(default=None, static=True)

    def __call__(self, flow: Transformed, batch: Batch, *, key: Key) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the mean of ``log q - log_density`` over draws of the flow, plus the penalties."""
        num = batch.x.shape[0] if self.num_samples is None else self.num_samples
        keys = jax.random.split(key, num)
        trained = sharing_steps(flow)
        log_prob, moved = jax.vmap(lambda key: _draw(trained, key))(keys)
        log_weights = jax.vmap(self.log_density)(moved.x) - log_prob
        penalties = {name: jnp.mean(value) for name, value in moved.penalties.items()}
        loss = -jnp.mean(log_weights) + sum(penalties.values())
        return loss, {**costs(moved.info), **penalties}


class Evidence(NamedTuple):
    """What importance weights of a flow's draws say, in nats and shares.

    Attributes
    ----------
    log_normalizer
        Estimate of the log of the target's integral; its expectation is at most the truth (Jensen), which it
        approaches with the number of draws.
    std_error
        Standard error of `log_normalizer`, by the delta method.
    lower_bound
        Mean log-weight: an unbiased estimate of a lower bound of the log-normalizer.
    lower_bound_std_error
        Standard error of `lower_bound`.
    effective_sample_size
        Kish's effective number of draws as a share of all: an estimate, 1 for a perfect fit.
    """

    log_normalizer: float
    std_error: float
    lower_bound: float
    lower_bound_std_error: float
    effective_sample_size: float


def empty_batch(flow: Transformed) -> Batch:
    """Return a batch of one row that says nothing: for an objective that draws its own points."""
    return Batch(jnp.zeros((1, *flow.shape)))


def log_weights(
    flow: Transformed, log_density: Callable[[Point], Scalar], num: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `num` points of a flow; return them and ``log_density - log q`` at each.

    Parameters
    ----------
    flow
        The flow `q`.
    log_density
        Function of one point: the target's log-density up to a constant, in nats.
    num
        Number of draws.
    seed
        Seed of the draws, and of a stochastic log-determinant, whose noise makes the weights noisier.

    Returns
    -------
    points : ndarray of shape (num, *shape)
        The draws.
    log_weights : ndarray of shape (num,), float64
        In nats; NaN where a solve failed.
    """
    points, weights = _weighted_draws(flow, log_density, num, np.asarray(seed, np.uint32))
    return np.asarray(points), np.asarray(weights, np.float64)


def evidence(log_weights: Float[AnyArray, " num"]) -> Evidence:
    """Return the log-normalizer, its lower bound and the effective sample size from log-weights of a flow's draws.

    Draws of a flow say nothing of where it does not draw: a fit that has lost a mode may look perfect here, with a
    log-normalizer that is too low by that mode's share. Where draws of the target can be had,
    `effective_sample_size_of_target` finds it.

    Parameters
    ----------
    log_weights
        ``log_density - log q`` at two draws of `q` or more, in nats. NaN makes the results NaN: it is never
        left out.

    Raises
    ------
    ValueError
        Where there are fewer than two draws: one has no standard error.

    Examples
    --------
    >>> print(evidence(np.full(10, 2.0)).log_normalizer, evidence(np.full(10, 2.0)).effective_sample_size)
    2.0 1.0
    """
    values = np.asarray(log_weights, np.float64)
    if len(values) < 2:
        raise ValueError(f"Expected 2 or more draws for a standard error, got {len(values)}; try more draws.")
    weights, largest = _scaled(values)
    share = effective_sample_size(values)
    # Var(log mean w) = Var(w) / (n mean(w)^2), and mean(w^2) / mean(w)^2 is one over the share.
    std_error = math.sqrt(max(1 / share - 1, 0.0) / (len(values) - 1)) if share > 0 else math.nan
    bound_error = np.std(values, ddof=1) / math.sqrt(len(values)) if np.isfinite(values).all() else math.nan
    with np.errstate(divide="ignore"):
        log_normalizer = float(largest + np.log(np.mean(weights)))
    return Evidence(log_normalizer, std_error, float(np.mean(values)), float(bound_error), share)


def effective_sample_size(log_weights: Float[AnyArray, " num"]) -> float:
    """Return Kish's effective number of draws, ``(sum w)^2 / sum w^2``, as a share of all; an estimate.

    Parameters
    ----------
    log_weights
        Log-weights at draws of the flow, in nats, up to a constant.

    Examples
    --------
    >>> print(effective_sample_size(np.log([1.0, 1.0, 1e-30, 1e-30])))
    0.5
    """
    weights, _ = _scaled(np.asarray(log_weights, np.float64))
    if not np.any(weights):
        return math.nan
    return float(np.mean(weights) ** 2 / np.mean(weights**2))


def effective_sample_size_of_target(log_weights: Float[AnyArray, " num"]) -> float:
    """Return the same share from log-weights at draws of the *target*: ``1 / (mean(w) mean(1 / w))``; an estimate.

    Where the flow `q` has lost a mode, the target's draws there have huge weights, and the share is near 0.

    Parameters
    ----------
    log_weights
        ``log_density - log q`` at draws of the target, in nats, up to a constant.

    Examples
    --------
    >>> print(round(effective_sample_size_of_target(np.log([1.0, 1.0, 1e6])), 6))
    4e-06
    """
    values = np.asarray(log_weights, np.float64)
    up, largest = _scaled(values)
    down, least = _scaled(-values)
    return float(np.exp(-largest - least) / (np.mean(up) * np.mean(down)))


@eqx.filter_jit
def _weighted_draws(flow: Transformed, log_density: Callable, num: int, seed: AnyArray) -> tuple[Array, Array]:
    points, log_prob = flow.sample_and_log_prob(jax.random.key(seed), (num,))
    return points, jax.vmap(log_density)(points) - log_prob


def _draw(flow: Transformed, key: Key) -> tuple[Scalar, Moved]:
    base_key, key = jax.random.split(key)
    z, log_prob = flow.base._sample_and_log_prob(base_key, None)
    moved = flow.bijection.to_data(z, key=key)
    return log_prob - cast(Scalar, moved.log_det), moved


def _scaled(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights whose largest is 1, and the log of what they were divided by."""
    largest = float(np.max(log_weights))
    # Where all are zero there is nothing to scale by.
    largest = 0.0 if largest == -math.inf else largest
    return np.exp(log_weights - largest), largest

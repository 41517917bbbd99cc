"""Moving normalization: statistics that follow the points, and leave density and gradients alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checks import check_log_det, random_cnf
from liouville import evaluation
from liouville._types import partition
from liouville.bijections import Chain
from liouville.density import Density
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.objectives import Batch, Encoded, MaximumLikelihood, MixedPrecision, TrainedWith, WeightedSum
from liouville.papers import MovingAverages, MovingNorm, RandomEndTime
from liouville.training import Budget, Options, Trainer, TrainingData

LOC, SCALE = np.array([1.0, -2.0]), np.array([0.4, 2.0])
MEAN, VARIANCE = np.array([3.0, -20.0]), np.array([0.04, 25.0])


def some_norm() -> MovingNorm:
    """Return a normalization with statistics, gain and bias of its own."""
    where = lambda n: (n.mean, n.variance, n.log_gain, n.bias)
    numbers = (jnp.asarray(MEAN), jnp.asarray(VARIANCE), jnp.array([0.3, -0.2]), jnp.array([0.5, 2.0]))
    return eqx.tree_at(where, MovingNorm((2,)), numbers)


def test_round_trip_and_log_det(x64):
    check_log_det(some_norm(), jnp.asarray(np.random.default_rng(0).normal(size=(5, 2))), atol=1e-12)


def test_it_standardizes():
    rows = LOC + SCALE * np.random.default_rng(0).normal(size=(4000, 2))
    where = lambda n: (n.mean, n.variance)
    norm = eqx.tree_at(where, MovingNorm((2,)), (jnp.asarray(rows.mean(0)), jnp.asarray(rows.var(0))))
    z = jax.vmap(norm.inverse)(jnp.asarray(rows, jnp.float32))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-4)


@pytest.fixture(scope="module")
def trained() -> tuple[Transformed, np.ndarray]:
    """Return a flow with a normalization at either side of a block, trained on rows far from standard."""
    rows = LOC + SCALE * np.random.default_rng(0).normal(size=(4000, 2))

    def build(key) -> Transformed:
        block = random_cnf(2, integrator=Integrator.constant(4))
        return Transformed(Normal.standard((2,)), Chain([MovingNorm((2,)), block, MovingNorm((2,))]))

    trainer = Trainer(
        build,
        MovingAverages(MaximumLikelihood()),
        TrainingData.pad(rows, np.ones(len(rows))),
        validate=lambda flow: evaluation.score(flow, rows[:200])[0],
        options=Options(learning_rate=0.02, batch_size=256, clip_norm=1e3),
        budget=Budget(max_iter=300),
        seed=0,
    )
    return trainer.run(goals=(0.5, 1.0)).best_flow(), rows


@pytest.mark.slow
def test_statistics_follow_the_points_that_come_through(trained):
    flow, rows = trained
    links, points = flow.bijection.links, jnp.asarray(rows, jnp.float32)
    for link in links[::-1]:
        if isinstance(link, MovingNorm):
            np.testing.assert_allclose(link.mean, points.mean(0), atol=0.1 * points.std(0).max())
            np.testing.assert_allclose(link.variance, points.var(0), rtol=0.1)
        points = jax.vmap(link.inverse)(points)


@pytest.mark.slow
def test_a_flow_with_it_reaches_the_truth(trained):
    flow, rows = trained
    entropy = np.log(SCALE).sum() + 1 + np.log(2 * np.pi)
    assert -evaluation.score(flow, rows)[0].mean() == pytest.approx(entropy, abs=0.05)


@pytest.mark.slow
def test_sampling_undoes_it(trained):
    flow, rows = trained
    drawn, info = evaluation.sample(flow, 4000, seed=0)
    assert not info.status.any() and info.num_evaluations[0] == 16
    std_error = SCALE / np.sqrt(4000)
    np.testing.assert_array_less(np.abs(drawn.mean(0) - rows.mean(0)), 6 * std_error + 0.03 * SCALE)
    there = evaluation.to_base(flow, drawn[:50])
    np.testing.assert_allclose(evaluation.from_base(flow, there), drawn[:50], atol=0.05)


def test_weights_do_not_feel_the_statistics():
    """The loss has the gradient of the likelihood, which does not reach mean and scale: these move after the step."""
    chain = Chain([random_cnf(2, integrator=Integrator.constant(4)), some_norm()])
    flow, batch = (
        Transformed(Normal.standard((2,)), chain),
        Batch(jnp.asarray(np.random.default_rng(0).normal(size=(32, 2)))),
    )

    def gradient(loss):
        params, static = partition(flow)
        return jax.jit(jax.grad(lambda p: loss(eqx.combine(p, static))))(params).bijection.links

    objective = MovingAverages(MaximumLikelihood(), pace=0.5)
    found = gradient(lambda f: objective(f, batch, key=jax.random.key(0))[0])
    plain = gradient(lambda f: -jnp.mean(f.log_prob(batch.x)))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not found[1].mean.any() and not found[1].variance.any()
    norm, x = objective.after_step(flow, flow, batch, key=jax.random.key(0)).bijection.links[1], np.asarray(batch.x)
    np.testing.assert_allclose(norm.mean, (MEAN + x.mean(0)) / 2, rtol=1e-5)
    np.testing.assert_allclose(norm.variance, (VARIANCE + np.mean((x - MEAN) ** 2, axis=0)) / 2, rtol=1e-4)


def test_what_was_not_solved_leaves_statistics_as_they_are_and_others_are_refused():
    flow, key = Transformed(Normal.standard((2,)), Chain([some_norm()])), jax.random.key(0)
    objective, batch = MovingAverages(MaximumLikelihood()), Batch(jnp.full((4, 2), jnp.nan))
    assert eqx.tree_equal(objective.after_step(flow, flow, batch, key=key), flow)
    inside = Transformed(Normal.standard((2,)), Chain([Chain([some_norm()])]))
    with pytest.raises(TypeError, match=r"got 1 of them and links \['Chain'\]; try"):
        objective.after_step(inside, inside, batch, key=key)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda inner: WeightedSum([(1.0, MaximumLikelihood()), (0.5, inner)]),
        lambda inner: TrainedWith(inner, integrator=Integrator.constant(2)),
        lambda inner: RandomEndTime(MixedPrecision(inner)),
        Encoded,
    ],
)
def test_statistics_move_inside_other_objectives_and_know_no_weight_decay(wrapped):
    flow, rows = Transformed(Normal.standard((2,)), Chain([some_norm()])), jnp.ones((8, 2))
    decayed = eqx.tree_at(lambda f: f.bijection.links[0].mean, flow, jnp.zeros(2))
    objective = wrapped(MovingAverages(MaximumLikelihood()))
    before, after = (Density.of(f) if wrapped is Encoded else f for f in (flow, decayed))
    moved = objective.after_step(before, after, Batch(rows), key=jax.random.key(0))
    norm = (moved.core if wrapped is Encoded else moved).bijection.links[0]
    np.testing.assert_allclose(norm.mean, 0.9 * MEAN + 0.1, rtol=1e-5)

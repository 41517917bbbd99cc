"""Training: the same seed gives the same weights, steps that fail are skipped, budgets are kept."""

import subprocess
import sys
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring
from scipy import stats

from checks import LinearField
from liouville import SolveError, checkpoint, evaluation
from liouville._training_data import padded_size
from liouville.bijections import CNF
from liouville.couplings import ExactOT
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.objectives import AbstractObjective, CheckedSteps, FlowMatching, MaximumLikelihood
from liouville.training import Budget, Options, Trainer, TrainingData, learning_rate_factor
from liouville.vector_fields import MLP, Preconditioned

OPTIONS = Options(batch_size=64, learning_rate=1e-2)
MATCHING = FlowMatching()


def build(key) -> Transformed:
    """Build a small flow on the line."""
    field = Preconditioned(MLP((1,), width=16, depth=1, key=key))
    return Transformed(Normal.standard((1,)), CNF(field, integrator=Integrator.constant(10)))


def two_bumps(rows: int, seed: int = 0) -> np.ndarray:
    """Draw from two narrow bumps: standardized, and far from normal."""
    rng = np.random.default_rng(seed)
    return (rng.choice([-1.0, 1.0], size=rows) * 0.97 + 0.24 * rng.normal(size=rows))[:, None]


def constant_score(flow) -> np.ndarray:
    """Stand in for a validation where its value does not matter."""
    return -np.ones(4)


def make_trainer(
    rows=None, weight=None, *, budget=None, validate=constant_score, seed=0, objective=MATCHING, build=build
):
    rows = two_bumps(300) if rows is None else rows
    weight = np.ones(len(rows)) if weight is None else weight
    data, budget = TrainingData.pad(rows, weight), budget or Budget(max_iter=60)
    return Trainer(build, objective, data, validate, options=OPTIONS, budget=budget, seed=seed)


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_the_same_seed_trains_the_same_flow_bit_for_bit():
    first, again, other = (make_trainer(seed=seed).run([0.5, 1.0]) for seed in (3, 3, 4))
    assert all(map(np.array_equal, leaves(first.state), leaves(again.state)))
    assert first.history["nll"][-1] == again.history["nll"][-1]
    assert not all(map(np.array_equal, leaves(first.state.params), leaves(other.state.params)))


def test_a_table_of_another_size_compiles_nothing():
    """Tables are padded to sizes that they share: 300 and 700 rows are one shape."""
    make_trainer(two_bumps(300)).run([1.0])
    compiled = []

    def listen(event, seconds, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(facts)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        make_trainer(two_bumps(700), budget=Budget(max_iter=47), seed=5).run([0.3, 1.0])
        during_training = list(compiled)
        # The listener does hear what is compiled.
        jax.jit(lambda x: x * 3 + 41)(np.ones(7)).block_until_ready()
    finally:
        monitoring.unregister_event_duration_listener(listen)
    assert not during_training and len(compiled) > 0


@pytest.mark.parametrize("max_iter", [1, 73])
def test_max_iter_is_kept_exactly(max_iter):
    trainer = make_trainer(budget=Budget(max_iter=max_iter)).run([0.33, 1.0])
    assert int(trainer.state.step) == max_iter
    assert trainer.history["step"][-1] == max_iter


class Rising:
    """A validation whose log-density is higher by `gain` each time."""

    def __init__(self, gain):
        self.gain, self.value = gain, 0.0

    def __call__(self, flow):
        self.value += self.gain
        return np.full(4, self.value)


@pytest.mark.parametrize(("gain", "steps"), [(0.1, 200), (1e-3, 60)])
def test_training_goes_on_longer_where_it_still_gains(gain, steps):
    trainer = make_trainer(validate=Rising(gain)).run([0.3, 0.5, 0.8, 1.0], longest=200)
    assert int(trainer.state.step) == steps
    if steps == 200:
        # Half of the first schedule is 0.15 of the longer one, which then keeps its own goals.
        at = [step for step, nll in zip(trainer.history["step"], trainer.history["nll"], strict=True) if nll == nll]
        assert at == [18, 30, 60, 100, 160, 200]


def test_a_stretched_training_resumes(tmp_path):
    goals = [0.3, 0.5, 0.8, 1.0]
    whole = make_trainer(validate=Rising(0.1)).run(goals, longest=200)
    path = tmp_path / "half.safetensors"
    half = make_trainer(validate=Rising(0.1)).run([0.3, 0.5], longest=200)
    half.run([0.4])
    checkpoint.write(path, "training", half.arrays(), {"trainer": half.facts()})
    resumed = make_trainer(validate=Rising(0.1))
    arrays, facts = checkpoint.read(path, "training")
    resumed.restore(arrays, facts["trainer"])
    assert resumed.budget.max_iter == 200
    resumed.run(goals, longest=200)
    assert int(resumed.state.step) == 200
    assert all(map(np.array_equal, leaves(whole.state), leaves(resumed.state)))


def test_a_deadline_is_kept():
    make_trainer().run([1.0])  # compiles
    start = time.perf_counter()
    trainer = make_trainer(budget=Budget(deadline=start + 2.0)).run([0.5, 1.0])
    seconds = time.perf_counter() - start
    assert 1.0 < seconds < 3.0
    # All of the schedule is done when time is up.
    assert trainer.progress >= 1.0 and int(trainer.state.step) > 20


def test_steps_that_are_not_finite_are_skipped_and_counted():
    """One row in 200 is poisoned, so that a batch of 64 misses it with probability 0.995^64 = 0.73."""
    rows = two_bumps(200)
    rows[17] = np.nan
    trainer = make_trainer(rows, budget=Budget(max_iter=200)).run([1.0])
    share, expected = int(trainer.state.skipped) / 200, 1 - 0.995**64
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 200)
    assert int(trainer.state.step) == 200 and trainer.history["skipped"][-1] == int(trainer.state.skipped)
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves((trainer.state.params, trainer.state.average)))
    assert np.all(np.isfinite(trainer.history["loss"]))


def test_hopeless_data_raise_and_name_the_cause():
    with pytest.raises(
        SolveError, match="cannot recover: .* steps in a row .* the loss or its gradient is not finite; try"
    ):
        make_trainer(np.full((200, 1), np.nan), budget=Budget(max_iter=300)).run([1.0])


def stuck(key) -> Transformed:
    """Build a flow whose solves never arrive."""
    integrator = Integrator.constant(10, diffrax.Euler(), max_steps=2)
    return Transformed(
        Normal.standard((1,)), CNF(LinearField(5 * jax.random.normal(key, (1, 1))), integrator=integrator)
    )


def test_failing_solves_raise_and_name_the_cause():
    with pytest.raises(SolveError, match="100% of the solves did not arrive; try a looser tolerance"):
        make_trainer(objective=MaximumLikelihood(), build=stuck, budget=Budget(max_iter=300)).run([1.0])


def test_rows_are_drawn_by_weight():
    weight = np.array([0.0, 1.0, 2.0, 0.0, 5.0, 0.0])
    data = TrainingData.pad(np.arange(6.0)[:, None], weight)
    draws = np.asarray(data.draw(jax.random.key(0), 40_000)[0])[:, 0].astype(int)
    share, expected = np.bincount(draws, minlength=6) / 40_000, weight / weight.sum()
    assert np.all(share[weight == 0] == 0)
    assert np.all(np.abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / 40_000))


@pytest.mark.parametrize("bits", [0, 2**32 - 1])
def test_no_draw_falls_on_a_row_of_weight_zero(monkeypatch, bits):
    """The ends of the 32 bits come once in billions of draws: large trainings do draw them."""
    data = TrainingData.pad(np.arange(4.0)[:, None], np.array([0.0, 1.0, 1.0, 0.0]))
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.full(shape, bits, dtype))
    assert set(np.asarray(data.draw(jax.random.key(0), 3)[0]).ravel()) <= {1.0, 2.0}


def test_training_on_weights_is_training_on_repeated_rows():
    """Only the draws see weights: rows of weight zero may hold anything."""
    rows = np.concatenate([two_bumps(100), np.full((100, 1), np.nan)])
    trainer = make_trainer(rows, np.repeat([1.0, 0.0], 100), budget=Budget(max_iter=50)).run([1.0])
    assert int(trainer.state.skipped) == 0


def test_padded_sizes():
    sizes = [padded_size(n) for n in (1, 1024, 1025, 10_000, 123_456)]
    assert sizes[:3] == [1024, 1024, 1280]
    assert all(n <= size <= 1.25 * n + 1 for n, size in zip((10_000, 123_456), sizes[3:], strict=True))


def test_the_flow_learns():
    """Two bumps of width 0.24 hold 0.6 nats less than the normal distribution of their variance."""
    validation = two_bumps(1000, seed=1)
    score = lambda flow: evaluation.score(flow, validation)[0]
    trainer = make_trainer(two_bumps(1000), budget=Budget(max_iter=1000), validate=score)
    start = trainer.validate()
    trainer.run([0.5, 1.0])
    density = 0.5 * (stats.norm.pdf(validation, -0.97, 0.24) + stats.norm.pdf(validation, 0.97, 0.24))
    best_possible = -np.mean(np.log(density))
    np.testing.assert_allclose(start, -np.mean(stats.norm.logpdf(validation)), atol=1e-2)
    assert best_possible - 0.1 < trainer.best_nll < best_possible + 0.5 * (start - best_possible)
    np.testing.assert_allclose(-np.mean(score(trainer.best_flow())), trainer.best_nll, rtol=1e-6)


def conditional(key) -> Transformed:
    field = Preconditioned(MLP((1,), width=16, depth=1, cond_shape=(1,), key=key))
    return Transformed(Normal.standard((1,)), CNF(field, integrator=Integrator.constant(10)))


def test_the_flow_learns_what_its_rows_are_conditioned_on():
    """Rows around 0.8 c, whose density given c is known: drawn with their conditions, scored and sampled with them."""
    rng = np.random.default_rng(0)
    draw_conditions = lambda num: rng.choice([-1.0, 0.0, 1.0], size=(num, 1))
    draw_rows = lambda c: 0.8 * c + 0.5 * rng.normal(size=c.shape)
    c, test_c = draw_conditions(1000), draw_conditions(500)
    rows, test = draw_rows(c), draw_rows(test_c)
    score = lambda flow: evaluation.score(flow, rows[:200], c[:200])[0]
    data, budget = TrainingData.pad(rows, np.ones(1000), c), Budget(max_iter=600)
    trainer = Trainer(conditional, MATCHING, data, score, options=OPTIONS, budget=budget, seed=0)
    flow = trainer.run([0.7, 1.0]).best_flow()
    truth = stats.norm.logpdf(test, 0.8 * test_c, 0.5)[:, 0]
    found = evaluation.score(flow, test, test_c)[0]
    assert abs(np.mean(truth - found)) < 0.05
    # Nothing but the condition tells the three apart: without it a row costs this much more.
    marginal = np.log(np.mean([stats.norm.pdf(test[:, 0], m, 0.5) for m in (-0.8, 0.0, 0.8)], axis=0))
    assert np.mean(truth - marginal) > 0.2
    for value in (-1.0, 1.0):
        drawn, _ = evaluation.sample(flow, 400, [value], seed=1)
        assert abs(np.mean(drawn) - 0.8 * value) < 0.1
    np.testing.assert_allclose(eqx.filter_jit(flow.log_prob)(test[:9], test_c[:9]), found[:9], atol=1e-4)


def test_conditions_that_do_not_fit_are_refused_in_training():
    rows, c = two_bumps(300), np.zeros((300, 1))
    run = lambda build, objective, conditions: Trainer(
        build, objective, TrainingData.pad(rows, np.ones(300), conditions), constant_score, options=OPTIONS,
        budget=Budget(max_iter=2), seed=0,
    ).run([1.0])  # fmt: skip
    with pytest.raises(ValueError, match=r"Expected conditions of shape \(\.\.\., 1,\), got None; try"):
        run(conditional, MATCHING, None)
    with pytest.raises(ValueError, match="Expected no condition, got one"):
        run(build, MATCHING, c)
    with pytest.raises(ValueError, match="Expected an Independent coupling with conditions, got ExactOT"):
        run(conditional, FlowMatching(coupling=ExactOT()), c)


def test_a_training_resumes_with_the_steps_that_it_had(tmp_path):
    one = make_trainer(objective=CheckedSteps(MaximumLikelihood(), num_steps=12))
    other = make_trainer(objective=CheckedSteps(MaximumLikelihood()))
    one.validate()
    checkpoint.write(tmp_path / "file.safetensors", "training", one.arrays(), {"trainer": one.facts()})
    arrays, facts = checkpoint.read(tmp_path / "file.safetensors", "training")
    other.restore(arrays, facts["trainer"])
    assert (one.objective.num_steps, other.objective.num_steps) == (12, 12)


def test_the_best_weights_are_kept():
    """Validations that say 3, 1, 2: the weights of the second are the ones to keep."""
    said, seen = iter([3.0, 1.0, 2.0]), []

    def validate(flow):
        seen.append(leaves(flow.bijection.vector_field))
        return -np.full(10, next(said))

    trainer = make_trainer(validate=validate).run([0.3, 0.6, 1.0])
    assert trainer.best_nll == 1.0 and trainer.best_step == 36
    assert all(map(np.array_equal, leaves(trainer.best_flow().bijection.vector_field), seen[1]))
    assert not all(map(np.array_equal, seen[1], seen[2]))


@pytest.mark.parametrize(("std_errors", "is_taken"), [(1.1, True), (0.9, False)])
def test_the_start_is_left_for_what_is_better_by_a_standard_error(std_errors, is_taken):
    gain = np.random.default_rng(0).normal(size=10)
    gain += std_errors * np.std(gain, ddof=1) / np.sqrt(10) - gain.mean()
    said = iter([np.zeros(10), gain, gain])
    trainer = make_trainer(validate=lambda flow: next(said))
    trainer.validate()
    assert trainer.run([0.3, 1.0]).best_step == (18 if is_taken else 0)


def test_training_stops_when_it_gets_worse():
    said = iter(np.arange(1.0, 50.0))
    trainer = make_trainer(validate=lambda flow: -np.full(10, next(said))).run(np.linspace(0.1, 1, 10), patience=3)
    assert trainer.progress < 0.6 and trainer.best_nll == 1.0


class Pull(AbstractObjective):
    """Pulls all weights towards 5 with a slope of constant size: the weights' way is known."""

    def __call__(self, flow, batch, *, key):
        total = sum(
            jnp.sum(jnp.abs(leaf - 5.0)) for leaf in jax.tree.leaves(eqx.filter(flow.bijection, eqx.is_inexact_array))
        )
        return total, {"evaluations": jnp.ones(())}


def pulled(key) -> Transformed:
    """Build a flow of one weight, at zero."""
    return Transformed(Normal.standard((1,)), CNF(LinearField(jnp.zeros((1, 1)))))


def test_the_average_forgets_the_start_and_trails_the_weights():
    """A weight that rises ever further: the average lies between, nearer to where the weight is than was."""
    trainer = make_trainer(objective=Pull(), build=pulled, budget=Budget(max_iter=400)).run([1.0])
    weight, average = (
        float(tree.bijection.vector_field.matrix[0, 0]) for tree in (trainer.state.params, trainer.state.average)
    )
    assert weight > 0.5
    # An average from zero without correction, at the horizon of 40 steps, would still forget; one over all steps not.
    assert 0.8 * weight < average < weight


def test_constants_are_not_trained():
    """The base, the tolerances and the fitted links are NumPy's: training leaves them alone, digits and all."""
    trainer = make_trainer().run([1.0])
    before, after = build(jax.random.key(0)).base, trainer.best_flow().base
    assert isinstance(after.loc, np.ndarray) and after.loc.dtype == np.float64
    np.testing.assert_array_equal(after.loc, before.loc)
    np.testing.assert_array_equal(after.log_scale, before.log_scale)


def test_schedule_warms_up_and_falls_to_zero():
    factor = jax.jit(jax.vmap(learning_rate_factor))
    warm = np.asarray(factor(np.array([0, 49, 99, 500]), np.zeros(4, np.float32)))
    np.testing.assert_allclose(warm, [0.01, 0.5, 1.0, 1.0], rtol=1e-5)
    late = np.asarray(factor(np.full(5, 1000), np.array([0.0, 1 / 3, 0.5, 1.0, 1.2], np.float32)))
    np.testing.assert_allclose(late, [1.0, 0.75, 0.5, 0.0, 0.0], atol=1e-6)


def test_a_fit_and_a_score_compile_eight_programs_at_most():
    """In a process of its own: what other tests have compiled would not be counted."""
    code = (
        "import jax, numpy as np; from liouville import FlowDensity; found = []; "
        "event = '/jax/core/compile/backend_compile_duration'; "
        "listen = lambda name, seconds, **kwargs: found.append(name) if name == event else None; "
        "jax.monitoring.register_event_duration_secs_listener(listen); "
        "X = np.random.default_rng(0).normal(size=(200, 2)); "
        "FlowDensity(max_iter=10, width=8, depth=1, random_state=0).fit(X).score_samples(X); print(len(found))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert 3 <= int(told) <= 8

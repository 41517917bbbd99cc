"""Steps that are fitted to a flow: right where they are trusted, and left alone where they are not."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from checks import MATRIX, LinearField, random_cnf
from liouville import SolveError, evaluation
from liouville.bespoke import _NODES, Bespoke, fit_steps
from liouville.bijections import CNF, Whiten
from liouville.density import Density, FittedSteps
from liouville.distributions import Normal, Transformed
from liouville.divergences import Exact
from liouville.frames import Frame
from liouville.integrate import Integrator, integrate_flow
from liouville.vector_fields import MLP, AbstractVectorField

ERROR = 1e-3


@functools.cache
def fitted():
    """Return a random flow, and steps that are fitted to it."""
    with jax.enable_x64(False):
        flow = Transformed(Normal.standard((3,)), random_cnf(3, integrator=Integrator.adaptive(1e-6, 1e-6)))
        return flow, fit_steps(flow, ERROR)


def by_steps(flow: Transformed, steps: FittedSteps) -> Density:
    return Density(flow, Frame(flow.shape), steps)


def tight_scores(flow: Transformed, rows: np.ndarray) -> np.ndarray:
    """Return log-densities by another solver at a tolerance far below the errors in question, in float64."""
    tight = Integrator.adaptive(1e-10, 1e-10, diffrax.Dopri8())
    with jax.enable_x64(True):
        return evaluation.score(eqx.tree_at(lambda f: f.bijection.integrator, flow, tight), rows)[0]


def own_rows(flow: Transformed, num: int, seed: int = 7) -> np.ndarray:
    return evaluation.sample(flow, num, seed=seed)[0]


def test_the_weights_of_euler_are_eulers_method():
    field, times = LinearField(jnp.asarray(MATRIX, jnp.float32)), np.linspace(0.0, 1.0, 6)
    euler = Integrator(Bespoke(np.eye(5) / 5, np.ones(5) / 5), diffrax.StepTo(jnp.asarray(times)))
    ends = [
        integrate_flow(
            field, jnp.ones(3), t0=0.0, t1=1.0, integrator=integrator, divergence=Exact(), noise=jnp.zeros(()),
        )
        for integrator in (euler, Integrator.constant(5, diffrax.Euler()))
    ]  # fmt: skip
    np.testing.assert_allclose(ends[0].x, ends[1].x, rtol=1e-6)
    np.testing.assert_allclose(ends[0].log_det, ends[1].log_det, rtol=1e-6)
    assert int(ends[0].info.num_evaluations) == 5


class Scaled(AbstractVectorField):
    """The condition times the point: over unit time it is scaled by ``exp(condition)``."""

    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(default=(1,), static=True)

    def __call__(self, t, x, condition=None):
        return condition * x


def test_steps_are_fitted_under_the_conditions_that_occur():
    """One set of steps for Gaussians of many widths; a condition of another shape, or none, is refused."""
    flow = Transformed(Normal.standard((2,)), CNF(Scaled((2,)), integrator=Integrator.adaptive(1e-6, 1e-6)))
    rng = np.random.default_rng(0)
    condition, given = rng.uniform(-1, 1, size=(300, 1)), rng.uniform(-1, 1, size=(400, 1))
    density = by_steps(flow, fit_steps(flow, ERROR, condition=condition))
    rows = rng.normal(size=(400, 2)) * np.exp(given)
    expected = stats.norm.logpdf(rows, 0, np.exp(given)).sum(1)
    got, info = evaluation.score(density, rows, given)
    assert np.mean(np.abs(got - expected)) < 1.5 * ERROR
    assert np.median(info.num_evaluations) == len(density.steps.score.solver.log_det_weights)
    drawn, _ = evaluation.sample(density, 400, given, seed=0)
    base, _ = evaluation.sample(density, 400, [0.0], seed=0)
    assert np.mean(np.abs(drawn - base * np.exp(given))) < 1.5 * ERROR
    found = evaluation.certify(density, flow, rows, given)
    assert found.num_failed == 0 and found.mean_shift < 1.5 * ERROR
    with pytest.raises(ValueError, match="Expected conditions of shape .* got None; try"):
        fit_steps(flow, ERROR)
    with pytest.raises(ValueError, match="Expected a condition or more, got none"):
        fit_steps(flow, ERROR, condition=condition[:0])


def test_what_is_unlikely_under_its_condition_is_solved_as_the_flow_says():
    """Under narrow conditions all log-densities are high: the rows far out there are doubtful all the same."""
    flow = Transformed(Normal.standard((2,)), CNF(Scaled((2,)), integrator=Integrator.adaptive(1e-6, 1e-6)))
    steps = fit_steps(flow, ERROR, condition=np.repeat([[-3.0], [1.0]], 200, axis=0))
    far = np.array([[6.0, 0.0], [0.0, 6.0]]) * np.exp(-3.0)
    _, info = evaluation.score(by_steps(flow, steps), far, [-3.0])
    assert info.num_evaluations.min() > len(steps.score.solver.log_det_weights)


def test_a_linear_flow_has_the_density_of_its_gaussian():
    flow = Transformed(
        Normal.standard((3,)),
        CNF(LinearField(jnp.asarray(MATRIX, jnp.float32)), integrator=Integrator.adaptive(1e-6, 1e-6)),
    )
    steps = fit_steps(flow, ERROR)
    end = linalg.expm(MATRIX)
    rows = np.random.default_rng(0).normal(size=(500, 3)) @ end.T
    expected = stats.multivariate_normal(np.zeros(3), end @ end.T).logpdf(rows)
    got, info = evaluation.score(by_steps(flow, steps), rows)
    assert np.mean(np.abs(got - expected)) < ERROR
    assert np.median(info.num_evaluations) == len(steps.score.solver.log_det_weights) in _NODES


@pytest.mark.slow
def test_the_error_that_is_promised_is_kept_on_other_rows():
    flow, steps = fitted()
    rows = own_rows(flow, 1000)
    error = np.abs(evaluation.score(by_steps(flow, steps), rows)[0] - tight_scores(flow, rows))
    assert 0 < steps.score_error <= ERROR
    # Means of 256 and of 1,000 rows: apart by chance, and by what the steps were chosen by.
    assert error.mean() < steps.score_error + 4 * error.std() * np.sqrt(1 / 256 + 1 / 1000)


@pytest.mark.slow
def test_fewer_steps_would_not_do():
    flow, steps = fitted()
    coarse = fit_steps(flow, 30 * ERROR)
    rows = own_rows(flow, 500)
    truth = tight_scores(flow, rows)
    errors = [np.abs(evaluation.score(by_steps(flow, s), rows)[0] - truth).mean() for s in (steps, coarse)]
    counts = [len(s.score.solver.log_det_weights) for s in (steps, coarse)]
    assert counts[1] < counts[0] and errors[1] > errors[0]


def test_rows_that_are_unlikely_are_solved_as_the_flow_says():
    flow, steps = fitted()
    rows = own_rows(flow, 300)
    rows[::3] *= 6
    got, info = evaluation.score(by_steps(flow, steps), rows)
    plain, plain_info = evaluation.score(flow, rows)
    unlikely = plain < steps.least_score - 0.1
    assert 90 < unlikely.sum() < 110
    np.testing.assert_array_equal(got[unlikely], plain[unlikely])
    num_steps = len(steps.score.solver.log_det_weights)
    np.testing.assert_array_equal(
        info.num_evaluations[unlikely], plain_info.num_evaluations[unlikely] + num_steps
    )  # fmt: skip
    assert not np.array_equal(got[~unlikely], plain[~unlikely])


def test_a_rows_company_does_not_matter():
    flow, steps = fitted()
    rows = own_rows(flow, 400)
    alone = evaluation.score(by_steps(flow, steps), rows[100:101])[0]
    together = evaluation.score(by_steps(flow, steps), rows)[0]
    np.testing.assert_array_equal(alone, together[100:101])
    np.testing.assert_array_equal(evaluation.score(by_steps(flow, steps), rows[::-1])[0][::-1], together)


def test_samples_keep_their_error_and_their_order():
    flow, steps = fitted()
    got, info = evaluation.sample(by_steps(flow, steps), 1000, seed=3)
    expected, _ = evaluation.sample(flow, 1000, seed=3)
    error = np.abs(got - expected).mean(1)
    assert 0 < steps.sample_error <= ERROR
    assert error.mean() < steps.sample_error + 4 * error.std() * np.sqrt(1 / 256 + 1 / 1000)
    np.testing.assert_array_equal(evaluation.sample(by_steps(flow, steps), 10, seed=3)[0], got[:10])
    # Far draws of the base are solved by adaptive steps.
    again = info.num_evaluations > len(steps.sample.solver.log_det_weights)
    assert 0 < again.sum() < 30
    np.testing.assert_array_equal(got[again], expected[again])


def test_closed_forms_behind_the_flow_change_nothing():
    flow, steps = fitted()
    rows = own_rows(flow, 200)
    whiten = Whiten.fit(np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 5.0, 0.1], np.ones(500))
    wide = Density(flow, Frame((3,), (whiten,)), steps)
    data, log_det = whiten.transform_and_log_det(rows)
    got = evaluation.score(wide, data)[0]
    np.testing.assert_allclose(got, evaluation.score(by_steps(flow, steps), rows)[0] - log_det, atol=1e-4)


def test_an_error_out_of_reach_is_said():
    flow, _ = fitted()
    with pytest.raises(ValueError, match=r"Expected an error that 64 steps can keep, got 1e-12; try error="):
        fit_steps(flow, 1e-12)


def test_a_field_at_rest_needs_no_weights():
    flow = Transformed(Normal.standard((2,)), CNF(MLP((2,), width=8, depth=1, key=jax.random.key(0))))
    rows = np.random.default_rng(0).normal(size=(50, 2))
    got, _ = evaluation.score(by_steps(flow, fit_steps(flow, ERROR)), rows)
    np.testing.assert_allclose(got, stats.norm.logpdf(rows).sum(1), atol=1e-5)


def test_paths_that_do_not_arrive_are_said():
    few = Integrator(max_steps=3)
    flow = Transformed(Normal.standard((3,)), eqx.tree_at(lambda c: c.integrator, fitted()[0].bijection, few))
    with pytest.raises(SolveError, match="Expected all 640 paths .* but 6"):
        fit_steps(flow, ERROR)


def test_steps_are_a_function_of_the_flow():
    flow, steps = fitted()
    again = fit_steps(flow, ERROR)
    assert eqx.tree_equal(steps, again)

"""Evaluation: chunks that nobody notices, failures that everybody does."""

import functools
import subprocess
import sys

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from checks import MATRIX, LinearField, ShiftField, random_cnf
from liouville import evaluation
from liouville._types import in_default_precision
from liouville.bijections import CNF, Chain, Standardize, Whiten
from liouville.density import Density
from liouville.distributions import Normal, Transformed
from liouville.divergences import Hutchinson
from liouville.flows import until, with_divergence
from liouville.frames import Frame
from liouville.integrate import STATUS, Integrator
from liouville.regularizers import KineticEnergy
from test_integrate import Blowup

MIXING = np.array([[100.0, 20.0], [0.0, 0.01]])
CHUNK = evaluation.chunk_rows((2,))


def rows_like_data(rows: int) -> np.ndarray:
    return 1e3 + np.random.default_rng(0).normal(size=(rows, 2)) @ MIXING


@functools.cache
def make_flow(num_probes: int = 0) -> Density:
    """Return a random flow behind a whitening; exact, or with a stochastic divergence."""
    fitted = rows_like_data(500)
    # Whichever test asks first, the weights are those of float32.
    with jax.enable_x64(False):
        cnf = random_cnf(2, integrator=Integrator.constant(10))
    if num_probes:
        cnf = eqx.tree_at(lambda c: c.divergence, cnf, Hutchinson(num_probes=num_probes))
    return Density(Transformed(Normal.standard((2,)), cnf), Frame((2,), (Whiten.fit(fitted, np.ones(500)),)))


@functools.cache
def scores() -> np.ndarray:
    with jax.enable_x64(False):
        return evaluation.score(make_flow(), rows_like_data(3 * CHUNK + 5))[0]


def test_score_is_the_log_density_of_the_flow(x64):
    rows = rows_like_data(CHUNK + 20)
    expected = eqx.filter_jit(lambda flow, x: flow.log_prob(x))(in_default_precision(make_flow()), rows)
    # Rows beyond the first chunk are scored in other threads: the precision asked for holds there, too.
    np.testing.assert_allclose(evaluation.score(make_flow(), rows)[0], expected, atol=1e-10)


def test_float32_keeps_the_digits_of_the_table(x64):
    """The flow alone runs in float32; whitening 1e3 +- 0.01 in float32 would lose everything."""
    exact = evaluation.score(make_flow(), rows_like_data(50))[0]
    with jax.enable_x64(False):
        np.testing.assert_allclose(evaluation.score(make_flow(), rows_like_data(50))[0], exact, atol=1e-4)


@pytest.mark.parametrize("num", [1, CHUNK, CHUNK + 1])
def test_a_row_does_not_mind_how_many_it_comes_with(num):
    log_prob, info = evaluation.score(make_flow(), rows_like_data(3 * CHUNK + 5)[:num])
    assert log_prob.dtype == np.float64
    np.testing.assert_array_equal(log_prob, scores()[:num])
    assert all(len(part) == num for part in info)
    assert np.all(info.status == 0) and np.all(info.num_accepted == 10) and np.all(info.num_evaluations == 40)
    assert set(info.messages) == {STATUS[0]} and np.all(info.std_error == 0)


def test_order_does_not_matter():
    rows = rows_like_data(3 * CHUNK + 5)
    order = np.random.default_rng(1).permutation(len(rows))
    np.testing.assert_array_equal(evaluation.score(make_flow(), rows[order])[0], scores()[order])


def test_failed_rows_are_flagged_and_leave_the_others_alone():
    """Backwards in time ``x^2`` leaves every bound from x = -2, and not from 0.5."""
    flow = Transformed(Normal.standard((1,)), CNF(Blowup(), integrator=Integrator.adaptive(1e-5, 1e-5, max_steps=200)))
    rows = np.array([[0.5], [-2.0], [0.5], [np.nan]])
    log_prob, info = evaluation.score(flow, rows)
    np.testing.assert_array_equal(np.isnan(log_prob), [False, True, False, True])
    np.testing.assert_array_equal(info.status != 0, [False, True, False, True])
    assert info.messages[0] == STATUS[0] and info.messages[1] in STATUS[1:]
    # x(1) = z / (1 - z): z = 1/3 goes to 0.5, and dz/dx = (1 - z)^2.
    np.testing.assert_allclose(log_prob[0], stats.norm.logpdf(1 / 3) + 2 * np.log(2 / 3), atol=1e-3)
    assert log_prob[0] == log_prob[2]


def test_samples_are_reproducible_and_the_first_stay_the_first():
    few, info = evaluation.sample(make_flow(), 7, seed=3)
    many, _ = evaluation.sample(make_flow(), CHUNK + 9, seed=3)
    assert few.shape == (7, 2) and few.dtype == np.float64
    np.testing.assert_array_equal(few, many[:7])
    np.testing.assert_array_equal(many, evaluation.sample(make_flow(), CHUNK + 9, seed=3)[0])
    assert not np.any(few == evaluation.sample(make_flow(), 7, seed=4)[0])
    assert len(np.unique(many, axis=0)) == len(many)
    assert np.all(info.status == 0)


def test_samples_follow_the_base_through_the_flow():
    points, _ = evaluation.sample(make_flow(), 1000, seed=0)
    back = evaluation.to_base(make_flow(), points)
    for column in back.T:
        assert stats.kstest(column, "norm").statistic < 1.95 / np.sqrt(1000)


def test_to_base_and_back():
    rows = rows_like_data(CHUNK + 3)
    base = evaluation.to_base(make_flow(), rows)
    assert base.shape == rows.shape and np.abs(base).max() < 30
    error = (evaluation.from_base(make_flow(), base) - rows) / rows.std(0)
    assert np.abs(error).max() < 1e-2


def test_paths_end_at_the_rows_and_start_in_the_base():
    rows = rows_like_data(20)
    paths = evaluation.paths(make_flow(), rows, 5)
    assert paths.shape == (5, 20, 2)
    np.testing.assert_allclose(paths[-1], rows, rtol=1e-4)
    whiten = make_flow().frame.links[0]
    np.testing.assert_allclose(whiten.inverse(paths[0]), evaluation.to_base(make_flow(), rows), atol=1e-2)


def test_a_stochastic_divergence_is_seeded_and_tells_its_error():
    rows = rows_like_data(200)
    (first, info), (again, _), (other, _) = (evaluation.score(make_flow(8), rows, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != other) > 0.5
    # Eight products of signs may happen to agree; seldom do.
    told = info.std_error > 1e-4
    assert np.mean(told) > 0.95
    # Errors in standard errors over eight probes follow Student's law with 7 degrees of freedom: variance 7 / 5.
    error = (first - scores()[:200])[told] / info.std_error[told]
    assert 0.8 < np.mean(error**2) < 2.4


def test_a_flow_without_cnf_has_no_paths_but_all_else():
    whiten = make_flow().frame.links[0]
    still = Transformed(Normal.standard((2,)), Standardize(np.zeros(2), np.ones(2)))
    flow, rows = Density(still, Frame((2,), (whiten,))), rows_like_data(3)
    with pytest.raises(TypeError, match=r"Expected a flow whose bijection is a CNF, got Standardize of .*; try"):
        evaluation.paths(flow, rows, 5)
    np.testing.assert_allclose(evaluation.to_base(flow, rows), whiten.inverse(rows), atol=0.02)
    drawn, info = evaluation.sample(flow, 4, seed=0)
    assert drawn.shape == (4, 2) and not info.num_evaluations.any() and not info.status.any()


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.slow
def test_memory_is_a_matter_of_the_results():
    """10^7 rows in 2 GB above the table are 200 bytes a row: for what is returned, not for copies of the table."""
    code = """
import re, numpy as np
from pathlib import Path
from liouville import FlowDensity
# Not getrusage: its peak begins with that of the process that started this one.
peak = lambda: 1024 * int(re.search("VmHWM: *([0-9]+)", Path("/proc/self/status").read_text().expandtabs())[1])
X = np.random.default_rng(0).normal(size=(250_000, 10))
density = FlowDensity(max_iter=2, width=4, depth=0, solver="euler", preprocess="gaussian_margins").fit(X[:2000])
density.score_samples(X[:20_000])
before = peak()
density.score_samples(X)
print((peak() - before) / len(X))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 0 < float(done.stdout) < 200, done.stdout


def test_chunks_have_room_for_wide_rows():
    assert evaluation.chunk_rows((64, 64, 1)) == 8
    assert 32 <= evaluation.chunk_rows((3000,)) <= evaluation.chunk_rows((63,)) <= evaluation.chunk_rows((1,)) == 128
    assert jnp.result_type(float) == jnp.float32 and jax.config.jax_enable_x64 is False


def test_chunks_fill_an_accelerator_as_far_as_memory_goes(monkeypatch):
    flow = Transformed(Normal.standard((784,)), CNF(LinearField(jnp.zeros((784, 784)))))
    assert evaluation.products_at_a_time(flow) == 128
    assert evaluation.products_at_a_time(with_divergence(flow, Hutchinson(num_probes=3))) == 3
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    sizes = [evaluation.chunk_rows((784,), products) for products in (1, 2, 128)]
    assert sizes == [512, 256, 32]
    assert evaluation.chunk_rows((5,)) == 8192


def test_stacked_flows_are_scored_too(x64):
    """Two flows of linear fields behind a change of units: a Gaussian whose covariance is known."""
    matrices = [MATRIX, 0.5 * MATRIX.T]
    cnfs = [CNF(LinearField(jnp.asarray(m)), integrator=Integrator.adaptive(1e-9, 1e-9)) for m in matrices]
    flow = Density(
        Transformed(Normal.standard((3,)), Chain(cnfs)), Frame((3,), (Standardize(np.full(3, 5.0), np.full(3, 2.0)),))
    )
    root = 2.0 * linalg.expm(matrices[1]) @ linalg.expm(matrices[0])
    rows = np.random.default_rng(0).normal(size=(5, 3))
    expected = stats.multivariate_normal(np.full(3, 5.0), root @ root.T).logpdf(rows)
    np.testing.assert_allclose(evaluation.score(flow, rows)[0], expected, atol=1e-6)


def test_a_density_on_the_way_is_that_of_its_time(x64):
    """Of a linear flow behind a change of units it is a Gaussian, at every time."""
    matrix, units = np.array([[0.5, -0.8], [0.3, 0.2]]), Standardize([5.0, -3.0], [2.0, 10.0])
    cnf = CNF(LinearField(jnp.asarray(matrix)), integrator=Integrator.adaptive(1e-8, 1e-8), t0=0.5, t1=1.5)
    flow = Density(Transformed(Normal.standard((2,)), cnf), Frame((2,), (units,)))
    rows = np.random.default_rng(0).normal(size=(5, 2)) * [2, 10] + [5, -3]
    for time in (0.0, 0.25, 1.0):
        root = np.diag([2.0, 10.0]) @ linalg.expm(time * matrix)
        expected = stats.multivariate_normal([5.0, -3.0], root @ root.T).logpdf(rows)
        np.testing.assert_allclose(evaluation.score(until(flow, time), rows)[0], expected, atol=1e-5)


def test_each_row_has_its_condition_whatever_the_chunks():
    """The normal density around the condition, in more than one chunk; each function is told the condition."""
    flow = Transformed(Normal.standard((1,)), CNF(ShiftField((1,)), integrator=Integrator.constant(1, diffrax.Euler())))
    rng, num = np.random.default_rng(0), evaluation.chunk_rows((1,)) + 20
    rows, condition = rng.normal(size=(num, 1)), rng.normal(size=(num, 1))
    z = rows - condition
    np.testing.assert_allclose(evaluation.score(flow, rows, condition)[0], stats.norm.logpdf(z)[:, 0], atol=1e-5)
    np.testing.assert_allclose(evaluation.score(flow, rows, [2.0])[0], stats.norm.logpdf(rows - 2)[:, 0], atol=1e-5)
    np.testing.assert_allclose(evaluation.to_base(flow, rows, condition), z, atol=1e-5)
    np.testing.assert_allclose(evaluation.from_base(flow, z, condition), rows, atol=1e-5)
    np.testing.assert_allclose(evaluation.velocity(flow, rows, 0.5, condition), condition, atol=1e-3)
    np.testing.assert_allclose(evaluation.gradient(flow, rows, condition), -z, atol=1e-4)
    np.testing.assert_allclose(evaluation.paths(flow, rows, 3, condition)[0], z, atol=1e-5)
    costs = evaluation.path_costs(flow, rows, (KineticEnergy(),), condition)["kinetic_energy"]
    np.testing.assert_allclose(costs, 0.5 * condition[:, 0] ** 2, atol=1e-5)
    assert evaluation.path_costs(flow, rows, (), condition) == {}
    drawn = evaluation.sample(flow, num, condition, seed=0)[0]
    np.testing.assert_allclose(drawn - condition, evaluation.sample(flow, num, [0.0], seed=0)[0], atol=1e-5)
    with pytest.raises(ValueError, match=rf"Expected conditions for {num} rows, got shape \(3, 1\); try"):
        evaluation.score(flow, rows, condition[:3])

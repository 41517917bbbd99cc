"""The estimator: scikit-learn's contract, and what its users would notice."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import integrate
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_estimator,
    check_methods_sample_order_invariance,
    check_methods_subset_invariance,
)

from liouville import CheckpointError, FlowDensity, SolveError
from liouville._defaults import resolve
from liouville._fitting import TrainingFile
from liouville._types import partition
from liouville.bijections import Chain
from liouville.distributions import Transformed
from liouville.recipes import RECIPES

# Width and depth are those of the other files that fit small tables: programs are compiled once for all.
FAST = {"max_iter": 40, "width": 8, "depth": 1, "preprocess": "whiten", "random_state": 0}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return rng.normal(size=(600, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.2], [0, 0, 100.0]]) + [5, -3, 1000]


@pytest.fixture(scope="module")
def fitted(table):
    return FlowDensity(**FAST).fit(table)


@pytest.fixture(scope="module")
def two_modes():
    """A fitted flow that is not its Gaussian start: two well separated modes, on a curved ridge."""
    rng = np.random.default_rng(1)
    x = np.where(rng.random(3000) < 0.5, -2.0, 2.0) + 0.5 * rng.normal(size=3000)
    X = np.stack([x, 0.3 * x**2 + 0.4 * rng.normal(size=3000)], axis=1)
    density = FlowDensity(max_iter=400, width=16, depth=2, preprocess="standardize", random_state=0).fit(X)
    assert density.facts_["best_step"] > 0
    return density, X


EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "batches are drawn at random: equal in distribution only",
}


def test_check_estimator():
    """With constant steps, which compile in a quarter of the time: for each number of columns that is done again."""
    fast = FlowDensity(max_iter=2, width=8, depth=0, solver="euler", preprocess="standardize", random_state=0)
    check_estimator(fast, expected_failed_checks=EXPECTED_FAILURES)


def test_adaptive_steps_leave_rows_to_themselves():
    """What of the contract depends on steps: a row's density has nothing to do with its mates nor its place."""
    density = FlowDensity(**{**FAST, "max_iter": 2})
    check_methods_subset_invariance("FlowDensity", density)
    check_methods_sample_order_invariance("FlowDensity", density)


def test_gaussian_log_density_in_own_units(fitted, table):
    covariance = np.cov(table.T)
    entropy = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * covariance))
    assert abs(fitted.score(table) + entropy) < 0.1


@pytest.mark.slow
def test_integrates_to_one_in_two_dimensions(two_modes):
    density, X = two_modes
    low, high = X.min(0) - 2.0, X.max(0) + 2.0
    axes = [np.linspace(a, b, 161) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    values = np.exp(density.score_samples(grid)).reshape(161, 161)
    mass = integrate.simpson(integrate.simpson(values, x=axes[1]), x=axes[0])
    assert abs(mass - 1) < 1e-3


@pytest.mark.parametrize("preprocess", ["standardize", "gaussian_margins"])
def test_integrates_to_one_in_one_dimension(preprocess):
    rng = np.random.default_rng(2)
    X = np.concatenate([rng.normal(-3, 0.4, 1500), rng.normal(1, 1.0, 1500)])[:, None]
    density = FlowDensity(**{**FAST, "max_iter": 200, "preprocess": preprocess}).fit(X)
    grid = np.linspace(-12, 12, 6001)
    assert abs(integrate.simpson(np.exp(density.score_samples(grid[:, None])), x=grid) - 1) < 1e-3


def test_learns_two_modes(two_modes):
    """Between the modes the truth is far below the modes: a Gaussian fit would be highest there."""
    density, _ = two_modes
    middle, mode = density.score_samples(np.array([[0.0, 0.6], [2.0, 1.2]]))
    assert mode - middle > 3


def test_samples_have_the_density(two_modes):
    """Mean log-density of samples equals minus the entropy that the data give, within standard errors."""
    density, X = two_modes
    rows, log_prob = density.sample_with_log_prob(4000, random_state=0)
    assert np.array_equal(rows, density.sample(4000, random_state=0))
    assert np.allclose(log_prob, density.score_samples(rows))
    ours, data = log_prob, density.score_samples(X)
    error = np.sqrt(ours.var() / len(ours) + data.var() / len(data))
    assert abs(ours.mean() - data.mean()) < 5 * error + 0.05


def test_score_gradient_equals_finite_differences(two_modes):
    density, X = two_modes
    rows, step = X[:20], 1e-2
    numeric = [
        (density.score_samples(rows + step * e) - density.score_samples(rows - step * e)) / (2 * step)
        for e in np.eye(2)
    ]
    assert np.allclose(density.score_gradient(rows), np.stack(numeric, 1), rtol=2e-2, atol=3e-2)


def test_log_prob_fn_is_pure_and_agrees(two_modes):
    density, X = two_modes
    log_prob = density.log_prob_fn()
    rows = X[:16].astype(np.float32)
    assert np.allclose(jax.jit(log_prob)(rows), density.score_samples(X[:16]), atol=2e-3)
    gradient = jax.jit(jax.vmap(jax.grad(log_prob)))(rows)
    assert np.allclose(gradient, density.score_gradient(X[:16]), atol=2e-2)


def test_trajectory_runs_from_base_to_rows(two_modes):
    density, X = two_modes
    path = density.trajectory(X[:5], num_times=7)
    assert path.shape == (7, 5, 2)
    assert np.allclose(path[-1], X[:5], atol=1e-4)
    assert np.allclose(path[0], density.inverse_transform(density.transform(X[:5])) * 0 + path[0])
    base = (path[0] - X.mean(0)) / X.std(0)
    assert np.allclose(base, density.transform(X[:5]), atol=0.1)


def test_certify_bounds_the_error_against_a_tight_solve(two_modes):
    density, X = two_modes
    certificate = density.certify(X, num_rows=100)
    assert certificate.num_rows == 100 and certificate.num_failed == 0
    assert 0 < certificate.max_shift < 1e-2
    loose = clone(density).set_params(rtol=1e-2, atol=1e-2).fit(X).certify(X, num_rows=100)
    assert loose.mean_shift > 3 * certificate.mean_shift


def test_a_stated_error_is_kept(two_modes):
    density, X = two_modes
    loose = density.score_samples(X, error=2e-3)
    certificate = density.certify(X, error=2e-3)
    assert 0 < certificate.mean_shift < 4e-3
    assert not np.array_equal(loose, density.score_samples(X))
    assert np.array_equal(loose, density.score_samples(X, error=2e-3))
    drawn, exact = density.sample(200, random_state=0, error=2e-3), density.sample(200, random_state=0)
    assert 0 < np.mean(np.abs(drawn - exact) / X.std(0)) < 4e-3
    # Steps belong to a flow: another fit has others.
    other = clone(density).set_params(max_iter=5).fit(X)
    other.score_samples(X[:5], error=2e-3)
    found = other.fit(X[:200]).score_samples(X, error=2e-3)
    assert np.mean(np.abs(found - other.score_samples(X))) < 4e-3


@pytest.mark.parametrize("error", [0, -1e-3, float("nan"), "small"])
def test_an_error_must_be_positive(two_modes, error):
    density, X = two_modes
    with pytest.raises(ValueError, match="Expected a positive error"):
        density.score_samples(X, error=error)


def test_evaluate_stands_beside_the_baselines(fitted, table):
    alone, (flow, *others) = fitted.evaluate(table[:100]), fitted.evaluate(table[:100], train=table[100:300])
    assert alone == [flow] and flow.nll == pytest.approx(-fitted.score(table[:100]))
    assert [one.name for one in others] == ["Gaussian", "Gaussian mixture (BIC)", "kernel density (CV)"]
    # The rows are those of a Gaussian, which knows it best.
    assert all(one.nll > others[0].nll - 4 * one.std_error for one in (flow, *others))


def test_a_model_from_a_file_keeps_the_digits_of_its_constants(tmp_path, fitted, table):
    """What is fixed is NumPy's, in float64, after loading as before: float64 arithmetic meets no float32."""
    fitted.save(tmp_path / "model")
    loaded = FlowDensity.load(tmp_path / "model")
    rest = jax.tree.leaves(partition(loaded.flow_)[1])
    assert rest and all(leaf.dtype == np.float64 for leaf in rest if isinstance(leaf, np.ndarray))
    assert not any(isinstance(leaf, jax.Array) for leaf in rest)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(loaded.score_samples(table[:9]), fitted.score_samples(table[:9]))


def test_steps_are_fitted_to_one_cnf(two_modes):
    density, X = two_modes
    twice = clone(density)
    vars(twice).update(vars(density))
    core = density.flow_.core
    stacked = Transformed(core.base, Chain([core.bijection, core.bijection]))
    twice.flow_ = dataclasses.replace(density.flow_, core=stacked)
    with pytest.raises(ValueError, match=r"Expected a flow of one CNF for error=0\.001, got Chain of several; try"):
        twice.score_samples(X, error=1e-3)


def test_probes_have_an_error_of_their_own(two_modes):
    density, X = two_modes
    with pytest.raises(ValueError, match="Expected no error with num_probes"):
        density.score_samples(X, error=1e-3, num_probes=2)


def test_hutchinson_scores_are_seeded_and_within_their_errors(two_modes):
    density, X = two_modes
    exact = density.score_samples(X[:300])
    estimate, info = density.score_samples(X[:300], return_info=True, num_probes=8, random_state=3)
    again = density.score_samples(X[:300], num_probes=8, random_state=3)
    assert np.array_equal(estimate, again)
    # In two dimensions a Rademacher estimate takes two values only: now and then all probes agree, and a row's
    # standard error is zero. Over many rows the squares of errors and of standard errors have one mean.
    error = estimate - exact
    gap = error**2 - info.std_error**2
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))


def test_info_counts_and_statuses(fitted, table):
    log_prob, info = fitted.score_samples(table, return_info=True)
    assert np.isfinite(log_prob).all() and (info.status == 0).all()
    assert (info.num_evaluations >= 6 * (info.num_accepted + info.num_rejected)).all()
    assert set(info.messages) == {"solved"}


def test_a_row_that_hits_the_cap_is_flagged(table, monkeypatch):
    # A chunk is padded, and all of it takes as many steps as there are.
    monkeypatch.setattr("liouville.evaluation.chunk_rows", lambda shape, products=1: 4)
    density = FlowDensity(**{**FAST, "rtol": 1e-12, "atol": 1e-12}).fit(table)
    with pytest.warns(RuntimeWarning, match="row 0"):
        log_prob, info = density.score_samples(table[:3], return_info=True)
    assert np.isnan(log_prob).all() and (info.status == 1).all() and "max_steps" in info.messages[0]


def test_same_seed_same_model_bit_for_bit(fitted, table):
    again = FlowDensity(**FAST).fit(table)
    assert np.array_equal(again.score_samples(table), fitted.score_samples(table))
    other = FlowDensity(**{**FAST, "random_state": 1}).fit(table)
    assert not np.array_equal(other.score_samples(table), fitted.score_samples(table))


def test_auto_is_repeatable_and_chooses_the_margins_where_they_help():
    rng = np.random.default_rng(3)
    X = np.exp(2 * rng.normal(size=(1500, 2)))
    one, two = (FlowDensity(max_iter=120, width=8, depth=1, random_state=0).fit(X) for _ in range(2))
    assert one.facts_["preprocess"] == "gaussian_margins"
    assert np.array_equal(one.score_samples(X), two.score_samples(X))


@pytest.mark.slow
def test_auto_chooses_the_radius_on_rows_of_changing_scale():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(2000, 6)) * np.exp(1.5 * rng.normal(size=(2000, 1)))
    assert FlowDensity(max_iter=120, width=8, depth=1, random_state=0).fit(X).facts_["preprocess"] == "gaussian_radius"


def test_few_compilations_whatever_the_number_of_rows():
    seen = []

    def listen(event, duration, **kwargs):
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    rng = np.random.default_rng(5)
    density = FlowDensity(max_iter=30, width=24, depth=1, random_state=0).fit(rng.normal(size=(1500, 2)))
    for n in (1, 7, 700, 3001):
        density.score_samples(rng.normal(size=(n, 2)))
        density.sample(n, random_state=0)
    assert 0 < len(seen) <= 6


def test_save_and_load(tmp_path, fitted, table):
    path = tmp_path / "m.safetensors"
    fitted.save(path)
    loaded = FlowDensity.load(path)
    assert np.array_equal(loaded.score_samples(table), fitted.score_samples(table))
    assert loaded.get_params() == fitted.get_params() and loaded.facts_ == fitted.facts_
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert json.loads(header["__metadata__"]["liouville"])["parameters"]["max_iter"] == 40


@pytest.mark.parametrize("kind", ["standardize", "gaussian_margins", "gaussian_radius"])
def test_every_kind_survives_a_file(tmp_path, kind):
    X = np.random.default_rng(6).standard_t(3, size=(400, 2))
    density = FlowDensity(**{**FAST, "preprocess": kind, "max_iter": 5}).fit(X)
    density.save(tmp_path / "m")
    assert np.array_equal(FlowDensity.load(tmp_path / "m").score_samples(X), density.score_samples(X))


def test_names_travel(tmp_path, table):
    names = ["a", "b", "c"]
    for frame in (
        pd.DataFrame(table, columns=names),
        pl.DataFrame(table, schema=names),
        pa.table(dict(zip(names, table.T, strict=True))),
    ):
        density = FlowDensity(**{**FAST, "max_iter": 2}).fit(frame)
        assert list(density.feature_names_in_) == names
        assert density.score_samples(frame).shape == (600,)
    density.save(tmp_path / "m")
    assert list(FlowDensity.load(tmp_path / "m").feature_names_in_) == names
    with pytest.raises(ValueError, match="feature names"):
        density.score_samples(pa.table(dict(zip(["b", "a", "c"], table.T, strict=True))))


class Killed(Exception):
    pass


def test_resume_equals_uninterrupted(tmp_path, table, monkeypatch):
    whole = FlowDensity(**FAST).fit(table)
    path = tmp_path / "c"
    write, calls = TrainingFile.write, []

    def write_then_die(self, *args):
        write(self, *args)
        calls.append(1)
        if len(calls) == 3:
            raise Killed

    monkeypatch.setattr(TrainingFile, "write", write_then_die)
    with pytest.raises(Killed):
        FlowDensity(**FAST, checkpoint=str(path)).fit(table)
    monkeypatch.setattr(TrainingFile, "write", write)
    with pytest.raises(CheckpointError, match="another"):
        FlowDensity(**{**FAST, "width": 4}, checkpoint=str(path)).fit(table)
    resumed = FlowDensity(**FAST, checkpoint=str(path)).fit(table)
    assert np.array_equal(resumed.score_samples(table), whole.score_samples(table))
    assert resumed.history_["step"][-1] == whole.history_["step"][-1]
    assert not path.exists()


def test_max_seconds_is_kept(table):
    density = FlowDensity(max_seconds=4, width=8, depth=1, random_state=0).fit(table)
    assert density.facts_["seconds"] < 6


def test_zero_weights_leave_rows_out(table):
    far = np.concatenate([table, table + 1e4])
    weight = np.repeat([1.0, 0.0], len(table))
    density = FlowDensity(**FAST).fit(far, sample_weight=weight)
    assert np.abs(density.sample(500, random_state=0).mean(0) - table.mean(0)).max() < 0.3 * table.std(0).max()


def test_weights_move_the_density():
    X = np.random.default_rng(7).normal(size=(4000, 1))
    density = FlowDensity(**FAST).fit(X, sample_weight=np.where(X[:, 0] > 0, 3.0, 1.0))
    rows = density.sample(4000, random_state=0)
    # The weighted mean is (3 - 1) / 4 times the mean of |x|.
    assert abs(rows.mean() - 0.5 * np.sqrt(2 / np.pi)) < 0.08


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_scales_and_offsets_shift_log_p_alone(fitted, table, scale, offset):
    moved = (table + offset) * scale
    density = FlowDensity(**FAST).fit(moved)
    shift = fitted.score_samples(table) - density.score_samples(moved)
    assert np.allclose(shift, 3 * np.log(scale), atol=2e-2)


def test_heavy_tails_are_fitted():
    X = np.random.default_rng(8).standard_cauchy(size=(2000, 2))
    density = FlowDensity(max_iter=100, width=8, depth=1, random_state=0).fit(X)
    log_prob = density.score_samples(X)
    # The entropy of a Cauchy variable is log(4 pi).
    assert np.isfinite(log_prob).all() and log_prob.mean() > -2 * np.log(4 * np.pi) - 0.5


def bad(change):
    X = np.random.default_rng(9).normal(size=(60, 3))
    return change(X)


def put(X, row, column, value):
    X[row, column] = value
    return X


BAD = {
    "nan": (lambda X: put(X, 17, 2, np.nan), "NaN in row 17, column 2"),
    "inf": (lambda X: put(X, 5, 1, np.inf), "infinity in row 5, column 1"),
    "empty": (lambda X: X[:0], "0 sample"),
    "one row": (lambda X: X[:1], "1 sample|n_samples=1|n_samples = 1|minimum of 2"),
    "few rows": (lambda X: X[:3], "more rows than columns"),
    "constant": (lambda X: np.c_[X, np.ones(60)], "constant column 3"),
    "duplicated": (lambda X: np.c_[X, X[:, 1]], "collinear columns 1, 3"),
    "collinear": (lambda X: np.c_[X, X @ [1, 2, 0]], "collinear columns 0, 1, 3"),
    "a row far out": (lambda X: np.r_[X, np.full((1, 3), 1e9)], "row 60 so far out that columns"),
    "one dimension": (lambda X: X[:, 0], "2D array"),
    "text": (lambda X: X.astype(str), "Expected numbers"),
    "a word": (lambda X: put(X.astype(object), 4, 1, "tall"), "'tall' in row 4, column 1"),
    "a word in a frame": (lambda X: pd.DataFrame(put(X.astype(object), 4, 1, "tall")), "'tall' in row 4, column '?1"),
    "complex": (lambda X: X + 1j, "Complex data not supported: expected real"),
    "one name twice": (lambda X: pd.DataFrame(X, columns=["a", "b", "a"]), "'a' twice"),
    "array of text": (lambda X: np.array([["x", "y"]] * 60), "Expected finite numbers|Expected numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_named(name):
    change, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        FlowDensity(**FAST).fit(bad(change))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_bad_weights_are_named(table, value):
    weight = np.ones(len(table))
    weight[17] = value
    with pytest.raises(ValueError, match=f"got {value:g} in row 17"):
        FlowDensity(**FAST).fit(table, sample_weight=weight)


def test_rows_of_no_weight_do_not_count(table):
    """A column that varies in them alone is constant, and they do not make up for columns."""
    flat, weight = table.copy(), np.repeat([1.0, 0.0], len(table) // 2)
    flat[: len(table) // 2, 1] = 5.0
    with pytest.raises(ValueError, match="constant column 1"):
        FlowDensity(**FAST).fit(flat, sample_weight=weight)
    with pytest.raises(ValueError, match="got 3 samples of positive weight of 3 columns"):
        FlowDensity(**FAST).fit(table, sample_weight=np.arange(len(table)) < 3)


def test_wrong_width_is_named(fitted, table):
    with pytest.raises(ValueError, match="2 features.*3 features"):
        fitted.score_samples(table[:, :2])


@pytest.mark.parametrize(
    "params",
    [
        {"objective": "no"},
        {"solver": "no"},
        {"width": 0},
        {"width": "wide"},
        {"rtol": -1.0},
        {"rtol": float("nan")},
        {"max_seconds": float("inf")},
        {"validation_fraction": 2},
        {"validation_fraction": "a"},
    ],
)
def test_bad_parameters_are_named(params, table):
    with pytest.raises((ValueError, TypeError), match=f"(?s)Expected.*{next(iter(params))}"):
        FlowDensity(**{**FAST, **params}).fit(table)


def test_a_handful_of_rows_is_a_gaussian_and_not_learned_by_heart():
    density = FlowDensity(width=8, depth=1, random_state=0).fit(np.random.default_rng(0).normal(size=(5, 1)))
    assert density.n_iter_ == 0 and density.facts_["preprocess"] == "standardize"
    assert -3 < density.score(np.zeros((1, 1))) < 0.5


def test_training_that_cannot_recover_says_why(table):
    unstable = {"objective": "likelihood", "solver": "rk4", "learning_rate": 1e4}
    density = FlowDensity(**{**FAST, "max_iter": 200, "batch_size": 8, **unstable})
    with pytest.raises(SolveError, match="Training cannot recover: 20 steps in a row"):
        density.fit(table)


@pytest.mark.parametrize("divergence", ["exact", pytest.param("hutchinson", marks=pytest.mark.slow)])
def test_likelihood_objective_learns(divergence, two_modes):
    _, X = two_modes
    density = FlowDensity(
        objective="likelihood", divergence=divergence, solver="rk4", max_iter=60, width=16, depth=1,
        preprocess="standardize", batch_size=128, learning_rate=1e-2, random_state=0,
    ).fit(X)  # fmt: skip
    nll = [value for value in density.history_["nll"] if np.isfinite(value)]
    assert density.facts_["best_nll" if "best_nll" in density.facts_ else "validation_nll"] < nll[0] - 0.1
    assert max(density.history_["evaluations"][2:]) == 80


def test_grid_search_and_pipeline(table):
    search = GridSearchCV(FlowDensity(**{**FAST, "max_iter": 5}), {"depth": [0, 1]}, cv=2).fit(table)
    assert search.best_params_["depth"] in (0, 1)
    piped = make_pipeline(StandardScaler(), FlowDensity(**{**FAST, "max_iter": 5})).fit(table)
    assert piped.score_samples(table).shape == (600,)


@functools.cache
def fitted_by(recipe: str) -> FlowDensity:
    """Return a short fit by a recipe; of two layers where it has layers, so that their order counts."""
    depth, rows = 2 if recipe in DISCRETE else 1, np.random.default_rng(0).normal(size=(600, 3)) * [1, 2, 100]
    sizes = {"max_iter": 3, "width": 8, "depth": depth, "batch_size": 32}
    return FlowDensity(recipe=recipe, **sizes, preprocess="standardize", random_state=0).fit(rows)


DISCRETE = ("planar_flow", "residual_flow")
# The recipes of the founding works, one for each kind of training; the others are variations of their parts.
FOUNDING = ("flow_matching", "rnode", *DISCRETE)


def test_discrete_flows_have_no_vector_field_and_no_paths(table):
    with pytest.raises(ValueError, match="Expected no vector_field with recipe 'planar_flow'"):
        FlowDensity(recipe="planar_flow", vector_field="mlp").fit(table)
    with pytest.raises(TypeError, match="Expected a flow whose bijection is a CNF"):
        fitted_by("planar_flow").trajectory(table[:3])


@pytest.mark.parametrize("recipe", DISCRETE)
def test_discrete_flows_sample_and_map(recipe):
    density, rows = fitted_by(recipe), np.random.default_rng(1).normal(size=(9, 3)) * [1, 2, 100]
    drawn, base = density.sample(5, random_state=0), density.transform(rows)
    assert drawn.shape == (5, 3) and np.all(np.isfinite(drawn))
    np.testing.assert_allclose(density.inverse_transform(base), rows, rtol=1e-3, atol=1e-3)
    # Nothing in them has a tolerance: there is nothing to tighten.
    assert density.certify(rows).max_shift == 0


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=() if name in FOUNDING else pytest.mark.slow) for name in sorted(RECIPES)]
)
def test_every_recipe_fits_is_exact_at_evaluation_and_travels_in_a_file(recipe, tmp_path):
    density, rows = fitted_by(recipe), np.random.default_rng(1).normal(size=(9, 3)) * [1, 2, 100]
    log_prob, info = density.score_samples(rows, return_info=True)
    assert np.all(np.isfinite(log_prob)) and not info.std_error.any() and density.n_iter_ == 3
    # Exact in training or not, evaluation draws nothing.
    np.testing.assert_array_equal(log_prob, density.score_samples(rows))
    density.save(tmp_path / "model")
    loaded = FlowDensity.load(tmp_path / "model")
    assert loaded.recipe == recipe
    np.testing.assert_allclose(loaded.score_samples(rows), log_prob, atol=1e-5)


def test_densities_on_the_way_go_from_the_base_to_the_rows(fitted, table):
    rows = table[:50]
    np.testing.assert_array_equal(fitted.score_samples(rows, time=1), fitted.score_samples(rows))
    # At time 0 it is the standard normal behind the closed forms: the Gaussian that fits the rows.
    start = multivariate_normal(table.mean(0), np.cov(table.T)).logpdf(rows)
    np.testing.assert_allclose(fitted.score_samples(rows, time=0.0), start, atol=0.5)
    assert np.all(np.isfinite(fitted.score_samples(rows, time=0.5)))
    for wrong in (-0.1, 1.1, "half", True):
        with pytest.raises(ValueError, match=r"Expected a time from 0 \(base\) to 1 \(data\), got"):
            fitted.score_samples(rows, time=wrong)
    with pytest.raises(ValueError, match="Expected no error with time=0.5"):
        fitted.score_samples(rows, time=0.5, error=1e-2)
    with pytest.raises(TypeError, match=r"discrete layers\s+have no time, hence no vector field and no paths"):
        fitted_by("planar_flow").score_samples(rows, time=0.5)


def test_a_trainable_base_is_trained_and_travels_in_a_file(tmp_path):
    rows, handles = np.random.default_rng(0).normal(size=(500, 1)), []
    params = {**FAST, "objective": "likelihood", "solver": "rk4", "base": "trainable", "weight_decay": 1e-3}
    density = FlowDensity(**{**params, "max_iter": 3, "learning_rate": 0.1})
    density.fit(rows, callback=lambda step, loss, flow: handles.append(flow))
    last = handles[-1]().core.base
    assert np.any(np.asarray(last.loc) != 0) and np.any(np.asarray(last.log_scale) != 0)
    density.save(tmp_path / "model")
    np.testing.assert_array_equal(FlowDensity.load(tmp_path / "model").score_samples(rows), density.score_samples(rows))
    assert density.facts_["weight_decay"] == 1e-3 and FlowDensity(recipe="cnf", max_iter=1).weight_decay is None
    with pytest.raises(ValueError, match="Expected base 'standard' with flow matching"):
        FlowDensity(base="trainable").fit(rows)
    with pytest.raises(ValueError, match="Expected no negative weight_decay, got -1"):
        FlowDensity(weight_decay=-1).fit(rows)


def test_weight_decay_is_the_recipes_or_ones_own():
    assert resolve(FlowDensity(recipe="cnf"), 100, 2).options.weight_decay == 1e-5
    assert resolve(FlowDensity(recipe="cnf", weight_decay=0.0), 100, 2).options.weight_decay == 0
    assert resolve(FlowDensity(), 100, 2).options.weight_decay == 0

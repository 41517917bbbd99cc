"""Nothing silently wrong, nothing lost: what tables, files and people do to a fit, and what it says to them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import NotFittedError

from liouville import CheckpointError, DataError, FlowDensity, ImageDensity, _fitted, _fitting, recipes
from liouville._copies import first_copies, in_random_order, merge_copies, row_hashes
from liouville._splits import near_copies, split_pictures, split_rows
from liouville._tables import far_cells
from liouville.metrics import evaluate_baseline
from liouville.training import Trainer

TINY = {"max_iter": 5, "width": 8, "depth": 1, "preprocess": "standardize", "random_state": 0}
FAST = {**TINY, "max_iter": 40}
PICTURES = {"levels": 4, "width": 8, "depth": 1, "batch_size": 16, "max_iter": 5, "random_state": 0}
FILES = Path(__file__).parent / "files"


def normal(rows, columns=2, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def bootstrap(X, seed=0):
    return X[np.random.default_rng(seed).integers(0, len(X), len(X))]


def pixels(num, seed=0):
    return np.random.default_rng(seed).integers(0, 4, size=(num, 4, 4, 1)).astype(np.uint8)


# Copies


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_copies_are_found_whatever_the_type(dtype):
    X = (100 * normal(500, 3)).astype(dtype)
    X = X[np.random.default_rng(1).integers(0, 300, 900)]
    first, copy_of = first_copies(X)
    # NumPy's own search is the oracle: slower, by comparing rows.
    _, expected = np.unique(X, axis=0, return_index=True)
    np.testing.assert_array_equal(first, np.sort(expected))
    np.testing.assert_array_equal(X[first][copy_of], X)


def test_zeros_are_equal_and_places_differ():
    hashes = row_hashes(np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]))
    assert hashes[0] == hashes[1]
    assert len(set(hashes.tolist())) == 3


def test_a_row_is_on_one_side_of_the_split():
    X = bootstrap(normal(150))
    rows, weight = merge_copies(X, np.ones(150))
    assert weight.sum() == 150
    split = split_rows(rows, weight, 0.1, 1000, seed=0)
    both = np.concatenate([split.rows, split.validation_rows])
    assert len(np.unique(both, axis=0)) == len(both) == len(np.unique(X, axis=0))


def test_a_table_without_copies_is_split_as_ever():
    X, weight = normal(200), np.linspace(0, 2, 200)
    rows, merged = merge_copies(X, weight)
    assert rows is X and merged is weight
    split = split_rows(X, weight, 0.2, 1000, seed=3)
    kept = np.flatnonzero(weight)
    order = kept[np.random.default_rng(3).permutation(199)]
    num = max(int(0.2 * 199), min(100, 199 // 4))
    np.testing.assert_array_equal(split.validation_rows, X[order[:num]])
    np.testing.assert_array_equal(split.rows, X[order[num:]])


def test_copies_of_a_row_are_its_weight():
    X = bootstrap(normal(150))
    distinct, counts = X[first_copies(X)[0]], np.bincount(first_copies(X)[1])
    one, other = FlowDensity(**FAST).fit(X), FlowDensity(**FAST).fit(distinct, sample_weight=counts)
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))


def test_a_picture_is_on_one_side_of_the_split():
    X = bootstrap(pixels(200))
    split = split_pictures(X, np.ones(200), 50, 256, seed=0)
    held_out, numbers = split.validation_rows, lambda part: set(row_hashes(part).tolist())
    assert not numbers(held_out) & numbers(X[split.train])
    assert numbers(held_out) | numbers(X[split.train]) == numbers(X)
    # Each counts as often as it is there.
    counts = [sum(np.array_equal(one, other) for other in X) for one in held_out]
    np.testing.assert_allclose(split.validation_weight, counts / np.mean(counts))
    # Without copies it is the first tenth of a random order, as ever.
    X, order = pixels(200), np.random.default_rng(0).permutation(200)
    split = split_pictures(X, np.ones(200), 50, 256, seed=0)
    np.testing.assert_array_equal(split.validation_rows, X[np.sort(order[:20])])
    np.testing.assert_array_equal(split.train, order[20:])
    # A picture without weight is as good as none.
    split = split_pictures(X, (np.arange(200) >= 50).astype(float), 50, 256, seed=0)
    assert split.train.min() >= 50 and len(split.train) + len(split.validation_rows) == 150


def test_baselines_see_no_copies_of_what_they_are_scored_on():
    X = normal(400)
    nll = lambda rows: evaluate_baseline("kernel density (CV)", rows, normal(1000, seed=1)).nll
    # Were copies on both sides, the narrowest kernel would win, and be nats off.
    assert abs(nll(X) - nll(np.tile(X, (3, 1)))) < 0.05
    index, distinct = in_random_order(np.tile(X, (3, 1)), seed=0)
    half = distinct < 200
    assert half.sum() == 600 and not set((index[half] % 400).tolist()) & set((index[~half] % 400).tolist())
    np.testing.assert_array_equal(in_random_order(X, 5)[0], np.random.default_rng(5).permutation(400))


@pytest.mark.parametrize("columns", [1, 2, 20])
@pytest.mark.parametrize("copies", [2, 20])
def test_near_copies_are_told(columns, copies):
    X = np.tile(normal(2000 // copies, columns), (copies, 1))
    X = X + 1e-6 * normal(len(X), columns, seed=1)
    with pytest.warns(UserWarning, match="near copies: .* of the rows that are held out"):
        split_rows(X, np.ones(len(X)), 0.1, 1000, seed=0)


@pytest.mark.parametrize(
    "X",
    [
        normal(1000, 1),
        normal(1000, 20),
        np.round(normal(2000, 2), 1),
        np.random.default_rng(0).standard_cauchy((1000, 2)),
        np.exp(5 * normal(1000, 3)),
        np.c_[normal(1000, 1), np.arange(1000) % 7],
        1e6 + 1e-3 * normal(1000, 2),
    ],
)
def test_other_tables_have_no_near_copies(X):
    X = merge_copies(X, np.ones(len(X)))[0]
    assert near_copies(X[100:], X[:100]) == 0


# Cells that squeeze a column


def test_warnings_of_a_table_name_the_line_that_fits_it():
    X = normal(60)
    X[7, 1] = 700.0
    with pytest.warns(UserWarning, match="row 7 so far out") as doubtful:
        FlowDensity(**TINY).fit(X)
    X = np.tile(normal(100), (2, 1)) + 1e-6 * normal(200, seed=1)
    with pytest.warns(UserWarning, match="near copies") as copies:
        FlowDensity(**TINY).fit(X)
    assert {warning.filename for warning in [*doubtful, *copies]} == {__file__}


def test_a_far_cell_is_named():
    X = normal(1501, 3)
    X[7, 1] = 1e9
    with pytest.raises(DataError, match=r"row 7 so far out that column 1 \('b'\) hardly varies beside it \(1e\+09\)"):
        FlowDensity(**TINY).fit(pd.DataFrame(X, columns=list("abc")))
    X[[40, 900], 0] = -99999
    weight = np.ones(1501)
    weight[7] = 0
    with pytest.raises(DataError, match=r"row 40 so far .* column 0 .*\(-99999\); row 900 so far") as caught:
        FlowDensity(**TINY).fit(X.astype(np.float32), sample_weight=weight)
    assert "row 7" not in str(caught.value)


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_far_cells_do_not_depend_on_the_unit(size):
    column = normal(300, 1)[:, 0]
    column[[3, 5]] = 1e6, -2e6
    assert sorted(far_cells(size * column).tolist()) == [3, 5]


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.standard_cauchy(2000),
        lambda rng: rng.standard_t(1.5, 2000),
        lambda rng: np.exp(3 * rng.normal(size=2000)),
        lambda rng: rng.uniform(size=2000),
        lambda rng: np.where(rng.random(2000) < 0.9, 0.0, 1e6 + rng.normal(size=2000)),
        lambda rng: 1e8 + rng.normal(size=2000),
    ],
)
def test_heavy_tails_atoms_and_offsets_are_not_far(draw):
    assert not any(far_cells(draw(np.random.default_rng(seed))).size for seed in range(50))


# What a table holds


def test_masked_cells_are_missing():
    X = np.ma.array(normal(100), mask=False)
    X[3, 1] = np.ma.masked
    X.data[3, 1] = -9999.0
    with pytest.raises(DataError, match="NaN in row 3, column 1"):
        FlowDensity(**TINY).fit(X)
    density = FlowDensity(**TINY).fit(normal(100))
    for method in (density.score_samples, density.inverse_transform):
        with pytest.raises(DataError, match="NaN in row 3, column 1"):
            method(X)
    whole = np.ma.array((10 * normal(100)).astype(int), mask=False)
    whole[5, 0] = np.ma.masked
    with pytest.raises(DataError, match="NaN in row 5, column 0"):
        FlowDensity(**TINY).fit(whole)
    weight = np.ma.array(np.ones(100), mask=False)
    weight[9] = np.ma.masked
    with pytest.raises(DataError, match="got nan in row 9"):
        FlowDensity(**TINY).fit(normal(100), sample_weight=weight)
    pictures = np.ma.array(pixels(50), mask=False)
    pictures[4, 0, 0] = np.ma.masked
    with pytest.raises(DataError, match="masked pixels in picture 4"):
        ImageDensity(**PICTURES).fit(pictures)


@pytest.mark.parametrize("cell", [pd.NA, pd.NaT, None, pd.Timestamp("2020-01-01"), [1, 2], {}, "tall"])
def test_an_odd_cell_is_named(cell):
    frame = pd.DataFrame({"a": normal(20)[:, 0], "b": pd.Series(list(normal(20)[:, 1]), dtype=object)})
    frame.at[4, "b"] = cell
    with pytest.raises((DataError, TypeError), match="in row 4, column 'b'"):
        FlowDensity(**TINY).fit(frame)


def test_all_that_is_wrong_is_in_one_message():
    X = normal(20)
    frame = pd.DataFrame(
        {"t": ["x", None] * 10, "a": X[:, 0], "odd": pd.Series([[1]] * 20, dtype=object), "b": X[:, 1]}
    )
    frame["a"] = frame["a"].mask(frame["a"] > 0.5)
    gaps = int((X[:, 0] > 0.5).sum())
    with pytest.raises((DataError, TypeError)) as caught:
        FlowDensity(**TINY).fit(frame)
    message = str(caught.value)
    for word in ("NaN) in row 1, column 't' (10 such cells)", f"column 'a' ({gaps} such cells)", "row 0, column 'odd'"):
        assert word in message
    assert "'b'" not in message
    several = normal(30, 12)
    several[3, :11] = np.nan
    several[5, 0] = np.nan
    with pytest.raises(DataError, match=r"NaN in row 3, column 0 \(2 such cells\); .*; and 1 more; try"):
        FlowDensity(**TINY).fit(several)


def test_a_lazy_frame_hears_collect():
    with pytest.raises(DataError, match=r"lazy LazyFrame; try X\.collect\(\)"):
        FlowDensity(**TINY).fit(pl.DataFrame({"a": [1.0, 2.0]}).lazy())


# What is asked for


def test_weights_have_a_name_and_targets_are_told():
    X = normal(60)
    with pytest.raises(TypeError, match="positional"):
        FlowDensity(**TINY).fit(X, None, np.ones(60))
    with pytest.raises(TypeError, match="positional"):
        ImageDensity(**PICTURES).fit(pixels(60), None, print)
    with pytest.warns(UserWarning, match="ignored; try fit.X, sample_weight"):
        FlowDensity(**TINY).fit(X, np.ones(60))
    FlowDensity(**TINY).fit(X, ["a"] * 60)


@pytest.mark.parametrize(
    "call",
    [
        lambda d, X: d.sample(2.7),
        lambda d, X: d.sample(0),
        lambda d, X: d.sample(True),
        lambda d, X: d.certify(X, num_rows=0),
        lambda d, X: d.certify(X, num_rows=-1),
        lambda d, X: d.score_samples(X, num_probes=1.5),
        lambda d, X: d.score_samples(X, num_probes=0),
        lambda d, X: d.trajectory(X, num_times=1),
    ],
)
def test_what_is_no_count_is_refused(call):
    X = normal(50)
    with pytest.raises(ValueError, match="Expected .* as a whole number of at least"):
        call(FlowDensity(**TINY).fit(X), X)


def test_weights_of_any_size_are_taken():
    X, weight = normal(60), np.linspace(0.5, 1, 60)
    scores = [FlowDensity(**TINY).fit(X, sample_weight=size * weight).score_samples(X) for size in (1.0, 1e308, 1e-308)]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-5)
    np.testing.assert_allclose(scores[2], scores[0], atol=1e-5)


def test_seeds_are_taken_or_refused_in_words():
    X = normal(60)
    fit = lambda seed: FlowDensity(**{**TINY, "random_state": seed}).fit(X).score_samples(X)
    np.testing.assert_array_equal(fit(np.random.default_rng(0)), fit(np.random.default_rng(0)))
    assert not np.array_equal(fit(np.random.default_rng(0)), fit(np.random.default_rng(1)))
    for seed in ("zero", -1, 2**32, 1.5):
        with pytest.raises(ValueError, match="Expected random_state to be an integer"):
            fit(seed)


def test_second_derivatives_of_fitted_steps():
    """The Hessian is the difference of gradients, which come from adaptive solves, as in forward so in reverse mode."""
    X = normal(800) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    density = FlowDensity(**{**FAST, "max_iter": 100}).fit(X + 0.3 * X**2)
    log_prob, x = density.log_prob_fn(error=1e-3), np.array([0.3, -0.2])
    gradient = jax.grad(log_prob)

    @jax.jit
    def all_of_it(x):
        return log_prob(x), jax.jacfwd(gradient)(x), jax.jacrev(gradient)(x)

    value, hessian, reverse = all_of_it(jnp.asarray(x, jnp.float32))
    step = 3e-2
    rows = np.concatenate([x + step * np.eye(2), x - step * np.eye(2)])
    up, down = np.split(density.score_gradient(rows), 2)
    expected = (up - down) / (2 * step)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(hessian, expected, atol=0.05 * np.abs(expected).max())
    np.testing.assert_allclose(reverse, hessian, rtol=1e-3, atol=1e-4)
    assert abs(float(value) - density.score_samples(x[None])[0]) < 1e-2


# Fits that do not end


class Killed(Exception):
    """What a test ends a fit with."""


def raising(error, after):
    """Return a callback that raises when so many steps are done, by all kinds together."""
    seen = {}

    def callback(step, loss, flow):
        seen[flow.kind] = step
        if sum(seen.values()) > after:
            raise error

    return callback


def test_a_refit_that_fails_leaves_the_old_model_whole():
    frame = pd.DataFrame(normal(50), columns=["a", "b"])
    density = FlowDensity(**TINY).fit(frame)
    before, attributes = density.score_samples(frame), dict(vars(density))
    bad = frame.rename(columns={"b": "other"})
    bad.iloc[3, 0] = np.nan
    with pytest.raises(DataError):
        density.fit(bad)
    with pytest.raises(Killed):
        density.fit(normal(50, 3), callback=raising(Killed, 2))
    assert vars(density) == attributes
    np.testing.assert_array_equal(density.score_samples(frame), before)
    density.fit(normal(50, 3))
    assert density.n_features_in_ == 3 and not hasattr(density, "feature_names_in_")


@pytest.mark.parametrize("data", [None, "rows", "weights"])
def test_a_checkpoint_of_other_data_is_refused(tmp_path, data):
    path, X = tmp_path / "checkpoint", normal(60)
    fit = lambda X, w=None, **kw: FlowDensity(**FAST, checkpoint=str(path)).fit(X, sample_weight=w, **kw)
    with pytest.raises(Killed):
        fit(X, callback=raising(Killed, 10))
    assert path.exists()
    other = {"rows": (X + 1e-9, None), "weights": (X, np.linspace(1, 2, 60)), None: (X, np.ones(60))}[data]
    if data is None:
        fit(*other)
        return
    with pytest.raises(CheckpointError, match="these data"):
        fit(*other)


def test_a_checkpoint_of_other_pictures_is_refused(tmp_path):
    path = str(tmp_path / "checkpoint")
    with pytest.raises(Killed):
        ImageDensity(**{**PICTURES, "max_iter": 20}, checkpoint=path).fit(pixels(60), callback=raising(Killed, 3))
    with pytest.raises(CheckpointError, match="these data"):
        ImageDensity(**{**PICTURES, "max_iter": 20}, checkpoint=path).fit(pixels(60, seed=1))


def test_a_place_that_cannot_be_written_is_refused_before_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(_fitted, "run_fit", lambda *args: pytest.fail("the fit has begun"))
    with pytest.raises(OSError, match="none"):
        FlowDensity(**TINY, checkpoint=str(tmp_path / "none" / "checkpoint")).fit(normal(60))


RACE = {"max_iter": 120, "width": 8, "depth": 1, "random_state": 0, "batch_size": 64}


@pytest.mark.parametrize("after", [2, 20, 40, 70, 110])
def test_a_race_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, after, monkeypatch, race_table):
    X, whole = race_table
    path = tmp_path / "checkpoint"
    monkeypatch.setattr(_fitting, "SAVING_SHARE", np.inf)
    monkeypatch.setattr("liouville.training._SEGMENT_SECONDS", 1e-4)
    with pytest.raises(Killed):
        FlowDensity(**RACE, checkpoint=str(path)).fit(X, callback=raising(Killed, after))
    assert path.exists() or after == 2
    resumed = FlowDensity(**RACE, checkpoint=str(path)).fit(X)
    assert resumed.facts_["preprocess"] == whole.facts_["preprocess"]
    np.testing.assert_array_equal(resumed.score_samples(X), whole.score_samples(X))
    assert not path.exists()


@pytest.fixture(scope="module")
def race_table():
    """A table whose race has a final, and the density that a fit without interrupts gives."""
    X = np.random.default_rng(4).normal(size=(800, 3)) * np.exp(np.random.default_rng(5).normal(size=(800, 1)))
    return X, FlowDensity(**RACE).fit(X)


def test_an_interrupt_leaves_the_best_so_far(race_table):
    X, _ = race_table
    density = FlowDensity(**RACE)
    with pytest.warns(UserWarning, match="interrupted after .* steps"), pytest.raises(KeyboardInterrupt):
        density.fit(X, callback=raising(KeyboardInterrupt, 40))
    trained = [nll for nll in density.history_["nll"] if np.isfinite(nll)]
    assert density.facts_["validation_nll"] == min(trained)
    assert 0 < density.n_iter_ <= 41
    assert np.isfinite(density.score(X))


def test_an_interrupt_validates_the_last_weights_and_a_second_one_does_not(monkeypatch):
    X = np.where(normal(600, 1) > 0, 2.0, -2.0) + 0.3 * normal(600, 1, seed=1)
    monkeypatch.setattr("liouville.training._SEGMENT_SECONDS", 0.01)
    params = {**FAST, "max_iter": 600, "width": 16, "learning_rate": 1e-2}
    density = FlowDensity(**params)
    with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        density.fit(X, callback=raising(KeyboardInterrupt, 150))
    # The schedule's first validation is at step 180.
    assert density.facts_["best_step"] == density.n_iter_ < 180
    assert density.facts_["validation_nll"] < density.history_["nll"][0] - 0.1
    validate = Trainer.validate

    def interrupted(self):
        if int(self.state.step) > 0:
            raise KeyboardInterrupt
        return validate(self)

    monkeypatch.setattr(Trainer, "validate", interrupted)
    other = FlowDensity(**params)
    with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        other.fit(X, callback=raising(KeyboardInterrupt, 150))
    assert other.facts_["best_step"] == 0


def test_an_interrupt_before_the_first_step_fits_nothing(monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    old = FlowDensity(**TINY).fit(normal(60))
    before = old.score_samples(normal(60))
    monkeypatch.setattr(Trainer, "validate", interrupt)
    fresh = FlowDensity(**TINY)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(normal(60))
    with pytest.raises(NotFittedError, match="not fitted yet"):
        fresh.score(normal(60))
    with pytest.raises(KeyboardInterrupt):
        old.fit(normal(60, seed=1))
    np.testing.assert_array_equal(old.score_samples(normal(60)), before)


def test_an_interrupted_fit_goes_on_from_its_checkpoint(tmp_path):
    X, path = normal(200), tmp_path / "checkpoint"
    params = {**FAST, "max_iter": 100}
    with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        FlowDensity(**params, checkpoint=str(path)).fit(X, callback=raising(KeyboardInterrupt, 40))
    assert path.exists()
    resumed = FlowDensity(**params, checkpoint=str(path)).fit(X)
    np.testing.assert_array_equal(resumed.score_samples(X), FlowDensity(**params).fit(X).score_samples(X))


def test_interrupted_pictures_are_kept():
    density = ImageDensity(**{**PICTURES, "max_iter": 200})
    with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        density.fit(pixels(100), callback=raising(KeyboardInterrupt, 20))
    assert density.n_iter_ > 20 and density.sample(2, random_state=0).shape == (2, 4, 4, 1)


def test_the_command_line_saves_what_a_signal_interrupts(tmp_path):
    np.savetxt(tmp_path / "t.csv", normal(2000), delimiter=",", header="a,b", comments="")
    command = [sys.executable, "-m", "liouville", "fit", "t.csv", "-o", "m.safetensors", "--checkpoint", "ck", "-q"]
    command += ["--set", "max_iter=1000000", "--set", "width=8", "--set", "depth=1", "--set", "preprocess=whiten"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (tmp_path / "ck").exists() and time.monotonic() < end:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "m.safetensors" in said and "Traceback" not in said
    assert np.isfinite(FlowDensity.load(tmp_path / "m.safetensors").score(pd.DataFrame(normal(50), columns=["a", "b"])))
    assert (tmp_path / "ck").exists()


def test_a_deadline_that_compilation_eats_is_told():
    X = normal(300, 3)
    with pytest.warns(UserWarning, match=r"max_seconds=0\.01 left time for 0 steps .* into compilation"):
        density = FlowDensity(max_seconds=0.01, width=8, depth=1, random_state=0).fit(X)
    # What is left is the Gaussian of the closed forms.
    assert density.n_iter_ == 0
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(X.T))[1]
    assert abs(density.score(X) + entropy) < 0.05


# Files


# Of version 0.1, but for the last two, of 0.2: all are of format 1.
KEPT = ["pictures_flow_matching_image", "pictures_rnode_image", "table_flow_matching", "table_planar_flow"]
KEPT += ["table_rnode", "table_gaussian_radius", pytest.param("pictures_multiscale", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", KEPT)
def test_files_of_format_1_are_read(name, tmp_path):
    expected = json.loads((FILES / "expected.json").read_text())
    (kind, recipe), path = name.split("_", 1), FILES / f"{name}.safetensors"
    if kind == "table":
        density, rows = FlowDensity.load(path), pd.DataFrame(expected["rows"], columns=["a", "b"])
    else:
        pixels = expected["large_pixels" if recipe == "multiscale" else "pixels"]
        density, rows = ImageDensity.load(path), np.array(pixels, np.uint8)
    found = density.score_samples(rows)
    np.testing.assert_allclose(found, expected["log_prob"][recipe], atol=2e-3)
    # And written again, in the present format.
    density.save(tmp_path / "again")
    np.testing.assert_array_equal(type(density).load(tmp_path / "again").score_samples(rows), found)


def test_a_mixed_table_of_before_grids_were_uneven_is_read(tmp_path):
    expected = json.loads((FILES / "expected.json").read_text())["mixed"]
    density, rows = FlowDensity.load(FILES / "mixed_table.safetensors"), pd.DataFrame(expected["rows"])
    np.testing.assert_allclose(density.score_samples(rows), expected["log_prob"], atol=1e-4)
    density.save(tmp_path / "again")
    assert FlowDensity.load(tmp_path / "again").sample(9, random_state=0).equals(density.sample(9, random_state=0))


@pytest.mark.parametrize("recipe", ["planar_flow", "rnode", "flow_matching"])
def test_a_file_does_not_ask_todays_defaults(tmp_path, monkeypatch, recipe):
    X = normal(60)
    density = FlowDensity(**{**TINY, "recipe": recipe, "batch_size": 16}).fit(X)
    density.save(tmp_path / "model")
    other = "planar_flow" if recipe == "rnode" else "hypernetwork"
    changed = dataclasses.replace(recipes.RECIPES[other], preconditioned=recipe == "rnode")
    monkeypatch.setitem(recipes.RECIPES, recipe, changed)
    loaded = FlowDensity.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.score_samples(X), density.score_samples(X))
    loaded.save(tmp_path / "again")
    monkeypatch.delitem(recipes.RECIPES, recipe)
    np.testing.assert_array_equal(FlowDensity.load(tmp_path / "again").score_samples(X), density.score_samples(X))


@pytest.mark.slow
def test_a_file_of_pictures_does_not_ask_todays_defaults(tmp_path, monkeypatch):
    params = {**PICTURES, "recipe": "rnode", "dequantization": "variational", "max_iter": 1}
    density = ImageDensity(**params).fit(pixels(40))
    density.save(tmp_path / "model")
    other = {"preprocess": "margins", "multiscale": False, "preconditioned": True, "vector_field": "unet"}
    changed = dataclasses.replace(recipes.IMAGE_RECIPES["rnode"], small_field="unet", **other)
    monkeypatch.setitem(recipes.IMAGE_RECIPES, "rnode", changed)
    loaded = ImageDensity.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.score_samples(pixels(3)), density.score_samples(pixels(3)))
    assert os.path.getsize(tmp_path / "model") > 0

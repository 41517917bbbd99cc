"""Tables as people have them: frames in, one log-probability, frames out."""

import datetime
import itertools
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

from liouville import FlowDensity
from liouville._errors import DataError
from liouville.mixed import Columns

TINY = {"max_iter": 30, "width": 8, "depth": 1, "preprocess": "standardize", "random_state": 0}


def table(num: int, seed: int = 0) -> pd.DataFrame:
    """Return rows of all kinds of columns, some of which say something of others."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, num, p=[0.5, 0.3, 0.2])
    count = rng.poisson(4 + 6 * kind)
    amount = np.where(rng.random(num) < 0.3, 0.0, np.exp(0.1 * count - 1 + 0.4 * rng.normal(size=num)))
    return pd.DataFrame(
        {
            "kind": pd.Categorical(np.array(["a", "b", "c"])[kind], categories=["c", "b", "a", "none"], ordered=True),
            "count": count.astype(np.int16),
            "amount": amount,
            "day": pd.to_datetime("2020-01-01") + pd.to_timedelta(rng.integers(0, 60, num), "D"),
            "is_new": rng.random(num) < 0.2,
            "text": rng.choice(["x", "y, z"], num),
            "size": rng.normal(size=num).astype(np.float32),
            "grade": rng.integers(1, 5, num),
        }
    )


@pytest.fixture(scope="module")
def fitted() -> FlowDensity:
    return FlowDensity(**TINY).fit(table(600))


def test_a_frame_comes_back_as_one_of_its_kind(fitted):
    drawn, seen = fitted.sample(300, random_state=1), table(600)
    assert type(drawn) is pd.DataFrame and (drawn.dtypes == seen.dtypes).all()
    assert drawn["kind"].cat.categories.tolist() == ["c", "b", "a", "none"] and set(drawn["kind"]) <= {"a", "b", "c"}
    assert set(drawn["text"]) <= {"x", "y, z"} and set(drawn["grade"]) <= {1, 2, 3, 4}
    assert (
        drawn["count"].min() >= 0 and drawn["amount"].min() == 0 and (drawn["day"] == drawn["day"].dt.normalize()).all()
    )
    again, log_prob = fitted.sample_with_log_prob(300, random_state=1)
    assert again.equals(drawn)
    np.testing.assert_allclose(fitted.score_samples(drawn), log_prob, rtol=1e-4)


def test_frames_of_other_libraries_say_the_same():
    seen = table(300).astype({"kind": str})
    frame = pl.from_pandas(seen)
    density, other = FlowDensity(**TINY).fit(frame), FlowDensity(**TINY).fit(seen)
    np.testing.assert_array_equal(density.score_samples(frame), other.score_samples(seen))
    drawn = density.sample(20, random_state=1)
    assert type(drawn) is pl.DataFrame and drawn.schema == frame.schema
    columns = Columns(frame)
    assert columns.frame(columns.rows(frame)).equals(frame)


def test_what_the_columns_are_is_said(fitted):
    said = str(fitted.columns_).splitlines()
    assert [line.split()[0] for line in said] == list(table(5).columns)
    assert "category of 3 levels" in said[0] and "whole numbers in steps of 1" in said[1]
    assert "continuous from 0 to inf with atoms at 0" in said[2] and "a date, in units of 1 day" in said[3]
    assert "category of 2 levels" in said[4] and "continuous (numbers); Lebesgue" in said[6] and "4 levels" in said[7]


def test_a_file_holds_all_of_it(fitted, tmp_path):
    fitted.save(tmp_path / "m.safetensors")
    again = FlowDensity.load(tmp_path / "m.safetensors")
    frame = table(80, seed=2)
    np.testing.assert_array_equal(again.score_samples(frame), fitted.score_samples(frame))
    assert again.sample(20, random_state=3).equals(fitted.sample(20, random_state=3))
    assert str(again.columns_) == str(fitted.columns_)
    drawn = FlowDensity(**TINY).fit(pl.from_pandas(table(600)))
    drawn.save(tmp_path / "p.safetensors")
    other = FlowDensity.load(tmp_path / "p.safetensors").sample(5, random_state=3)
    assert other.equals(drawn.sample(5, random_state=3))


def test_a_level_that_was_not_there_is_impossible_and_named(fitted):
    frame = table(5).astype({"text": object})
    frame.loc[2, "text"] = "w"
    with pytest.warns(UserWarning, match=r"got 'w' in row 2, column 'text': their log-probability is -inf"):
        log_prob = fitted.score_samples(frame)
    assert np.isneginf(log_prob).tolist() == [False, False, True, False, False]


def test_shares_are_learned_and_sum_to_one():
    frame = table(3000)[["kind", "grade"]]
    density = FlowDensity(max_iter=300, width=16, depth=1, random_state=0).fit(frame)
    grid = pd.DataFrame(list(itertools.product("abc", range(1, 5))), columns=["kind", "grade"])
    prob = np.exp(density.score_samples(grid))
    found = np.array([((frame["kind"] == k) & (frame["grade"] == g)).mean() for k, g in grid.to_numpy()])
    assert prob.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(prob, found, atol=0.02)


def test_a_change_of_units_changes_densities_alone():
    frame = table(600)[["kind", "amount"]]
    density, scaled = (FlowDensity(**TINY).fit(f) for f in (frame, frame.assign(amount=1024 * frame["amount"])))
    shift = density.score_samples(frame) - scaled.score_samples(frame.assign(amount=1024 * frame["amount"]))
    zero = (frame["amount"] == 0).to_numpy()
    np.testing.assert_allclose(shift[zero], 0, atol=1e-3)
    np.testing.assert_allclose(shift[~zero], np.log(1024), atol=1e-2)


def test_arrays_of_several_kinds_come_back_as_arrays():
    rng = np.random.default_rng(0)
    X = np.stack(
        [rng.normal(size=500), rng.poisson(3, 500), np.where(rng.random(500) < 0.3, 0, rng.lognormal(size=500))], 1
    )
    density = FlowDensity(**TINY).fit(X)
    assert [c.kind for c in density.columns_.columns] == ["continuous", "whole", "continuous"]
    drawn = density.sample(50, random_state=0)
    assert (
        isinstance(drawn, np.ndarray)
        and (drawn[:, 1] % 1 == 0).all()
        and np.isfinite(density.score_samples(drawn)).all()
    )
    assert not FlowDensity(**TINY).fit(X[:, :1]).columns_.is_mixed
    whole = FlowDensity(**TINY).fit(rng.integers(0, 40, (300, 2)))
    assert np.isfinite(whole.score_samples(rng.integers(0, 40, (10, 2)))).all()


DECLARED = {
    "continuous with atoms": ({"amount": "continuous"}, "Expected a density of column 'amount'"),
    "no such column": ({"amont": "positive"}, "did you mean 'amount'"),
    "no such kind": ({"amount": "big"}, "Expected a kind among"),
    "text as numbers": ({"text": "positive"}, "Expected numbers in column 'text'"),
    "out of bounds": ({"size": ("bounded", 0.0, 1.0)}, "Expected numbers from 0 to 1 in column 'size'"),
    "off the grid": ({"size": ("grid", 0.5)}, "Expected multiples of 0.5 in column 'size'"),
}


@pytest.mark.parametrize("name", DECLARED)
def test_what_cannot_be_said_of_a_column_is_refused(name):
    columns, message = DECLARED[name]
    with pytest.raises(ValueError, match=message):
        FlowDensity(**TINY, columns=columns).fit(table(300))


def test_what_is_said_of_columns_holds():
    frame = table(600)[["amount", "size", "grade"]].assign(share=stats.norm.cdf(table(600)["size"]))
    said = {"amount": "positive", "grade": "integer", "share": ("bounded", 0, 1)}
    density = FlowDensity(**TINY, columns=said).fit(frame)
    assert [c.kind for c in density.columns_.columns] == ["continuous", "continuous", "whole", "continuous"]
    drawn = density.sample(500, random_state=0)
    assert drawn["share"].between(0, 1, inclusive="neither").all() and drawn["amount"].min() >= 0


def test_maps_and_paths_need_continuous_columns(fitted):
    for name in ("transform", "inverse_transform", "trajectory", "score_gradient", "log_prob_fn"):
        assert not hasattr(fitted, name)
        with pytest.raises(AttributeError) as caught:
            getattr(fitted, name)
        assert "Expected continuous columns alone, got others ('kind', 'count'" in str(caught.value.__cause__)
    with pytest.raises(TypeError, match="Expected a flow, got Mixed"):
        fitted.score_samples(table(5), time=0.5)
    with pytest.raises(ValueError, match="Expected a recipe with a vector field"):
        FlowDensity(recipe="planar_flow").fit(table(100))


def test_fitted_steps_keep_their_error_and_doubt_what_is_far(fitted):
    frame = table(400, seed=1)
    adaptive, few = fitted.score_samples(frame), fitted.score_samples(frame, error=1e-3)
    assert np.abs(adaptive - few).mean() < 1.5e-3
    far = table(20, seed=2).assign(size=np.float32(40))
    np.testing.assert_array_equal(fitted.score_samples(far, error=1e-3), fitted.score_samples(far))
    assert type(fitted.sample(5, random_state=0, error=1e-3)) is pd.DataFrame
    # Masses alone: nothing is solved by fitted steps.
    masses = FlowDensity(**TINY).fit(frame[["kind", "count"]])
    np.testing.assert_array_equal(masses.score_samples(frame, error=1e-3), masses.score_samples(frame))


def test_weights_certificates_and_other_objectives(fitted):
    frame, weight = table(300), np.repeat([0.0, 1.0], 150)
    density = FlowDensity(**TINY).fit(frame, sample_weight=weight)
    assert np.isfinite(density.score_samples(frame)).all()
    found = fitted.certify(frame, 40)
    assert found.num_failed == 0 and found.max_shift < 0.02
    by_likelihood = FlowDensity(**{**TINY, "max_iter": 5}, objective="likelihood").fit(frame)
    assert np.isfinite(by_likelihood.score(frame))
    flow, alone = fitted.evaluate(frame, train=frame)
    assert (flow.name, alone.name) == ("flow", "independent columns") and np.isfinite(alone.nll)


def test_a_fit_goes_on_from_its_checkpoint(tmp_path):
    path, seen = str(tmp_path / "checkpoint"), []

    def stop(step, loss, flow):
        seen.append(step)
        if step >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="interrupted"):
        FlowDensity(**TINY, checkpoint=path).fit(table(300), callback=stop)
    resumed = FlowDensity(**TINY, checkpoint=path).fit(table(300))
    np.testing.assert_array_equal(
        resumed.score_samples(table(20)), FlowDensity(**TINY).fit(table(300)).score_samples(table(20))
    )


def test_a_column_of_one_value_is_a_level_and_gaps_are_named():
    frame = table(100).assign(same=3.5)
    with pytest.warns(UserWarning, match=r"got one value \(3.5\) in column 'same'"):
        density = FlowDensity(**TINY).fit(frame)
    assert set(density.sample(5, random_state=0)["same"]) == {3.5}
    with pytest.warns(UserWarning, match="got 100 levels in 100 rows in column 'id'"):
        Columns(frame[["count"]].assign(id=[f"row {i}" for i in range(100)]))
    frame.loc[7, ["amount", "text"]] = None
    with pytest.raises(DataError, match=r"row 7, column 'text'.*row 7, column 'amount'"):
        FlowDensity(**TINY).fit(frame)


def one_column(values, **more) -> FlowDensity:
    return FlowDensity(**TINY, **more).fit(pd.DataFrame({"x": values}))


def test_dates_are_in_the_unit_of_the_fit_whatever_rows_come_together():
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, 300), "D")
    density, midnight = one_column(days), pd.Timestamp("2024-06-01")
    both = pd.DataFrame({"x": [midnight, midnight + pd.Timedelta("12h")]})
    alone = density.score_samples(both[:1])
    assert np.isfinite(alone).all() and density.score_samples(both).tolist() == [alone[0], -np.inf]
    seconds = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.choice(3600, 195, replace=False), "s")
    drawn = one_column(seconds).sample(200, random_state=0)["x"]
    assert (drawn.dt.microsecond == 0).all() and drawn.nunique() > 150
    assert abs((drawn.mean() - pd.Series(seconds).mean()).total_seconds()) < 400


def test_whole_numbers_far_from_zero_keep_their_digits():
    ids = 10**12 + np.random.default_rng(0).integers(0, 1000, 300)
    density = one_column(ids)
    line = pd.DataFrame({"x": 10**12 + np.arange(-3000, 5000)})
    assert np.exp(density.score_samples(line)).sum() == pytest.approx(1, abs=2e-3)
    drawn = density.sample(300, random_state=0)["x"]
    assert drawn.nunique() > 200 and abs(drawn.mean() - ids.mean()) < 100


def test_no_cell_is_left_for_an_atom():
    """The masses of counts with an atom among them sum to 1, and draws have its share."""
    rng = np.random.default_rng(0)
    counts = np.where(rng.random(400) < 0.4, 10, rng.poisson(10, 400))
    density = one_column(counts)
    assert density.columns_.columns[0].atoms == (10.0,)
    prob = np.exp(density.score_samples(pd.DataFrame({"x": np.arange(200)})))
    assert prob.sum() == pytest.approx(1, abs=2e-3)
    assert (density.sample(4000, random_state=0)["x"] == 10).mean() == pytest.approx(prob[10], abs=0.03)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "Int8"])
def test_draws_stay_within_their_type_and_it_is_a_law(dtype):
    rng = np.random.default_rng(0)
    middle = 100 if dtype != "uint8" else 250
    top = 127 if dtype != "uint8" else 255
    values = pd.Series(np.clip(middle + 20 * rng.normal(size=300), 0, top).astype(int)).astype(dtype)
    density = one_column(values)
    drawn = density.sample(500, random_state=0)["x"]
    assert drawn.dtype == values.dtype and drawn.min() >= 0 and drawn.max() <= top
    line = pd.DataFrame({"x": pd.Series(np.arange(top + 1)).astype(dtype)})
    assert np.exp(density.score_samples(line)).sum() == pytest.approx(1, abs=2e-3)


def test_a_grid_is_kept_and_equal_numbers_are_equal_but_for_their_last_bit():
    rng = np.random.default_rng(0)
    density = one_column(0.125 * rng.integers(0, 40, 300), columns={"x": ("grid", 0.125)})
    assert (density.sample(100, random_state=0)["x"] % 0.125 == 0).all()
    density = one_column(np.where(rng.random(400) < 0.4, 3 * 0.1, 0.1 * rng.integers(0, 30, 400)))
    same = density.score_samples(pd.DataFrame({"x": [0.3, 3 * 0.1]}))
    assert same[0] == same[1] > np.log(0.3)


def test_columns_are_matched_by_name_or_by_place(fitted):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"n": rng.poisson(30, 200), "x": rng.normal(size=200), "t": rng.choice(["a", "b"], 200)})
    density = FlowDensity(**TINY).fit(frame)
    swapped = frame[["t", "x", "n"]].assign(more=1)
    np.testing.assert_array_equal(density.score_samples(swapped), density.score_samples(frame))
    A = frame[["n", "x"]].to_numpy()
    by_array = FlowDensity(**TINY).fit(A)
    np.testing.assert_array_equal(by_array.score_samples(pd.DataFrame(A)), by_array.score_samples(A))
    texts = FlowDensity(**TINY).fit(A.astype(str).astype(object))
    assert texts.columns_.columns[0].kind == "whole"
    for wrong, message in (
        (frame.drop(columns="x"), "got none called 'x'"),
        (frame[:0], "Expected a row or more, got none"),
        (frame.assign(n=pd.Timestamp("2020-01-01")), "Expected numbers in column 'n'"),
        (frame.assign(n="many"), "Expected numbers in column 'n'"),
    ):
        with pytest.raises(DataError, match=message):
            density.score_samples(wrong)


def test_what_a_file_could_not_hold_is_refused_at_once(tmp_path):
    cut = pd.DataFrame({"x": pd.cut(np.linspace(0, 1, 100), 4), "n": np.arange(100)})
    with pytest.raises(DataError, match="in column 'x', got Interval"):
        FlowDensity(**TINY).fit(cut)
    said = {"x": ("bounded", np.int64(0), np.int64(2))}
    path = str(tmp_path / "m.safetensors")
    one_column(np.random.default_rng(0).uniform(0, 2, 200), columns=said).save(path)
    assert FlowDensity.load(path).columns == {"x": ["bounded", 0, 2]}
    for columns in ("foo", {"x": ("bounded", 1, 0)}, {"x": ("grid", 0)}, {"x": ("bounded", "a", 0)}):
        with pytest.raises(ValueError, match="; try 'auto'"):
            one_column(np.arange(50.0), columns=columns)


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda f: f.assign(log=np.log(f["size"] + 9)), "'log', which 'size' fixes"),
        (lambda f: f.assign(twice=2 * f["size"] + f["x"]), "'twice', which 'size' and 'x' fix:"),
        (lambda f: f.assign(count=f["count"] + 1, x=f["x"].abs(), area=(f["count"] + 1) * f["x"].abs()), "fix:"),
        (lambda f: f.assign(price=f["kind"].map({"a": 1.234567, "b": 2.345678, "c": 3.456789}) + 0 * f["x"]), None),
        (lambda f: f.assign(noisy=f["size"] + 1e-3 * f["x"] ** 2), None),
    ],
)
def test_columns_that_others_fix_are_named(add, words):
    rng = np.random.default_rng(0)
    frame = (
        table(300)[["kind", "count"]].astype({"kind": str}).assign(size=rng.normal(size=300), x=rng.normal(size=300))
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        FlowDensity(**TINY).fit(add(frame))
    found = [str(w.message) for w in said if "vary on their own" in str(w.message)]
    assert (words in found[0]) if words else not found


def test_positive_columns_stay_positive_and_keep_their_maps():
    """A frame without masses, but with an edge: nothing is drawn beyond it, and what a flow can do is there."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.lognormal(size=300), "b": rng.normal(size=300)})
    density = FlowDensity(**TINY).fit(frame)
    assert density.columns_.columns[0].edges == (0, np.inf) and not density.columns_.is_mixed
    assert density.sample(2000, random_state=0)["a"].min() > 0
    assert density.score_samples(frame.assign(a=-1.0)[:3]).tolist() == [-np.inf] * 3
    step, rows = 1e-3, frame[:5]
    for j, name in enumerate("ab"):
        change = density.score_samples(rows.assign(**{name: rows[name] + step}))
        change = change - density.score_samples(rows.assign(**{name: rows[name] - step}))
        np.testing.assert_allclose(density.score_gradient(rows)[:, j], change / (2 * step), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(density.inverse_transform(density.transform(rows)), rows, rtol=2e-3, atol=2e-3)
    grid = np.stack(np.meshgrid(np.exp(np.linspace(-5, 5, 120)), np.linspace(-6, 6, 80)), -1).reshape(-1, 2)
    prob = np.exp(density.score_samples(pd.DataFrame(grid, columns=["a", "b"]))).reshape(80, 120)
    mass = np.trapezoid(np.trapezoid(prob, grid.reshape(80, 120, 2)[0, :, 0], axis=1), dx=12 / 79)
    assert mass == pytest.approx(1, abs=0.02)


def test_few_values_on_a_fine_grid_have_the_mass_and_all_have_some():
    rng = np.random.default_rng(0)
    values = np.round(np.sort(rng.uniform(size=25)), 4)
    frame = pd.DataFrame({"x": rng.choice(values, 2000), "y": rng.normal(size=2000)})
    density = FlowDensity(**{**TINY, "max_iter": 400, "width": 32}).fit(frame[["x"]])
    column = density.columns_.columns[0]
    assert column.kind == "whole" and column.step == 1e-4 and len(column.seen) == 25 and column.unseen < 1e-3
    log_prob = density.score_samples(pd.DataFrame({"x": np.arange(20_000) / 1e4}))
    assert np.exp(log_prob).sum() == pytest.approx(1, abs=5e-3) and np.isfinite(log_prob[:10_000]).all()
    seen = np.exp(density.score_samples(pd.DataFrame({"x": values})))
    assert seen.sum() > 0.95 and np.abs(seen - 1 / 25).max() < 0.03
    drawn = density.sample(500, random_state=0)["x"]
    assert drawn.isin(values).mean() > 0.9


def test_counts_of_which_some_are_not_seen_are_no_fine_grid():
    rng = np.random.default_rng(0)
    for values in (rng.poisson(30, 3000), rng.integers(0, 100_000, 3000), rng.geometric(0.05, 3000)):
        assert Columns(pd.DataFrame({"x": values})).columns[0].unseen == 1


def test_nothing_is_drawn_beyond_a_cap_or_a_floor():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": np.clip(rng.normal(size=600), -1.2, 0.8), "y": np.minimum(rng.lognormal(size=600), 2.5)})
    density = FlowDensity(**TINY).fit(frame)
    assert [column.edges for column in density.columns_.columns] == [(-1.2, 0.8), (0.0, 2.5)]
    drawn = density.sample(3000, random_state=0)
    assert drawn["x"].between(-1.2, 0.8).all() and drawn["y"].between(0, 2.5).all()
    assert (drawn["x"] == 0.8).mean() == pytest.approx((frame["x"] == 0.8).mean(), abs=0.03)


def test_large_counts_stay_above_zero_and_are_a_law():
    """Where JAX's floats do not tell neighbours, what is below zero is impossible all the same."""
    rng = np.random.default_rng(0)
    counts = rng.lognormal(17, 1.5, 400).astype(np.int64)
    counts[0] = 0
    density = one_column(counts)
    assert density.sample(3000, random_state=0)["x"].min() >= 0
    log_prob = density.score_samples(pd.DataFrame({"x": [-2, -1, 0, 1, 2, 10**7]}))
    assert np.isneginf(log_prob[:2]).all() and np.isfinite(log_prob[2:]).all() and log_prob[3] < np.log(0.01)
    with pytest.raises(DataError, match=r"up to 2\*\*53 in column 'x', got \d+ in row 3"):
        one_column([1, 2, 3, 2**60, *range(40)])


@pytest.mark.parametrize(("dtype", "kind"), [("int8", "integer"), ("int8[pyarrow]", None), ("uint8", ("grid", 1))])
def test_types_have_their_range_however_the_column_is_said(dtype, kind):
    values = pd.Series(np.clip(np.random.default_rng(0).normal(100, 20, 300), 0, 127).astype(int)).astype(dtype)
    density = one_column(values, **({} if kind is None else {"columns": {"x": kind}}))
    drawn = density.sample(1000, random_state=0)["x"]
    assert drawn.dtype == values.dtype and drawn.min() >= 0
    line = pd.DataFrame({"x": pd.Series(np.arange(128)).astype(dtype)})
    top = 1 - np.exp(density.score_samples(line)).sum() if dtype != "uint8" else 0
    assert abs(top) < 2e-3


def test_dates_end_with_the_calendar_and_times_have_a_zone_or_none():
    rng = np.random.default_rng(0)
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(days=int(k)) for k in rng.integers(0, 1000, 300)]
    days[::30] = [datetime.date(9999, 12, 31)] * 10
    drawn = FlowDensity(**TINY).fit(pl.DataFrame({"d": days})).sample(2000, random_state=0)
    assert drawn["d"].dtype == pl.Date and drawn["d"].max() <= datetime.date(9999, 12, 31)
    zoned = pd.DataFrame({"t": pd.date_range("2024-03-01", periods=300, freq="h", tz="Europe/Berlin")})
    density = FlowDensity(**TINY).fit(zoned)
    assert density.sample(5, random_state=0)["t"].dtype == zoned["t"].dtype
    with pytest.raises(DataError, match="zone Europe/Berlin in column 't', got no zone"):
        density.score_samples(zoned.assign(t=zoned["t"].dt.tz_localize(None)))


def test_things_that_are_numbers_are_numbers_and_things_of_two_kinds_are_none():
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=300)
    density = one_column(pd.Series(list(numbers), dtype=object))
    assert density.columns_.columns[0].is_density
    found = density.score_samples(pd.DataFrame({"x": numbers[:5]}))
    np.testing.assert_array_equal(found, one_column(numbers).score_samples(pd.DataFrame({"x": numbers[:5]})))
    for cells, words in (([True, 2, 1, 0] * 10, "bool, int"), (["a", 1] * 20, "'a' in row 0")):
        with pytest.raises((DataError, TypeError), match=words):
            one_column(pd.Series(cells, dtype=object), columns={"x": "category"})
    for kind in (("category",), ("grid", np.inf), ("bounded", 0, np.nan), ("integer", 2), ("grid", True)):
        with pytest.raises(ValueError, match="; try '"):
            one_column(np.arange(50.0), columns={"x": kind})
    names = pd.DataFrame(rng.normal(size=(20, 2)), columns=[1, "1"])
    with pytest.raises((DataError, TypeError)):
        FlowDensity(**TINY).fit(names)
    with pytest.raises(DataError, match="Expected two rows or more, got 0"):
        FlowDensity(**TINY).fit(pd.DataFrame({"b": pd.array([], dtype="string")}))


def test_columns_that_the_fit_has_not_seen_are_left_alone(fitted):
    frame = table(5)
    more = frame.assign(other=[None, 1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(fitted.score_samples(more), fitted.score_samples(frame))
    with pytest.raises(DataError, match="'text' twice"):
        fitted.score_samples(pd.concat([frame, frame[["text"]]], axis=1))

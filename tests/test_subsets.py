"""Gaps, and any columns given any others: beside laws in closed form, through frames, files and the command line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import stats
from scipy.special import expit

from checks import check_subsets, subsets
from liouville import DataError, FlowDensity, _fitting
from liouville.mixed import draw_questions

MEAN = np.array([1.0, -2.0, 0.0])
COV = np.array([[1.0, 0.8, 0.3], [0.8, 2.0, -0.4], [0.3, -0.4, 0.5]])
SMALL = {"width": 24, "depth": 1, "preprocess": "standardize", "random_state": 0}
SHARES, RATE, ZERO = np.array([0.5, 0.3, 0.2]), np.array([2.0, 6.0, 12.0]), np.array([0.4, 0.1, 0.01])
LEVELS = np.array(["a", "b", "c"])


def gaussian(num: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal(MEAN, COV, num)


def conditional(rows: np.ndarray, a: list[int], b: list[int]) -> np.ndarray:
    """Return the log-density of some columns given others, by the joint and the marginal."""
    of = lambda some: stats.multivariate_normal(MEAN[some], COV[np.ix_(some, some)]).logpdf(rows[:, some])
    return of(a + b) - (of(b) if b else 0.0)


def gappy(rows: np.ndarray, seed: int) -> np.ndarray:
    """Remove cells of the last two columns, more where the first one, which is always there, is high."""
    is_high = rows[:, :1] > MEAN[0]
    is_gap = np.random.default_rng(seed).random(rows.shape) < np.where(is_high, 0.6, 0.2)
    is_gap[:, 0] = False
    return np.where(is_gap, np.nan, rows)


def law(num: int, seed: int) -> pd.DataFrame:
    """Draw rows of a kind, a count, and an amount that is zero for some."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, num, p=SHARES)
    count, is_zero = rng.poisson(RATE[kind]), rng.random(num) < ZERO[kind]
    amount = np.where(is_zero, 0.0, np.exp(0.1 * count - 1 + 0.4 * rng.normal(size=num)))
    return pd.DataFrame({"kind": LEVELS[kind], "count": count, "amount": amount})


def posterior(rows: pd.DataFrame) -> np.ndarray:
    """Return the probabilities of the kinds given count and amount, by Bayes' rule."""
    count, amount = rows["count"].to_numpy()[:, None], rows["amount"].to_numpy()[:, None]
    is_zero, log_amount = amount == 0, np.log(np.where(amount > 0, amount, 1.0))
    density = np.where(is_zero, ZERO, (1 - ZERO) * stats.norm.pdf(log_amount, 0.1 * count - 1, 0.4))
    prob = SHARES * stats.poisson.pmf(count, RATE) * density
    return prob / prob.sum(1, keepdims=True)


@functools.cache
def of_gaps() -> FlowDensity:
    return FlowDensity(missing="ignore", max_iter=500, **SMALL).fit(gappy(gaussian(4000, 0), 1))


@functools.cache
def of_law() -> FlowDensity:
    return FlowDensity(conditionals=True, max_iter=500, **SMALL).fit(law(4000, 0))


def test_probabilities_of_any_question_sum_to_one():
    check_subsets(subsets())


@pytest.mark.parametrize(
    ("a", "b"), [([0, 1, 2], []), ([0], [1, 2]), ([1, 2], [0]), ([1], [2]), ([2], []), ([0, 1], [])]
)
def test_subsets_of_a_gaussian_with_gaps_have_its_densities(a, b):
    rows = gaussian(1000, 2)
    gap = conditional(rows, a, b) - of_gaps().log_prob(rows, target=a, given=b)
    assert -4 * gap.std() / len(gap) ** 0.5 < gap.mean() < 0.06


def test_a_row_with_gaps_has_the_marginal_density_of_what_is_there():
    rows = gaussian(500, 3)
    rows[:, 1] = np.nan
    density = of_gaps()
    np.testing.assert_allclose(density.score_samples(rows), density.log_prob(rows, target=[0, 2]), atol=1e-5)
    # Neither what is out nor whether it is said counts.
    np.testing.assert_allclose(density.score_samples(rows), density.log_prob(rows), atol=1e-5)
    assert density.score_samples(np.full((1, 3), np.nan)) == 0


def test_draws_of_gaps_cover_what_was_removed_and_leave_the_rest():
    rows = gaussian(600, 4)
    holes = gappy(rows, 5)
    is_gap = np.isnan(holes)
    draws = of_gaps().impute(holes, num_draws=60, random_state=0)
    assert draws.shape == (60, 600, 3) and np.array_equal(draws[:, ~is_gap], np.tile(rows[~is_gap], (60, 1)))
    assert np.array_equal(draws[0], of_gaps().impute(holes, random_state=0))
    assert np.array_equal(draws[0], of_gaps().sample(given=holes, random_state=0))
    # Ranks of the truth among draws of its own law are even: their standard error is that of independent rows.
    ranks = (draws < rows).mean(0)[is_gap]
    inside = (ranks > 0.05) & (ranks < 0.95)
    assert abs(inside.mean() - 0.9) < 4 * 0.3 / np.sqrt(is_gap.any(1).sum()) + 0.02
    assert abs(draws[:, is_gap].mean() - rows[is_gap].mean()) < 0.15


def test_a_category_given_numbers_is_a_calibrated_classifier():
    test, density = law(800, 1), of_law()
    given = ["count", "amount"]
    of_level = lambda level: np.exp(density.log_prob(test[given].assign(kind=level), target=["kind"], given=given))
    prob = np.stack([of_level(level) for level in LEVELS], axis=1)
    np.testing.assert_allclose(prob.sum(1), 1, atol=1e-5)
    truth = posterior(test)
    off = lambda prob: np.mean(np.sum(truth * np.log(truth / prob), axis=1))
    assert off(prob) < 0.25 * off(np.array([[0.5, 0.3, 0.2]]))


def test_conditionals_leave_the_density_as_it_is():
    alone = FlowDensity(max_iter=500, **SMALL).fit(law(4000, 0))
    test = law(200, 1)
    assert np.array_equal(alone.score_samples(test), of_law().score_samples(test))
    assert np.array_equal(of_law().log_prob(test), of_law().score_samples(test))
    with pytest.raises(ValueError, match="conditionals=True"):
        alone.log_prob(test, target=["kind"])


def test_consistent_answers_are_the_joint_density_s_own():
    test, density = law(150, 2), of_law()
    joint = density.score_samples(test)
    below, below_error = density.log_prob(test, target=["count"], consistent=True, num_draws=32)
    rest, rest_error = density.log_prob(test, given=["count"], consistent=True, num_draws=32, random_state=1)
    assert (below_error > 0).all() and (rest_error > 0).all()
    off = (below + rest - joint) / np.hypot(below_error, rest_error)
    assert np.abs(np.median(off)) < 0.5 and np.mean(np.abs(off) > 4) < 0.03
    # Summed over all counts and kinds the joint density's own marginal: quadrature over what was integrated out.
    amounts = np.r_[0.0, np.exp(np.linspace(-5, 4, 120))]
    grid = pd.DataFrame([(k, 3, y) for k in LEVELS for y in amounts], columns=["kind", "count", "amount"])
    prob = np.exp(density.score_samples(grid)).reshape(3, -1)
    truth = np.log(prob[:, 0].sum() + np.trapezoid(prob[:, 1:] * amounts[1:], np.log(amounts[1:])).sum())
    one = pd.DataFrame({"count": [3]})
    value, error = density.log_prob(one, target=["count"], consistent=True, num_draws=400)
    assert abs(value[0] - truth) < 4 * error[0] + 3e-3
    exact, none = density.log_prob(test, consistent=True)
    assert np.array_equal(exact, joint) and not none.any()


def test_gaps_that_say_something_are_learned_with_the_rest():
    def draw(num, seed):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=num)
        kind = rng.choice(["u", "v"], num).astype(object)
        y = x + 0.5 * rng.normal(size=num)
        kind[rng.random(num) < expit(3 * x)] = None
        return pd.DataFrame({"x": x, "y": np.where(rng.random(num) < expit(-3 * y), np.nan, y), "kind": kind})

    density = FlowDensity(missing="model", conditionals=True, max_iter=400, **SMALL).fit(draw(4000, 0))
    test = draw(1500, 1)
    x, y = test["x"].to_numpy(), test["y"].to_numpy()
    of_kind = np.where(test["kind"].isna(), np.log(expit(3 * x)), np.log(expit(-3 * x) / 2))
    t = np.linspace(-4, 4, 400)
    gap = np.trapezoid(stats.norm.pdf(t) * expit(-3 * (x[:, None] + 0.5 * t)), t, axis=1)
    of_y = np.where(np.isnan(y), np.log(gap), stats.norm.logpdf(y, x, 0.5) + np.log(expit(3 * np.nan_to_num(y))))
    off = stats.norm.logpdf(x) + of_kind + of_y - density.score_samples(test)
    assert -4 * off.std() / len(off) ** 0.5 < off.mean() < 0.05
    drawn = density.sample(3000, 0)
    assert abs(drawn["kind"].isna().mean() - test["kind"].isna().mean()) < 0.04
    assert abs(drawn["y"].isna().mean() - test["y"].isna().mean()) < 0.04
    assert drawn.loc[drawn["kind"].isna(), "x"].mean() > 0.3
    # A gap is an event, and what is drawn for one is none.
    prob = sum(
        np.exp(density.log_prob(test.head(9).assign(kind=k), target=["kind"], given=["x"])) for k in ("u", "v", None)
    )
    np.testing.assert_allclose(prob, 1, atol=1e-5)
    assert not density.impute(test, random_state=0).isna().any(axis=None)


@pytest.mark.parametrize(
    ("make", "missing"),
    [
        (pd.DataFrame, "ignore"),
        (pd.DataFrame, "model"),
        (pl.DataFrame, "model"),
        (lambda cells: pa.table(cells), "ignore"),
    ],
)
def test_frames_keep_their_kinds(make, missing):
    rng = np.random.default_rng(0)
    hide = lambda cells: [None if gap else cell for cell, gap in zip(cells, rng.random(200) < 0.2, strict=True)]
    cells = {
        "name": hide(rng.choice(["x", "y"], 200).tolist()),
        "yes": hide((rng.random(200) < 0.5).tolist()),
        "count": hide(rng.poisson(20, 200).tolist()),
        "size": hide(rng.normal(size=200).tolist()),
        "day": hide(pd.date_range("2020-01-01", periods=200).date.tolist()),
    }
    table = make(cells)
    if make is pd.DataFrame:
        table = table.assign(count=table["count"].astype("Int64"), day=pd.to_datetime(table["day"]))
    density = FlowDensity(missing=missing, max_iter=5, conditionals=True, **SMALL).fit(table)
    assert np.isfinite(density.score_samples(table)).all()
    full, drawn = density.impute(table, random_state=0), density.sample(50, 0)
    assert type(full) is type(drawn) is type(table)
    as_pandas = lambda one: one if make is pd.DataFrame else one.to_pandas()
    if hasattr(full, "dtypes"):
        assert list(full.dtypes) == list(table.dtypes)
    before, after = as_pandas(table), as_pandas(full)
    assert not after.isna().any(axis=None) and as_pandas(drawn).isna().any(axis=None) == (missing == "model")
    for name in cells:
        is_there = before[name].notna()
        assert before.loc[is_there, name].tolist() == after.loc[is_there, name].tolist()


def test_gaps_of_every_kind_are_gaps():
    rows = gaussian(60, 0)
    things = rows.astype(object)
    things[3, 1], things[4, 1], things[5, 1] = None, np.nan, pd.NA
    frame = pd.DataFrame({"a": rows[:, 0], "b": pd.Series(things[:, 1], dtype=object), "c": rows[:, 2]})
    for table in (
        things,
        frame,
        np.ma.masked_array(rows, np.isnan(np.where(np.arange(60)[:, None] == 3, np.nan, rows))),
    ):
        density = FlowDensity(missing="ignore", max_iter=5, **SMALL).fit(table)
        assert np.isfinite(density.score_samples(table)).all()
    with pytest.raises(DataError, match=r"3 .*'b'|'b'.*3"):
        FlowDensity(max_iter=5).fit(frame)


def test_a_file_keeps_it_all(tmp_path):
    test = law(50, 1)
    for density, ask in (
        (of_law(), lambda d: d.log_prob(test, target=["kind"], given=["amount"])),
        (of_gaps(), lambda d: d.log_prob(gaussian(50, 1), target=[0], given=[2])),
    ):
        density.save(tmp_path / "model.safetensors")
        loaded = FlowDensity.load(tmp_path / "model.safetensors")
        assert np.array_equal(ask(loaded), ask(density))
        assert loaded.get_params() == density.get_params()


def test_an_interrupted_fit_goes_on_behind_the_density(tmp_path, monkeypatch):
    monkeypatch.setattr(_fitting, "SAVING_SHARE", np.inf)
    rows, path = gaussian(300, 0), tmp_path / "half"
    make = lambda checkpoint: FlowDensity(conditionals=True, max_iter=30, checkpoint=checkpoint, **SMALL)
    whole = make(None).fit(rows)
    keep = FlowDensity._keep

    def crash(self, name, *args):
        keep(self, name, *args)
        if name == "subsets_":
            raise RuntimeError("a crash")

    monkeypatch.setattr(FlowDensity, "_keep", crash)
    broken = make(str(path))
    with pytest.raises(RuntimeError, match="a crash"):
        broken.fit(rows)
    assert path.exists() and not hasattr(broken, "flow_")
    monkeypatch.setattr(FlowDensity, "_keep", keep)
    # What was learned is not learned again.
    resumed = make(str(path)).fit(rows, callback=lambda *args: pytest.fail("a step"))
    assert not list(tmp_path.iterdir())
    ask = lambda density: density.log_prob(rows, target=[0], given=[1])
    assert np.array_equal(ask(resumed), ask(whole))


def test_weights_count_as_copies_do():
    rows = gappy(gaussian(4000, 0), 1)
    is_high = rows[:, 0] > MEAN[0]
    weight = np.where(is_high, 3.0, 1.0)
    density = FlowDensity(missing="ignore", max_iter=500, **SMALL).fit(rows, sample_weight=weight)
    share = (density.sample(4000, 0)[:, 0] > MEAN[0]).mean()
    # Without weights it were a half.
    assert abs(share - np.average(is_high, weights=weight)) < 0.1


def test_questions_without_an_answer_are_refused():
    density, test = of_law(), law(20, 1)
    for asked, said in (
        ({"target": ["knid"]}, "knid.*kind"),
        ({"target": "kind"}, "a list"),
        ({"target": ["kind"], "given": ["kind"]}, "in both"),
        ({"target": []}, "columns to ask for"),
        ({"given": ["kind", "count", "amount"]}, "columns to ask for"),
        ({"target": ["kind"], "num_draws": 1}, "num_draws"),
    ):
        with pytest.raises(ValueError, match=said):
            density.log_prob(test, **asked)
    odd = test.assign(kind=["z", *test["kind"][1:]])
    with pytest.raises(DataError, match="'kind'.*row 0"), pytest.warns(UserWarning, match="'z'"):
        density.log_prob(odd, target=["count"], given=["kind"])
    with pytest.raises(DataError, match="'count'.*row 2"):
        density.log_prob(test.assign(count=test["count"].astype(float).where(test.index != 2, 2.5)), given=["count"])
    with pytest.raises(DataError, match="'amount'"):
        density.log_prob(test.assign(amount=test["amount"].mask(test.index == 4)), target=["kind"], given=["amount"])
    # What is not asked for may be missing, or absent.
    holes = test.assign(amount=np.nan)
    want = density.log_prob(test, target=["kind"], given=["count"])
    assert np.array_equal(density.log_prob(holes, target=["kind"], given=["count"]), want)
    assert np.array_equal(density.log_prob(test[["count", "kind"]], target=["kind"], given=["count"]), want)
    with pytest.raises(DataError, match="amount"):
        density.score_samples(holes)
    with pytest.raises(DataError, match="got none in 'a'"):
        FlowDensity(missing="ignore").fit(pd.DataFrame({"a": [np.nan] * 30, "b": np.arange(30.0)}))
    with pytest.raises(ValueError, match="missing among"):
        FlowDensity(missing="drop").fit(test)
    with pytest.raises(AttributeError) as raised:
        of_gaps().transform(gaussian(3, 0))
    assert "missing='ignore'" in str(raised.value.__cause__)


def test_questions_in_training_keep_to_what_a_row_has():
    known = jnp.asarray(np.random.default_rng(0).random((4000, 5)) < 0.7)
    asked, given = map(np.asarray, draw_questions(jax.random.key(0), known, (0, 1, 1, 2, 3), 1 / 3))
    known = np.asarray(known)
    assert not (asked & given).any() and not ((asked | given) & ~known).any()
    # Numbers of one column go together.
    both = known[:, 1] & known[:, 2]
    assert (asked[both, 1] == asked[both, 2]).all() and (given[both, 1] == given[both, 2]).all()
    is_all = (asked == known).all(1)
    left_out = (known & ~asked & ~given).any(1)
    assert 0.45 < is_all.mean() < 0.6 and left_out.mean() > 0.2


def test_rows_that_are_filled_stand_for_the_rows_that_were_given():
    frame = law(400, 3)
    holes = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.2).set_index(np.arange(1000, 1400))
    density = FlowDensity(missing="ignore", max_iter=5, **SMALL).fit(holes)
    full = density.impute(holes.iloc[100:104], random_state=0)
    assert full.index.tolist() == [1100, 1101, 1102, 1103] and holes.iloc[100:104].fillna(full).equals(full)
    # A level that is not known is no level, in a row without gaps, too.
    odd = pd.DataFrame({"kind": ["a", "zz"], "count": [np.nan, 3.0], "amount": [1.0, 1.0]})
    with pytest.raises(DataError, match="'kind'.*row 1"), pytest.warns(UserWarning, match="zz"):
        density.impute(odd)
    with pytest.warns(UserWarning, match="knid"):
        density.sample(given=pd.DataFrame({"knid": ["a"], "amount": [1.0]}))
    with pytest.raises(DataError, match="some of the columns"):
        density.sample(given=pd.DataFrame({"knid": ["a"]}))
    # What is impossible as a target is so with a standard error, too; what is not asked for may be anything.
    value, error = density.log_prob(odd.assign(kind="a", count=[1.5, 3.0]), target=["count"], consistent=True)
    assert value[0] == -np.inf and np.isfinite(value[1]) and error[0] == 0
    assert np.isfinite(density.log_prob(odd.assign(amount=np.inf), target=["count"])).all()


def test_names_of_frames_may_be_numbers():
    frame = pd.DataFrame(gappy(gaussian(200, 0), 1))
    density = FlowDensity(missing="ignore", max_iter=5, **SMALL).fit(frame)
    assert not density.impute(frame).isna().any(axis=None)
    assert np.isfinite(density.log_prob(frame, target=[0], given=[1])).all()
    things = frame.astype({1: object})
    assert density.score_samples(things).shape == (200,)


def test_a_gap_that_the_fit_has_not_seen_is_no_value():
    holes = law(300, 0).assign(amount=lambda rows: rows["amount"].mask(rows.index % 5 == 0))
    density = FlowDensity(missing="model", max_iter=5, **SMALL).fit(holes)
    for name in ("kind", "count"):
        odd = holes.assign(**{name: holes[name].astype(object).mask(holes.index == 7)})
        with pytest.raises(DataError, match=f"'{name}'"):
            density.score_samples(odd)
    weight = np.where(holes["amount"].isna(), 1.0, 0.0)
    with pytest.raises(DataError, match="'amount'"):
        FlowDensity(missing="ignore", max_iter=5).fit(holes, sample_weight=weight)

"""Outliers: planted ones are found, p-values are what they say, and every table is taken."""

import dataclasses
import warnings

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from liouville import CheckpointError, DataError, FlowDensity, FlowOutlierDetector, _noise_levels, evaluation, outliers
from liouville._copies import in_random_order
from liouville._noise_levels import Build, fit_frame, parts_of, spec_of, steps_of, train
from liouville.flows import FlowSpec
from liouville.training import Budget

FAST = {"max_iter": 150, "random_state": 0}


@pytest.fixture(autouse=True, scope="module")
def small_nets():
    """What is tested is no matter of size, and small nets compile in a third of the time."""
    small = lambda columns, has_gaps: FlowSpec(columns, width=16, depth=1, cond_shape=columns if has_gaps else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outliers, "spec_of", small)
        yield


def rows_of(num: int, seed: int) -> np.ndarray:
    """Two columns that nearly fix each other, an even one, and a constant one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=num)
    return np.stack([x, 0.9 * x + 0.1 * rng.normal(size=num), rng.uniform(size=num), np.full(num, 5.0)], axis=1)


def with_gaps(rows: np.ndarray, seed: int) -> np.ndarray:
    rows = rows.copy()
    rows[:, :2][np.random.default_rng(seed).random((len(rows), 2)) < 0.15] = np.nan
    return rows


@pytest.fixture(scope="module")
def fitted(small_nets):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FlowOutlierDetector(**FAST).fit(rows_of(700, 0))


@pytest.fixture(scope="module")
def fitted_with_gaps(small_nets):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FlowOutlierDetector(missing="ignore", max_iter=300, random_state=0).fit(with_gaps(rows_of(700, 0), 1))


def test_a_score_is_beside_those_of_the_calibration(fitted):
    """One that is equal is no less odd; all flows have their say, whichever comes first."""
    levels, num = fitted.noise_levels_, len(fitted.calibration_)
    order = np.argsort(fitted.calibration_)
    assert np.array_equal(levels.p_values(fitted.calibration_[order]), np.arange(2, num + 2) / (num + 1))
    turned = dataclasses.replace(levels, flows=levels.flows[::-1])
    np.testing.assert_allclose(turned.score(rows_of(20, 3)), levels.score(rows_of(20, 3)), rtol=1e-4)


def test_calibration_is_what_flows_that_have_not_seen_the_rows_say(fitted_with_gaps):
    """Row by row: each with its own flow, as where rows with gaps are judged beside others."""
    levels = fitted_with_gaps.noise_levels_
    again = levels._levels_without(np.arange(700), ~np.isnan(levels.rows))
    scores = -np.max((again - levels.center) / levels.spread, axis=1)
    np.testing.assert_allclose(levels.calibration, scores, rtol=1e-3, atol=1e-3)


def test_columns_that_do_not_vary_have_the_error_of_their_paths():
    """Their rows are all at 0, to which a path at `x` goes with velocity ``-x / (1 - t)``."""
    t = 0.16 + (np.arange(320) + 0.5) / 320 * 0.64
    x, x0 = 0.7, np.random.default_rng(0).normal(size=320)
    errors = (x - x0 + ((1 - t) * x0 + t * x) / (1 - t)) ** 2
    found = _noise_levels._log_errors(None, np.zeros((1, 0)), np.array([x**2]))
    np.testing.assert_allclose(np.exp(found[0]), errors.reshape(4, 80).mean(1), rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = FlowOutlierDetector().fit(np.ones((30, 3)))
    # Off two of them they are off by Pythagoras.
    both, one, less = detector.score_samples([[4.0, 5.0, 1.0], [6.0, 1.0, 1.0], [4.0, 1.0, 1.0]])
    assert both == pytest.approx(one) and one < less


# They set the contamination to the share of outliers that they then expect among the rows of the fit.
BY_OTHERS = "the quantile is that of scores by flows that have not seen a row, those asked for are by flows that have"
EXPECTED_FAILURES = {"check_outliers_train": BY_OTHERS, "check_outliers_fit_predict": BY_OTHERS}


@pytest.mark.filterwarnings("ignore")
def test_check_estimator(monkeypatch):
    smallest = lambda columns, has_gaps: FlowSpec(columns, width=8, depth=0)
    monkeypatch.setattr(outliers, "spec_of", smallest)
    monkeypatch.setattr(_noise_levels, "FOLDS_OF_FEW", 2)
    check_estimator(FlowOutlierDetector(max_iter=2, random_state=0), expected_failed_checks=EXPECTED_FAILURES)


ODD = {
    "far": [20.0, 18.0, 0.5, 5.0],
    "off the others, each column as usual": [1.5, -1.5, 0.5, 5.0],
    "beyond an end": [0.0, 0.0, 1.8, 5.0],
    "off a constant column": [0.0, 0.0, 0.5, 6.0],
    "infinitely far, nearly": [1e300, 0.0, 0.5, -1e300],
}


@pytest.mark.parametrize("kind", ODD)
def test_planted_outliers_are_found(fitted, kind):
    usual = [0.5, 0.45, 0.5, 5.0]
    scores = fitted.score_samples([ODD[kind], usual])
    assert np.isfinite(scores).all() and scores[0] < scores[1]
    assert fitted.predict([ODD[kind], usual]).tolist() == [-1, 1]
    assert fitted.p_values([ODD[kind]])[0] == 1 / (len(fitted.calibration_) + 1)


def check_uniform(p_values: np.ndarray, calibration_rows: int) -> None:
    for share in (0.02, 0.05, 0.1, 0.25, 0.5, 0.75):
        error = np.sqrt(share * (1 - share) * (1 / len(p_values) + 1 / calibration_rows))
        assert abs(np.mean(p_values <= share) - share) < 4 * error, share


def test_p_values_of_fresh_rows_are_uniform(fitted, fitted_with_gaps):
    rows = rows_of(1000, 5)
    check_uniform(fitted.p_values(rows), 700)
    check_uniform(fitted_with_gaps.p_values(with_gaps(rows, 6)), 700)


@pytest.mark.parametrize("gaps", [[], [0], [0, 1], [2]])
def test_p_values_are_uniform_whatever_is_missing(fitted_with_gaps, gaps):
    """Each pattern by itself, so that none is odd for what it lacks; a row's errors are many times less without two."""
    rows = rows_of(700, 9)
    rows[:, gaps] = np.nan
    check_uniform(fitted_with_gaps.p_values(rows), 200)


@pytest.mark.filterwarnings("ignore:Expected")
def test_each_calibration_score_is_of_a_flow_that_has_not_seen_the_row(monkeypatch):
    trained, scored = [], []
    train, score = outliers.train, _noise_levels._log_errors
    monkeypatch.setattr(outliers, "train", lambda points, *args: trained.append(points) or train(points, *args))
    monkeypatch.setattr(
        _noise_levels, "_log_errors", lambda f, points, off: scored.append(points) or score(f, points, off)
    )
    rows = rows_of(60, 0)[:, :3]
    FlowOutlierDetector(max_iter=2, random_state=0).fit(rows)
    assert len(trained) == len(scored) == 5
    for seen, unseen in zip(trained, scored, strict=True):
        assert len(np.unique(np.concatenate([seen, unseen]), axis=0)) == len(seen) + len(unseen) == 60
    assert len(np.unique(np.concatenate(scored), axis=0)) == 60


@pytest.mark.filterwarnings("ignore:Expected columns that vary")
@pytest.mark.parametrize("contamination, share", [("auto", 0.01), (0.05, 0.05), (0.3, 0.3), (0.5, 0.5)])
def test_offset_predict_and_p_values_agree(contamination, share):
    detector = FlowOutlierDetector(contamination=contamination, max_iter=20, random_state=0).fit(rows_of(300, 0))
    rows = np.concatenate([rows_of(500, 1), [ODD["far"]]])
    is_odd = detector.predict(rows) == -1
    assert np.array_equal(is_odd, detector.p_values(rows) <= share)
    assert np.array_equal(is_odd, detector.score_samples(rows) < detector.offset_)
    assert np.array_equal(is_odd, detector.decision_function(rows) < 0)
    assert is_odd[-1] and abs(is_odd.mean() - share) < 0.1
    assert abs(np.mean(detector.calibration_ <= detector.offset_) - share) < 2 / 300


@pytest.mark.parametrize("contamination", [0, 0.51, -1, "some", None, True, float("nan")])
def test_contamination_is_a_share(contamination):
    with pytest.raises(ValueError, match="Expected contamination"):
        FlowOutlierDetector(contamination=contamination).fit(rows_of(20, 0))


@pytest.mark.parametrize("wrong", [{"missing": "model"}, {"columns": "all"}, {"max_iter": 0}, {"max_seconds": -1}])
def test_parameters_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="Expected .*; try"):
        FlowOutlierDetector(**wrong).fit(rows_of(20, 0))


def test_few_rows_are_said_to_be_few():
    rows = rows_of(98, 0)[:, :3]
    with pytest.warns(UserWarning, match="got 98: no p-value is 0.01 or less"):
        detector = FlowOutlierDetector(max_iter=2, random_state=0).fit(rows)
    assert detector.offset_ == -np.inf and (detector.predict(1e3 * rows) == 1).all()
    with pytest.warns(UserWarning, match="got 6: p-values are multiples of 1/7"):
        few = FlowOutlierDetector(max_iter=2, contamination=0.1, random_state=0).fit(rows[:6])
    assert few.offset_ == few.calibration_.min()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enough = FlowOutlierDetector(max_iter=2, random_state=0).fit(rows_of(99, 0)[:, :3])
        FlowOutlierDetector(max_iter=2, contamination=0.1, random_state=0).fit(rows)
    # Of 99 and the row itself a hundredth is the row itself.
    assert enough.offset_ == enough.calibration_.min() and (enough.predict([[1e3, 1e3, 1e3]]) == -1).all()


def test_constant_columns_are_named_once():
    frame = pd.DataFrame(rows_of(120, 0), columns=["a", "b", "c", "fixed"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        detector = FlowOutlierDetector(max_iter=2, random_state=0).fit(frame)
    assert [str(one.message) for one in said if "'fixed'" in str(one.message)] == [
        str(one.message) for one in said if issubclass(one.category, UserWarning)
    ]
    assert len(said) == 1 and detector.facts_["constant"] == ["fixed"]


def test_a_file_brings_the_same_scores(tmp_path, fitted, fitted_with_gaps):
    for detector, rows in ((fitted, rows_of(50, 3)), (fitted_with_gaps, with_gaps(rows_of(50, 3), 4))):
        detector.save(tmp_path / "detector")
        loaded = FlowOutlierDetector.load(tmp_path / "detector")
        assert np.array_equal(loaded.score_samples(rows), detector.score_samples(rows))
        assert np.array_equal(loaded.p_values(rows), detector.p_values(rows))
        assert loaded.offset_ == detector.offset_ and loaded.get_params() == detector.get_params()
        assert np.array_equal(loaded.calibration_, detector.calibration_)
        assert loaded.n_features_in_ == 4 and len(loaded.flows_) == len(detector.flows_)
        with pytest.raises(CheckpointError, match="FlowOutlierDetector.load"):
            FlowDensity.load(tmp_path / "detector")
    with pytest.raises(CheckpointError, match="Expected a model of FlowOutlierDetector"):
        rows = rows_of(100, 0)[:, :1]
        FlowDensity(max_iter=2, width=8, depth=1, preprocess="standardize").fit(rows).save(tmp_path / "density")
        FlowOutlierDetector.load(tmp_path / "density")


@pytest.mark.filterwarnings("ignore:Expected")
def test_one_seed_one_fit_to_the_bit():
    rows = rows_of(60, 0)
    first, second, other = (
        FlowOutlierDetector(max_iter=20, random_state=seed).fit(rows).score_samples(rows) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_a_row_has_its_score_whatever_rows_are_beside_it(fitted, fitted_with_gaps):
    for detector, rows in ((fitted, rows_of(300, 7)), (fitted_with_gaps, with_gaps(rows_of(100, 7), 8))):
        scores = detector.score_samples(rows)
        assert np.array_equal(scores[[5, 17]], detector.score_samples(rows[[5, 17]]))
        assert np.array_equal(scores[::-1], detector.score_samples(rows[::-1]))


EDGES = {
    "constant": np.ones((30, 3)),
    "collinear": np.outer(np.arange(30.0), [1.0, -2.0, 5.0]),
    "more columns than rows": np.random.default_rng(0).normal(size=(20, 25)),
    "nearly constant": 1e6 + 1e-5 * np.random.default_rng(0).normal(size=(30, 3)),
    "all equal but one": np.eye(1, 90).reshape(30, 3),
    "one column": np.random.default_rng(0).normal(size=(30, 1)),
    "two rows": np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 4.0]]),
    "huge and tiny": np.random.default_rng(0).normal(size=(30, 3)) * [1e300, 1e-300, 1.0],
    "whole numbers": np.random.default_rng(0).integers(0, 3, size=(30, 3)),
    "yes and no": np.random.default_rng(0).random((30, 3)) < 0.5,
}


@pytest.mark.filterwarnings("ignore:Expected")
@pytest.mark.parametrize("kind", EDGES)
def test_every_table_is_taken(kind):
    rows = EDGES[kind]
    detector = FlowOutlierDetector(max_iter=20, contamination=0.1, random_state=0).fit(rows)
    scores, odd = detector.score_samples(rows), np.asarray(rows[:1], float) * 3 + 1e4
    assert np.isfinite(scores).all() and len(detector.calibration_) == len(rows)
    if kind != "yes and no":
        assert detector.score_samples(odd)[0] < scores.min()
        assert detector.p_values(odd)[0] == 1 / (len(rows) + 1)


@pytest.mark.parametrize("bad, said", [(np.inf, "infinity in row 7, column 1"), (np.nan, "NaN in row 7, column 1")])
def test_cells_that_are_no_numbers_are_named(fitted, bad, said):
    rows = rows_of(30, 0)
    rows[7, 1] = bad
    for refuses in (FlowOutlierDetector(max_iter=2).fit, fitted.score_samples):
        with pytest.raises(DataError, match=said):
            refuses(rows)


def test_rows_of_weight_zero_are_left_out():
    rows, junk = rows_of(110, 0)[:, :3], 1e5 + rows_of(40, 1)[:, :3]
    detector = FlowOutlierDetector(max_iter=5, random_state=0)
    alone = clone(detector).fit(rows)
    beside = clone(detector).fit(np.concatenate([rows, junk]), sample_weight=np.repeat([2.0, 0.0], [110, 40]))
    assert np.array_equal(alone.score_samples(junk), beside.score_samples(junk))


def test_rows_count_by_their_weight_in_scale_and_training():
    rows, weight = np.random.default_rng(0).normal(size=(200, 2)) + 3, np.repeat([3.0, 1.0], 100)
    repeated = np.concatenate([rows, rows[:100], rows[:100]])
    link, of_copies = (fit_frame(*pair)[0].links[0] for pair in ((rows, weight), (repeated, np.ones(400))))
    np.testing.assert_allclose(link.loc, of_copies.loc)
    np.testing.assert_allclose(link.scale, of_copies.scale)
    flows = [
        train(rows, w, Build(FlowSpec(2, width=16, depth=1)), Budget(20), 0)[0] for w in (weight, 2 * weight, weight**2)
    ]
    first, scaled, other = (evaluation.path_errors(flow, rows, rows[:1] * 0, np.array([0.5])) for flow in flows)
    assert np.array_equal(first, scaled) and not np.array_equal(first, other)


@pytest.mark.parametrize("num", [30, 1500, 4000])
def test_equal_rows_are_in_one_part(num):
    rows = np.random.default_rng(0).normal(size=(num, 2))
    rows = np.concatenate([rows, rows[: num // 2]])
    parts = parts_of(*in_random_order(rows, 0))
    part_of = np.full(len(rows), -1)
    for k, part in enumerate(parts):
        assert (part_of[part] == -1).all()
        part_of[part] = k
    assert np.array_equal(part_of[: num // 2], part_of[num:])
    assert len(parts) == {30: 5, 1500: 3, 4000: 1}[num] and (part_of[:num] == 0).mean() == pytest.approx(
        {30: 0.2, 1500: 1 / 3, 4000: 0.1}[num]
    )


def test_flows_are_of_the_size_that_others_are():
    """Also with gaps, where they are told what is known; steps grow with rows and columns."""
    assert (spec_of(23, False).width, spec_of(24, True).width, spec_of(3, True).cond_shape) == (64, 256, (3,))
    assert [steps_of(1999, 30), steps_of(2000, 23), steps_of(2000, 24)] == [1500, 2500, 3000]


def test_columns_that_repeat_a_value_are_no_wider_than_a_sixth_of_their_range():
    rows = np.zeros((1000, 2))
    rows[:10, 0], rows[:, 1] = 6.0, np.random.default_rng(0).normal(size=1000)
    points = fit_frame(rows, np.ones(1000))[0].encode(rows)[0]
    assert np.ptp(points[:, 0]) == pytest.approx(6.0) and points[:, 1].std() == pytest.approx(1.0)


def frames(num: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    kind = rng.choice(["cat", "dog", "hen"], num, p=[0.5, 0.3, 0.2])
    size = np.select([kind == "cat", kind == "dog"], [1.0, 3.0], 0.0) + 0.2 * rng.normal(size=num)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, num), unit="D")
    return pd.DataFrame(
        {"kind": kind, "size": size, "flies": kind == "hen", "legs": 4 - 2 * (kind == "hen"), "seen": days}
    )


@pytest.mark.parametrize("library", [pd, pl])
def test_frames_with_levels(tmp_path, library):
    of = (lambda frame: frame) if library is pd else pl.from_pandas
    detector = FlowOutlierDetector(max_iter=300, contamination=0.02, random_state=0).fit(of(frames(600, 0)))
    odd = frames(5, 1)
    odd["kind"] = ["cat", "dog", "cat", "horse", "cat"]
    odd["size"], odd["flies"], odd["legs"] = [1.0, 3.0, 3.0, 1.0, 1.0], [False, False, False, False, True], 4
    with pytest.warns(UserWarning, match="'horse' in row 3, column 'kind': they are unlike all others"):
        assert detector.predict(of(odd)).tolist() == [1, 1, -1, -1, -1]
    odd["kind"], odd["legs"] = "cat", [4, 5, 100, 4, -40]
    odd["flies"], odd["size"] = False, 1.0
    assert detector.predict(of(odd)).tolist()[2:] == [-1, 1, -1]
    assert list(detector.feature_names_in_) == ["kind", "size", "flies", "legs", "seen"]
    detector.save(tmp_path / "frames")
    fresh = of(frames(50, 2))
    assert np.array_equal(
        FlowOutlierDetector.load(tmp_path / "frames").score_samples(fresh), detector.score_samples(fresh)
    )
    declared = FlowOutlierDetector(max_iter=2, random_state=0, columns={"legs": "category"}).fit(of(frames(120, 0)))
    assert declared.facts_["levels_of"]["columns"] == detector.facts_["levels_of"]["columns"] + 1


def test_rows_with_gaps_are_judged_by_what_is_known(fitted_with_gaps):
    known, nan = [1.5, -1.5, 0.5, 5.0], np.nan
    rows = [known, [nan, -1.5, 0.5, 5.0], [1.5, nan, 0.5, 5.0], [nan, 9.0, 0.5, 5.0], [nan, nan, 0.5, 7.0], [nan] * 4]
    assert fitted_with_gaps.predict(rows).tolist() == [-1, 1, 1, -1, -1, 1]
    assert fitted_with_gaps.p_values(rows)[-1] > 0.9
    # Beyond all others a row is the odder the further it is.
    far = fitted_with_gaps.score_samples([[nan, 900.0, 0.5, 5.0], [nan, 90.0, 0.5, 5.0], [nan, 9.0, 0.5, 5.0]])
    assert (np.diff([*far, fitted_with_gaps.calibration_.min()]) > 0).all()


def test_rows_with_gaps_are_judged_beside_rows_that_know_as_much(fitted_with_gaps):
    levels, pattern = fitted_with_gaps.noise_levels_, np.array([True, False, True, True])
    beside = levels._beside(pattern)
    assert len(beside) == len(np.unique(beside)) == 200 and not np.isnan(levels.rows[beside][:, pattern]).any()
    # Where few know as much, they and others that lack fewest.
    few = dataclasses.replace(levels, rows=np.where(np.arange(700)[:, None] % 70, levels.rows * [1, 1, np.nan, 1], 0.0))
    beside = few._beside(np.array([False, False, True, True]))
    assert len(beside) == 50 and set(range(0, 700, 70)) <= set(beside.tolist())


def test_gaps_come_where_the_fit_had_some(fitted):
    rows = rows_of(110, 0)[:, :3]
    detector = FlowOutlierDetector(max_iter=2, missing="ignore", random_state=0).fit(rows)
    alike = FlowOutlierDetector(max_iter=2, random_state=0).fit(rows)
    assert np.array_equal(detector.score_samples(rows), alike.score_samples(rows))
    rows[3, 2] = np.nan
    with pytest.raises(DataError, match="got one in row 3, column '2'"):
        detector.score_samples(rows)


# How many steps a limit leaves is the machine's.
@pytest.mark.filterwarnings("ignore:max_seconds")
def test_a_time_limit_ends_a_fit():
    detector = FlowOutlierDetector(max_iter=10**7, max_seconds=1.0, contamination=0.1, random_state=0)
    assert detector.fit(rows_of(40, 0)[:, :3]).facts_["seconds"] < 60


@pytest.mark.parametrize("has_gaps", [False, True])
def test_path_errors_are_those_of_the_formula(has_gaps):
    """Of a flow at the Gaussian field, ``(2 t - 1) x / (t^2 + (1 - t)^2)``, in closed form; gaps do not count."""
    flow = Build(spec_of(3, has_gaps))(jax.random.key(0))
    rng = np.random.default_rng(0)
    rows, x0, times = rng.normal(size=(70, 3)), rng.normal(size=(8, 3)), np.linspace(0.1, 0.9, 8)
    known = rng.random((70, 3)) < (0.6 if has_gaps else 1.1)
    t = times[:, None]
    place = (1 - t) * x0 + t * rows[:, None]
    errors = (rows[:, None] - x0 - (2 * t - 1) * place / (t**2 + (1 - t) ** 2)) ** 2
    expected = (errors * known[:, None]).sum(-1).reshape(70, 4, 2).mean(2)
    condition = known.astype(float) if has_gaps else None
    found = evaluation.path_errors(flow, rows * known, x0, times, 4, condition)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Expected")
def test_equal_rows_have_p_values_that_are_as_rare_as_they_say():
    """Rows of which a level alone is known: one like the rarest is as odd as those are many, and so on."""
    rng = np.random.default_rng(0)
    number, level = rng.normal(size=(300, 1)), rng.choice(3, size=300, p=[0.6, 0.3, 0.1])
    table = pd.DataFrame({"a": number[:, 0], "b": 2 * number[:, 0], "level": np.array(["x", "y", "z"])[level]})
    table.loc[rng.random(300) < 0.3, ["a", "b"]] = np.nan
    detector = FlowOutlierDetector(missing="ignore", contamination=0.05, **FAST).fit(table)
    p_values = detector.p_values(pd.DataFrame({"a": [np.nan] * 3, "b": [np.nan] * 3, "level": ["x", "y", "z"]}))
    shares = np.bincount(level) / 300
    # Which rows are beside a row is a draw among those of the fit: by interpolation, up to a row or two.
    np.testing.assert_allclose(p_values, [1.0, shares[1] + shares[2], shares[2]], atol=0.04)


def test_steps_are_those_that_were_made():
    with pytest.warns(UserWarning, match="left time for . steps of training of a flow, of 150"):
        detector = FlowOutlierDetector(max_seconds=1e-3, contamination=0.1, **FAST).fit(rows_of(100, 0)[:, :3])
    assert detector.n_iter_ == detector.facts_["steps"] < 10

"""Files of several kinds of columns: read as the frame that pandas reads, fitted, drawn and scored from the shell."""

import numpy as np
import pandas as pd
import pytest

from liouville import FlowDensity
from liouville._errors import DataError
from liouville.data import read_table, write_table
from test_cli import run

TINY = {"max_iter": 30, "width": 8, "depth": 1, "preprocess": "standardize", "random_state": 0}
SETTINGS = [f"--set={name}={value}" for name, value in TINY.items() if name != "random_state"]


def table(num: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    amount = np.where(rng.random(num) < 0.3, 0.0, rng.lognormal(size=num))
    return pd.DataFrame(
        {
            "kind": rng.choice(["a", "b, c", 'the "d"'], num),
            "code": rng.choice(["1", "2", "3x", "4y", "5z"], num),
            "count": rng.poisson(30, num),
            "is_new": rng.random(num) < 0.3,
            "day": (pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 90, num), "D")).strftime("%Y-%m-%d"),
            "hour": (pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 90, num), "h")).astype(str),
            "at": rng.choice(["10:30", "11:00"], num),
            "amount": amount,
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet"])
def test_a_file_is_the_table_of_its_frame(tmp_path, suffix):
    frame, path = table(), tmp_path / f"t{suffix}"
    write_table(path, frame)
    if suffix == ".csv":
        again = pd.read_csv(path)
        pd.testing.assert_frame_equal(again, frame, check_exact=False, rtol=1e-15)
    read = read_table(path).frame()
    by_file, by_frame = FlowDensity(**TINY).fit(read), FlowDensity(**TINY).fit(frame)
    kinds = lambda density: [(f.column, f.levels, f.unit) for f in density.columns_.fields]
    assert kinds(by_file) == kinds(by_frame)
    np.testing.assert_array_equal(by_file.score_samples(read), by_frame.score_samples(frame))
    # Each takes what the other was fitted on.
    np.testing.assert_array_equal(by_file.score_samples(frame), by_frame.score_samples(read))


def test_text_and_dates_from_file_to_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = table()
    frame.to_csv(tmp_path / "t.csv", index=False)
    fit = ["fit", "t.csv", "-o", "m.safetensors", "-q", *SETTINGS, "--column", "count=grid:1", "--drop", "at"]
    run(*fit, "--column", "amount=positive")
    run("sample", "m.safetensors", "-n", "40", "--seed", "0", "-o", "s.csv")
    drawn = pd.read_csv(tmp_path / "s.csv")
    assert list(drawn.columns) == [name for name in frame.columns if name != "at"]
    assert (drawn.dtypes == frame[drawn.columns].dtypes).all()
    assert set(drawn["kind"]) <= set(frame["kind"]) and set(drawn["code"]) <= set(frame["code"])
    # Digits alone are text still, where the model's levels are text.
    drawn[drawn["code"].isin(["1", "2"])].to_csv(tmp_path / "s.csv", index=False)
    run("score", "m.safetensors", "s.csv", "-o", "l.csv")
    assert np.isfinite(pd.read_csv(tmp_path / "l.csv")["log_prob"]).all()
    said = run("evaluate", "m.safetensors", "t.csv").stdout
    assert "independent columns" in said and "flow" in said
    fitted = FlowDensity.load(tmp_path / "m.safetensors")
    assert [f.why for f in fitted.columns_.fields if f.name in ("count", "amount")] == ["as declared"] * 2


def test_what_a_format_or_a_kind_cannot_be_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = table(60)
    frame.to_csv(tmp_path / "t.csv", index=False)
    FlowDensity(**TINY).fit(frame).save(tmp_path / "m.safetensors")
    said = run("sample", "m.safetensors", "-o", "s.npy", code=2).stderr
    assert "numbers alone for s.npy" in said and "'kind'" in said
    for kind, words in (("count", "NAME=KIND"), ("count=grid:x", "NAME=KIND"), ("count=foo", "kind among")):
        code = 1 if kind == "count=foo" else 2
        assert words in run("fit", "t.csv", "-o", "n", "--column", kind, code=code).stderr
    with pytest.raises(DataError, match="got other cells in columns 'kind', 'code', 'day', 'hour', 'at'; try frame"):
        _ = read_table(tmp_path / "t.csv").values


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1.5", "2", "x"], "'x' in row 2, column 'a'"),
        (["x", "2", "3"], "'x' in row 0, column 'a'"),
        (["10:30", "11:45", "12"], None),
        (["x", "y", "3"], None),
        (["2020-01-31", "2020-02-30", "2020-03-01"], None),
    ],
)
def test_text_among_numbers_is_refused_and_numbers_among_text_are_text(tmp_path, cells, words):
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{cell},1\n" for cell in cells))
    if words is None:
        assert read_table(tmp_path / "t.csv").frame()["a"].to_pylist() == cells
    else:
        with pytest.raises(DataError, match=words):
            read_table(tmp_path / "t.csv")


def test_codes_of_digits_are_read_as_text_where_the_user_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = np.random.default_rng(0).choice(["00501", "A2138", "10001"], 60)
    pd.DataFrame({"zip": codes}).to_csv("t.csv", index=False)
    assert "--column name=category" in run("fit", "t.csv", "-o", "m", *SETTINGS, code=1).stderr
    run("fit", "t.csv", "-o", "m", *SETTINGS, "--column", "zip=category")
    assert FlowDensity.load("m").columns_.fields[0].levels == ("00501", "10001", "A2138")
    run("sample", "m", "-n", "5", "-o", "s.csv")
    assert set(pd.read_csv("s.csv", dtype=str)["zip"]) <= set(codes)


def test_gaps_and_conditionals_from_file_to_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = table()[["kind", "count", "amount"]]
    holes = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.2)
    holes["count"] = holes["count"].astype("Int64")
    holes.to_csv("t.csv", index=False)
    assert "--missing" in run("fit", "t.csv", "-o", "m.safetensors", "-q", *SETTINGS, code=1).stderr
    run("fit", "t.csv", "-o", "m.safetensors", "-q", *SETTINGS, "--missing", "ignore")
    density = FlowDensity.load("m.safetensors")
    read = read_table("t.csv", gaps=True).frame()
    run("score", "m.safetensors", "t.csv", "-o", "scores.csv")
    scores = pd.read_csv("scores.csv")["log_prob"]
    np.testing.assert_allclose(scores, density.score_samples(read), rtol=1e-12)
    run("impute", "m.safetensors", "t.csv", "-o", "full.csv", "--seed", "0")
    full = pd.read_csv("full.csv")
    assert not full.isna().any(axis=None) and (full["count"] % 1 == 0).all()
    for name in holes:
        is_there = holes[name].notna()
        assert full.loc[is_there, name].tolist() == holes.loc[is_there, name].tolist()
    run("impute", "m.safetensors", "t.csv", "-o", "two.csv", "--seed", "0", "--draws", "2")
    two = pd.read_csv("two.csv")
    assert two.groupby("draw").size().tolist() == [300, 300]
    pd.testing.assert_frame_equal(two[two["draw"] == 0].drop(columns="draw"), full)
    # What a file does not have is drawn, too; what is not asked for need not be there.
    frame[["amount"]].head(20).to_csv("some.csv", index=False)
    run("sample", "m.safetensors", "--given", "some.csv", "-o", "drawn.csv")
    drawn = pd.read_csv("drawn.csv")
    assert list(drawn.columns) == list(frame.columns) and np.array_equal(drawn["amount"], frame["amount"].head(20))
    frame[["kind", "amount"]].to_csv("pair.csv", index=False)
    run("score", "m.safetensors", "pair.csv", "--target", "kind", "--given", "amount", "-o", "of_kind.csv")
    expected = density.log_prob(read_table("pair.csv").frame(), target=["kind"], given=["amount"])
    np.testing.assert_allclose(pd.read_csv("of_kind.csv")["log_prob"], expected, rtol=1e-12)
    run("score", "m.safetensors", "some.csv", "--target", "amount", "--draws", "4", "-o", "marginal.csv")
    assert (pd.read_csv("marginal.csv")["std_error"] >= 0).all()
    run("plot", "m.safetensors", "-o", "corner.png", "--data", "t.csv")
    assert "independent columns" in run("evaluate", "m.safetensors", "t.csv").stdout
    assert "--given" in run("sample", "m.safetensors", "--given", "some.csv", "-n", "3", code=2).stderr
    run("fit", "pair.csv", "-o", "plain.safetensors", "-q", *SETTINGS)
    assert "conditionals=True" in run("impute", "plain.safetensors", "pair.csv", code=1).stderr
    run("fit", "t.csv", "-o", "gaps.safetensors", "-q", *SETTINGS, "--missing", "model")
    run("sample", "gaps.safetensors", "-n", "200", "--seed", "0", "-o", "holes.csv")
    assert pd.read_csv("holes.csv").isna().any().all()

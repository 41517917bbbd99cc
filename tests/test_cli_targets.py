"""Targets given rows, and outliers, on the command line."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from typer.testing import CliRunner

from liouville import ConditionalFlowDensity, FlowOutlierDetector
from liouville.cli import app

FAST = ["--set", "max_iter=20", "--quiet"]
SMALL = [*FAST, "--set", "width=8", "--set", "depth=1", "--set", "preprocess=standardize", "--set", "front=none"]


def run(*args, code: int = 0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a table, a model of one of its columns, and one of its outliers."""
    folder = tmp_path_factory.mktemp("targets")
    rng = np.random.default_rng(0)
    kind, size = rng.choice(["a", "b"], 300), rng.normal(size=300)
    price = 3 * size + (kind == "a") + rng.normal(size=300)
    csv.write_csv(pa.table({"price": price, "kind": kind, "size": size}), folder / "table.csv")
    csv.write_csv(pa.table({"kind": kind, "size": size}), folder / "rows.csv")
    run("fit", folder / "table.csv", "--target", "price", "-o", folder / "model.safetensors", *SMALL)
    run("fit", folder / "table.csv", "--outliers", "-o", folder / "odd.safetensors", *FAST)
    return folder


def test_predictions_are_those_of_python(folder, tmp_path):
    table, model = folder / "table.csv", folder / "model.safetensors"
    run("predict", model, table, "--quantiles", "0.05,0.5", "--quantiles", "0.95", "-o", tmp_path / "found.csv")
    found, rows = csv.read_csv(tmp_path / "found.csv"), csv.read_csv(table).select(["kind", "size"])
    density = ConditionalFlowDensity.load(model)
    assert found.column_names == ["mean", "q0.05", "q0.5", "q0.95"]
    np.testing.assert_array_equal(found["mean"], density.predict(rows))
    quantiles = density.predict_quantiles(rows, [0.05, 0.5, 0.95])
    np.testing.assert_array_equal(np.stack([found[name] for name in found.column_names[1:]], axis=1), quantiles)
    assert run("predict", model, table).stdout.splitlines()[0] == "mean"
    # In any order, each under its own name.
    run("predict", model, table, "--quantiles", "0.95,0.05", "-o", tmp_path / "turned.csv")
    turned = csv.read_csv(tmp_path / "turned.csv")
    assert turned.column_names == ["mean", "q0.95", "q0.05"] and turned["q0.95"] == found["q0.95"]


def test_scores_of_targets_are_those_of_python(folder, tmp_path):
    table, model = folder / "table.csv", folder / "model.safetensors"
    run("score", model, table, "-o", tmp_path / "found.csv")
    rows, density = csv.read_csv(table), ConditionalFlowDensity.load(model)
    scores = density.log_prob(rows.select(["kind", "size"]), rows["price"].to_numpy())
    np.testing.assert_array_equal(csv.read_csv(tmp_path / "found.csv")["log_prob"], scores)
    # Columns are found by name, in any order, and others are left alone.
    csv.write_csv(rows.select(["size", "price", "kind"]).append_column("more", rows["size"]), tmp_path / "other.csv")
    run("score", model, tmp_path / "other.csv", "-o", tmp_path / "again.csv")
    np.testing.assert_array_equal(csv.read_csv(tmp_path / "again.csv")["log_prob"], scores)


def test_outliers_are_those_of_python(folder, tmp_path):
    table, model = folder / "table.csv", folder / "odd.safetensors"
    run("outliers", model, table, "-o", tmp_path / "found.csv")
    found, rows, detector = csv.read_csv(tmp_path / "found.csv"), csv.read_csv(table), FlowOutlierDetector.load(model)
    np.testing.assert_array_equal(found["score"], detector.score_samples(rows))
    np.testing.assert_array_equal(found["p_value"], detector.p_values(rows))
    np.testing.assert_array_equal(found["label"], detector.predict(rows))


def test_columns_and_kinds_of_targets(folder, tmp_path):
    table, model = folder / "table.csv", tmp_path / "model.safetensors"
    kinds = ["--column", "size=continuous", "--column", "kind=category"]
    run("fit", table, "--target", "kind,price", "--columns", "size", *kinds, "-o", model, *SMALL)
    density = ConditionalFlowDensity.load(model)
    assert list(density.feature_names_in_) == ["size"]
    assert [field.name for field in density.target_columns_.fields] == ["kind", "price"]
    assert re.search(r"targets\n  kind +category of 2 levels.*\n  price +continuous", run("info", model).stdout)
    assert "Expected targets that are numbers" in run("predict", model, table, code=1).stderr


def test_draws_of_targets_are_those_of_python(folder, tmp_path):
    rows, model = folder / "rows.csv", folder / "model.safetensors"
    run("sample", model, "--given", rows, "--seed", 3, "-n", 2, "-o", tmp_path / "two.csv")
    found, density = csv.read_csv(tmp_path / "two.csv"), ConditionalFlowDensity.load(model)
    assert found.column_names == ["draw", "price"]
    np.testing.assert_array_equal(found["draw"], np.repeat([0, 1], 300))
    np.testing.assert_array_equal(found["price"], density.sample(csv.read_csv(rows), 2, random_state=3).ravel())
    one = run("sample", model, "--given", rows, "--seed", 3).stdout.splitlines()
    assert one[0] == "price" and [float(cell) for cell in one[1:]] == found["price"].to_pylist()[:300]


@pytest.mark.parametrize("kind", [[], ["--column", "kind"], ["--kind", "pit"], ["--kind", "posterior"]])
def test_pictures_of_targets(folder, tmp_path, kind):
    run("plot", folder / "model.safetensors", "--data", folder / "table.csv", "-o", tmp_path / "found.png", *kind)
    assert (tmp_path / "found.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["fit", "table.csv", "--target", "prize", "-o", "x", *SMALL], 1, "did you mean 'price'?"),
        (["fit", "table.csv", "--target", "price,kind,size", "-o", "x", *SMALL], 1, "try fewer targets"),
        (["fit", "table.csv", "--target", "price", "--outliers", "-o", "x"], 2, "try one of them"),
        (["fit", "table.csv", "--target", "price", "--conditionals", "-o", "x"], 2, "no conditionals"),
        (["fit", "table.csv", "--outliers", "--recipe", "ffjord", "-o", "x"], 2, "no recipe"),
        (["predict", "model.safetensors", "table.csv", "--quantiles", "5"], 2, "above 0 and below 1"),
        (["predict", "model.safetensors", "table.csv", "--quantiles", "low"], 2, "above 0 and below 1"),
        (
            ["predict", "odd.safetensors", "table.csv"],
            1,
            "one of outliers (fit --outliers) in odd.safetensors; try lio",
        ),
        (["outliers", "model.safetensors", "table.csv"], 1, "try liouville predict, score, sample or plot"),
        (["plot", "model.safetensors", "-o", "x.png"], 2, "Expected --data with rows and targets for --kind fan"),
        (
            ["plot", "model.safetensors", "-o", "x.png", "--kind", "corner"],
            2,
            "Expected --kind fan or pit or posterior",
        ),
        (["plot", "model.safetensors", "-o", "x.png", "--data", "rows.csv"], 1, "got none called 'price'"),
        (["impute", "model.safetensors", "rows.csv"], 1, "Expected a model of a table or pictures, got one of targets"),
        (["score", "model.safetensors", "table.csv", "--target", "price"], 2, "Expected no --target"),
        (["score", "model.safetensors", "table.csv", "--error", "0.1"], 2, "Expected no --error"),
        (["score", "model.safetensors", "rows.csv"], 1, "got none called 'price'"),
        (["sample", "model.safetensors", "-n", "3"], 2, "Expected --given with rows"),
        (["sample", "odd.safetensors", "-n", "3"], 1, "try liouville outliers"),
    ],
)
def test_failures_are_one_line_and_a_code(folder, monkeypatch, arguments, code, words):
    monkeypatch.chdir(folder)
    result = run(*arguments, code=code)
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr

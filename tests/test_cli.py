"""The command line as its users meet it: files in, files out, one line and an exit code on failure."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.csv as csv
import pytest
from typer.testing import CliRunner

from liouville import FlowDensity
from liouville.cli import app

FAST = ["--set", "max_iter=20", "--set", "width=8", "--set", "depth=1", "--set", "preprocess=whiten", "--quiet"]
NAMES = ["height", "weight"]


def run(*args, code: int = 0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a table and a model of it."""
    folder = tmp_path_factory.mktemp("cli")
    rows = np.random.default_rng(0).normal(size=(300, 2)) @ np.array([[10.0, 5.0], [0.0, 8.0]]) + [170, 70]
    np.savetxt(folder / "people.csv", rows, delimiter=",", header=",".join(NAMES), comments="")
    run("fit", folder / "people.csv", "-o", folder / "model.safetensors", *FAST)
    return folder


def test_the_file_is_the_model_of_python(folder):
    density, table = FlowDensity.load(folder / "model.safetensors"), csv.read_csv(folder / "people.csv")
    again = FlowDensity(max_iter=20, width=8, depth=1, preprocess="whiten", random_state=0).fit(table)
    np.testing.assert_array_equal(density.score_samples(table), again.score_samples(table))
    assert list(density.feature_names_in_) == NAMES


def test_score_to_a_file_and_to_standard_output(folder, tmp_path):
    printed = run("score", folder / "model.safetensors", folder / "people.csv").stdout.splitlines()
    run("score", folder / "model.safetensors", folder / "people.csv", "-o", tmp_path / "scores.parquet")
    import pyarrow.parquet as parquet

    scores = parquet.read_table(tmp_path / "scores.parquet")["log_prob"].to_numpy()
    assert printed[0] == "log_prob"
    np.testing.assert_array_equal(np.array(printed[1:], float), scores)
    density = FlowDensity.load(folder / "model.safetensors")
    np.testing.assert_array_equal(scores, density.score_samples(csv.read_csv(folder / "people.csv")))


def test_an_error_that_is_good_enough(folder, tmp_path):
    table, model = folder / "people.csv", folder / "model.safetensors"
    run("score", model, table, "--error", "1e-3", "-o", tmp_path / "scores.npy")
    density = FlowDensity.load(model)
    np.testing.assert_array_equal(
        np.load(tmp_path / "scores.npy").ravel(), density.score_samples(csv.read_csv(table), error=1e-3)
    )
    run("sample", model, "-n", "20", "--seed", "1", "--error", "1e-3", "-o", tmp_path / "rows.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), density.sample(20, random_state=1, error=1e-3))


def test_columns_are_found_by_name_in_any_order(folder, tmp_path):
    table = csv.read_csv(folder / "people.csv")
    csv.write_csv(table.select(NAMES[::-1]).append_column("id", [list(range(300))]), tmp_path / "mixed.csv")
    model = folder / "model.safetensors"
    assert run("score", model, tmp_path / "mixed.csv").stdout == run("score", model, folder / "people.csv").stdout


def test_samples_carry_the_names_and_repeat_by_seed(folder, tmp_path):
    for name in ("a.csv", "b.csv"):
        run("sample", folder / "model.safetensors", "-n", 7, "--seed", 3, "-o", tmp_path / name)
    table = csv.read_csv(tmp_path / "a.csv")
    assert table.column_names == NAMES
    assert table.num_rows == 7
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_version():
    assert run("--version").stdout.startswith("liouville 0.")


def test_info_in_words_and_in_json(folder):
    facts = json.loads(run("info", folder / "model.safetensors", "--json").stdout)
    assert facts["columns"] == NAMES
    assert facts["fit"]["rows"] == 300
    assert facts["parameters"]["max_iter"] == 20
    assert "height, weight" in run("info", folder / "model.safetensors").stdout


def test_evaluate_prints_the_flow_beside_the_baselines(folder):
    lines = run("evaluate", folder / "model.safetensors", folder / "people.csv").stdout.splitlines()
    figures = {
        line[:24].strip(): [float(cell) for cell in line[24:].split()] for line in lines[1:] if line[24:].split()
    }
    assert list(figures) == ["flow", "Gaussian", "Gaussian mixture (BIC)", "kernel density (CV)"]
    for nll, _, bits, _ in figures.values():
        assert bits == pytest.approx(nll / (2 * np.log(2)), abs=2e-3)
    # The data are Gaussian: nobody is far from the truth.
    assert abs(figures["flow"][0] - figures["Gaussian"][0]) < 0.2


@pytest.mark.parametrize("kind", ["density", "corner", "trajectories", "training"])
def test_plots_are_written(folder, tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    run("plot", folder / "model.safetensors", "-o", path, "--kind", kind, "--data", folder / "people.csv")
    assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fit", "none.csv", "-o", "m.safetensors"], 1, "no file at"),
        (["fit", "text.csv", "-o", "m.safetensors"], 1, "'tall' in row 0, column 'height'"),
        (["fit", "people.csv", "-o", "none/m.safetensors"], 1, "Expected a file in a folder"),
        (["fit", "people.csv", "-o", "m.safetensors", "--set", "colour=3"], 2, "Expected KEY=VALUE"),
        (["fit", "people.csv", "-o", "m.safetensors", "--set", "width=wide"], 2, "Expected a value of type int"),
        (["fit", "people.csv", "-o", "m.safetensors", "--objective", "luck"], 2, "Expected objective among"),
        (["score", "people.csv", "people.csv"], 1, "people.csv"),
        (["score", "model.safetensors", "other.csv"], 1, "got none called 'height'"),
        (["sample", "model.safetensors", "-n", "0"], 2, "greater than or equal to 1"),
        (["plot", "model.safetensors", "-o", "picture.txt"], 1, ".png, .pdf or .svg"),
        (["fit", "ragged.csv", "-o", "m.safetensors"], 1, "got 1 in row 1"),
        (["sample", "model.safetensors", "--seed", "-1"], 2, "greater than or equal to 0"),
        (["unknown"], 2, "unknown"),
    ],
)
def test_failures_are_one_line_and_a_code(folder, monkeypatch, arguments, code, words):
    monkeypatch.chdir(folder)
    (folder / "text.csv").write_text("height,weight\ntall,3\n")
    (folder / "ragged.csv").write_text("height,weight\n1,2\n3\n4,5\n")
    (folder / "other.csv").write_text("age,weight\n1,3\n")
    result = run(*arguments, code=code)
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output
    if code == 1:
        assert len(result.stderr.strip().splitlines()) == 1
    assert not (folder / "m.safetensors").exists()


def test_the_installed_command_keeps_data_and_messages_apart(folder):
    command = [sys.executable, "-m", "liouville", "sample", str(folder / "model.safetensors"), "-n", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "height,weight"
    assert len(done.stdout.splitlines()) == 3
    assert not done.stderr

"""The command line as its users meet it: files in, files out, one line and an exit code on failure."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.csv as csv
import pytest
from typer.testing import CliRunner

from liouville import FlowDensity
from liouville.cli import app
from liouville.cli._cache import keep_compiled
from liouville.cli._score import report_failures

FAST = ["--set", "max_iter=20", "--set", "width=8", "--set", "depth=1", "--set", "preprocess=whiten", "--quiet"]
NAMES = ["height", "weight"]


def run(*args, code: int = 0, data: bytes | None = None):
    result = CliRunner().invoke(app, [str(arg) for arg in args], input=data)
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


@pytest.fixture
def wide(folder, tmp_path):
    """A file with the table of the fit beside text, dates and gaps; its second row has a gap in a column of the fit."""
    rows = csv.read_csv(folder / "people.csv").to_pandas()
    rows.insert(0, "name", "Ann")
    rows["note"] = [None, *["x"] * 299]
    rows["day"] = "2020-01-31"
    rows.to_csv(tmp_path / "wide.csv", index=False)
    rows.loc[1, "weight"] = None
    rows.to_csv(tmp_path / "gap.csv", index=False)
    return tmp_path / "wide.csv"


def test_score_evaluate_and_plot_take_what_they_need_of_a_wider_table(folder, wide):
    model, table = folder / "model.safetensors", folder / "people.csv"
    assert run("score", model, wide).stdout == run("score", model, table).stdout
    assert run("evaluate", model, wide).stdout == run("evaluate", model, table).stdout
    run("plot", model, "--data", wide, "-o", wide.with_suffix(".png"), "--kind", "training")
    # Under other names, in the order that is given.
    other = wide.with_name("other.csv")
    other.write_text(wide.read_text().replace("height", "h").replace("weight", "w"))
    assert run("score", model, other, "--columns", "h,w").stdout == run("score", model, table).stdout
    assert run("score", model, other, "--columns", "w", "--columns", "h").stdout != run("score", model, table).stdout
    with pytest.warns(UserWarning, match="left out 1 of 300 rows"):
        run("evaluate", model, wide.with_name("gap.csv"), "--drop-missing")


@pytest.mark.parametrize(
    "how",
    [["--columns", "weight, height"], ["--columns", "weight", "--columns", "height"], ["--drop", "name,note,day"]],
)
def test_columns_of_the_fit_are_chosen_and_gaps_left_out(wide, how):
    model, gap = wide.with_name("m.safetensors"), wide.with_name("gap.csv")
    refused = run("fit", gap, "-o", model, *FAST, code=1).stderr
    assert all(f"column {name!r}" in refused for name in ("weight", "note")) and "'name'" not in refused
    assert "nothing in row 1, column 'weight'" in run("fit", gap, "-o", model, *FAST, *how, code=1).stderr
    with pytest.warns(UserWarning, match="left out 1 of 300 rows"):
        run("fit", gap, "-o", model, *FAST, *how, "--drop-missing")
    density = FlowDensity.load(model)
    assert list(density.feature_names_in_) == (NAMES if how[0] == "--drop" else NAMES[::-1])
    assert density.facts_["rows"] == 299


def test_a_name_with_a_comma_is_quoted(folder, wide):
    named = wide.with_name("named.csv")
    named.write_text(wide.read_text().replace("height", '"height, cm"'))
    scores = run("score", folder / "model.safetensors", named, "--columns", '"height, cm", weight').stdout
    assert scores == run("score", folder / "model.safetensors", folder / "people.csv").stdout


def test_standard_input_and_output(folder, tmp_path):
    model, content = folder / "model.safetensors", (folder / "people.csv").read_bytes()
    scores = run("score", model, folder / "people.csv").stdout
    assert run("score", model, "-", data=content).stdout == scores
    assert run("score", model, "-", "-o", "-", data=gzip.compress(content)).stdout == scores
    assert run("evaluate", model, "-", data=content).stdout == run("evaluate", model, folder / "people.csv").stdout
    (tmp_path / "m.safetensors").write_bytes(run("fit", "-", "-o", "-", *FAST, data=content).stdout_bytes)
    assert run("score", tmp_path / "m.safetensors", folder / "people.csv").stdout == scores
    assert run("sample", model, "-n", 2, "-o", "-").stdout.splitlines()[0] == "height,weight"
    assert run("plot", model, "-o", "-", "--kind", "training").stdout_bytes[:4] == b"\x89PNG"


@pytest.mark.parametrize("steps", [0, 3])
def test_what_an_interrupted_fit_has_learned_is_written(folder, tmp_path, monkeypatch, steps):
    model, fit = tmp_path / "m.safetensors", FlowDensity.fit

    def interrupted(self, X):
        if steps:
            fit(self, X)
        else:
            # Noted before the first step.
            self.n_features_in_ = 2
        (tmp_path / "ck").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(FlowDensity, "fit", interrupted)
    arguments = ["-o", model, *FAST, "--checkpoint", tmp_path / "ck"]
    lines = run("fit", folder / "people.csv", *arguments, code=130).stderr.splitlines()
    assert lines[-1] == f"{tmp_path / 'ck'} keeps what was learned: the same command goes on from there"
    if steps:
        assert lines[-2] == f"liouville: interrupted: saved what was learned so far to {model}"
        assert FlowDensity.load(model).n_features_in_ == 2
    else:
        assert lines[-2] == "liouville: interrupted before the first step: nothing to save"
        assert not model.exists()


def test_a_warning_is_a_line_on_standard_error(folder, tmp_path):
    (tmp_path / "t.csv").write_text("2019,2020\n1,2\n\n3,4\n")
    command = [sys.executable, "-m", "liouville", "score", folder / "model.safetensors", tmp_path / "t.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split(" of ")[0] for line in done.stderr.splitlines()] == [
        "liouville: warning: read the first line",
        "liouville: warning: took 1 blank line between the rows",
    ]
    assert len(done.stdout.splitlines()) == 4


def test_shells_can_complete():
    asked = {"_LIOUVILLE_COMPLETE": "complete_bash", "COMP_WORDS": "liouville fit --drop", "COMP_CWORD": "2"}
    command = [sys.executable, "-m", "liouville"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **asked})
    assert done.stdout.split() == ["--drop", "--drop-missing"]


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


def test_evaluate_of_columns_without_names(folder, tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 2))
    np.save(tmp_path / "rows.npy", rows)
    run("fit", tmp_path / "rows.npy", "-o", tmp_path / "m.safetensors", "-q", "--set", "max_iter=3", "--set", "width=4")
    for more in ([], ["--train", tmp_path / "rows.npy"]):
        lines = run("evaluate", tmp_path / "m.safetensors", tmp_path / "rows.npy", *more).stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["density", "flow", "Gaussian", "Gaussian", "kernel"]
    said = run("evaluate", tmp_path / "m.safetensors", tmp_path / "rows.npy", "--exact", "3", code=2).stderr
    assert "Expected no --exact" in " ".join(said.replace("│", " ").split())


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
        (["fit", "people.csv", "-o", "/proc/m.safetensors"], 1, "got /proc/m.safetensors (No such file or directory)"),
        (["fit", "people.csv", "-o", "."], 1, "Expected a file, got a folder"),
        (["fit", "people.csv", "-o", "m.safetensors", "--checkpoint", "/proc/c"], 1, "got /proc/c"),
        (["fit", "people.csv", "-o", "m.safetensors", "--kind", "image", "--log", "/proc/log"], 1, "/proc/log"),
        (["fit", "people.csv", "-o", "people.csv"], 2, "Expected an output other than what is read"),
        (["fit", "people.csv", "-o", "m.safetensors", "--checkpoint", "people.csv"], 2, "other than what is read"),
        (["fit", "people.csv", "-o", "m.safetensors", "--columns", "hight"], 1, "did you mean 'height'"),
        (["fit", "people.csv", "-o", "m.safetensors", "--kind", "image", "--columns", "a"], 2, "for pictures"),
        (["fit", "people.csv", "-o", "m.safetensors", "--set", "colour=3"], 2, "Expected KEY=VALUE"),
        (["fit", "people.csv", "-o", "m.safetensors", "--set", "max_itr=3"], 2, "(did you mean 'max_iter'?)"),
        (["fit", "people.csv", "-o", "m.safetensors", "--set", "width=wide"], 2, "Expected a value of type int"),
        (["fit", "people.csv", "-o", "m.safetensors", "--objective", "luck"], 2, "Expected objective among"),
        (["score", "people.csv", "people.csv"], 1, "people.csv"),
        (["score", "model.safetensors", "people.csv", "-o", "people.csv"], 2, "other than what is read"),
        (["score", "model.safetensors", "people.csv", "-o", "/proc/s.csv"], 1, "got /proc/s.csv"),
        (["sample", "model.safetensors", "-o", "/proc/s.csv"], 1, "got /proc/s.csv"),
        (["sample", "model.safetensors", "-o", "model.safetensors"], 2, "other than what is read"),
        (["plot", "model.safetensors", "-o", "/proc/s.png"], 1, "got /proc/s.png"),
        (["demo", "-o", "/proc/demo"], 1, "/proc/demo"),
        (["score", "model.safetensors", "gap.csv"], 1, "nothing in row 1, column 'weight' (1 of 2 rows)"),
        (["evaluate", "model.safetensors", "gap.csv"], 1, "nothing in row 1, column 'weight' (1 of 2 rows)"),
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
    (folder / "text.csv").write_text("height,weight\ntall,3\n1.8,70\n")
    (folder / "gap.csv").write_text("height,weight,name\n160,60,Ann\n170,,Bob\n")
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


def test_rows_that_were_not_solved_are_named_with_their_own_fault(capsys):
    report_failures([2], ["solved", "solved", "too many steps"])
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("row 2 was not solved and is nan: too many steps") and "1 of 3 rows" in said[1]


def test_what_was_compiled_is_kept_for_the_next_command(folder, tmp_path):
    cache = tmp_path / "cache" / "liouville"
    free = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = {**free, "XDG_CACHE_HOME": str(cache.parent)}

    def programs(*more) -> set[str]:
        words = ["score", folder / "model.safetensors", folder / "people.csv", *more]
        command = [sys.executable, "-m", "liouville", *map(str, words)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert done.stderr == "" and len(done.stdout.splitlines()) == 301
        return {path.name for path in cache.iterdir()} if cache.exists() else set()

    assert programs("--no-cache") == set()
    first = programs()
    assert any("score_chunk" in name for name in first) and cache.stat().st_mode & 0o777 == 0o700
    assert programs() == first


def test_a_folder_that_others_write_into_is_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "jax")
    (tmp_path / "liouville").mkdir(mode=0o777)
    (tmp_path / "liouville").chmod(0o777)
    keep_compiled()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    (tmp_path / "liouville").chmod(0o700)
    (tmp_path / "liouville" / "old").write_bytes(b"1")
    monkeypatch.setattr("liouville.cli._cache._MOST_BYTES", 0)
    keep_compiled()
    assert os.environ.pop("JAX_COMPILATION_CACHE_DIR") == str(tmp_path / "liouville")
    assert not list((tmp_path / "liouville").iterdir())
    os.environ.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "jax")
    keep_compiled()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ

"""Tables from and to files: what is read, what is refused, and that nothing is lost."""

import os

import numpy as np
import pandas as pd
import pytest

from liouville import DataError
from liouville.data import read_table, write_table

VALUES = np.random.default_rng(0).normal(size=(20, 3)) * [1e-9, 1.0, 1e12]
NAMES = ["a", "b, with comma", "c"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".npz"])
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    write_table(path, VALUES, NAMES)
    table = read_table(path)
    np.testing.assert_array_equal(table.values, VALUES)
    assert table.columns == (NAMES if suffix in (".csv", ".parquet") else ["x0", "x1", "x2"])


def test_files_of_other_writers(tmp_path):
    frame = pd.DataFrame({"count": [1, 2, 3], "flag": [True, False, True], "size": [0.5, 1.5, 2.5]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        table = read_table(tmp_path / name)
        assert table.columns == list(frame.columns)
        np.testing.assert_array_equal(table.values, frame.to_numpy(float))


def test_a_first_line_of_numbers_is_no_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1,2\n3,4\n")
    assert read_table(path).columns == ["x0", "x1"]
    assert len(read_table(path).values) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n3,oops\n", "'oops' in row 1, column 'b'"),
        ("a,b\n1,2\n3,\n", "nothing in row 1, column 'b'"),
        ("a,b\n1,inf\n", "infinity in row 0, column 'b'"),
        ("a,b\n", "got none"),
        ("", "cannot be read"),
        ("a,a\n1,2\n", "'a' twice"),
        ("a;b\n1;2\n", "commas between the cells"),
        ("a,b\n1,2\n3\n", "got 1 in row 1"),
    ],
)
def test_bad_csv_is_named(tmp_path, content, words):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError) as error:
        read_table(path)
    assert words in str(error.value)
    assert "bad.csv" in str(error.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".npz", ".xlsx"])
def test_foreign_bytes_are_refused(tmp_path, suffix):
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(b"\x00\xff\x93not a table\x80" * 50)
    with pytest.raises(DataError, match="foreign"):
        read_table(path)


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2, 2)), np.array([["a", "b"]]), np.zeros((0, 2))])
def test_arrays_that_are_no_tables_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=r"a\.npy"):
        read_table(tmp_path / "a.npy")


def test_a_pickle_is_never_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        read_table(tmp_path / "a.npy")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    write_table(path, VALUES, NAMES)

    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="no space"):
        write_table(path, VALUES + 1, NAMES)
    assert os.listdir(tmp_path) == ["a.npy"]
    np.testing.assert_array_equal(read_table(path).values, VALUES)


def test_targets_are_refused_before_work_is_done(tmp_path):
    with pytest.raises(DataError):
        write_table(tmp_path / "a.xlsx", VALUES, NAMES)
    with pytest.raises(FileNotFoundError):
        write_table(tmp_path / "none" / "a.csv", VALUES, NAMES)

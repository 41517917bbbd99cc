"""Tables from and to files: what is read, what is refused, and that nothing is lost."""

import bz2
import datetime
import gzip
import io
import os
import threading
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from liouville import DataError
from liouville.data import read_rows, read_table, write_table

VALUES = np.random.default_rng(0).normal(size=(20, 3)) * [1e-9, 1.0, 1e12]
NAMES = ["a", "b, with comma", "c"]


def frame(values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, values.T, strict=True))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.bz2", ".csv.zst", ".parquet", ".npy", ".npz"])
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    write_table(path, frame(VALUES))
    table = read_table(path)
    np.testing.assert_array_equal(table.values, VALUES)
    assert table.columns == (NAMES if suffix[1:4] in ("csv", "tsv", "par") else ["x0", "x1", "x2"])


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
    with pytest.warns(UserWarning, match="read the first line of .*a.csv, numbers, as a row"):
        table = read_table(path)
    assert table.columns == ["x0", "x1"] and len(table.values) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n3,oops\n", "'oops' in row 1, column 'b'"),
        ("a,b\n1,2\n3,\n", "nothing in row 1, column 'b'"),
        ("a,b\n1,inf\n", "infinity in row 0, column 'b'"),
        ("a,b\n", "got none"),
        ("", "cannot be read"),
        ("a,a\n1,2\n", "'a' twice"),
        ("a b\n1 2\n", "commas between the cells"),
        ("a,,b\n1,2,3\n", "none for column 1"),
        ("a,b,\n1,2,\n", "none for column 2"),
        ("a,b\n1,\n2,\n", "nothing in row 0, column 'b' (2 of 2 rows)"),
        ("a,b\n1,2\n# the end\n", "got 1 in row 1"),
        ("a,b\n1,2\n\n3,oops\n", "'oops' in row 1, column 'b'"),
        ("a,b\n1,2\n3\n", "got 1 in row 1"),
    ],
)
def test_bad_csv_is_named(tmp_path, content, words):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError) as error, warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
    write_table(path, frame(VALUES))

    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="no space"):
        write_table(path, frame(VALUES + 1))
    assert os.listdir(tmp_path) == ["a.npy"]
    np.testing.assert_array_equal(read_table(path).values, VALUES)


def test_targets_are_refused_before_work_is_done(tmp_path):
    with pytest.raises(DataError):
        write_table(tmp_path / "a.xlsx", frame(VALUES))
    with pytest.raises(FileNotFoundError):
        write_table(tmp_path / "none" / "a.csv", frame(VALUES))


def said(path, **options):
    """Return a table as names and rows, and the words of the warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        table = read_table(path, **options)
    # Whoever reads the table is who is warned.
    assert all(warning.filename == __file__ for warning in found)
    return dict(zip(table.columns, table.values.T.tolist(), strict=True)), " | ".join(str(w.message) for w in found)


@pytest.fixture
def said_of(tmp_path):
    """Return a function of a CSV file's text that reads it."""

    def read(text, name="t.csv", **options):
        (tmp_path / name).write_bytes(text.encode())
        return said(tmp_path / name, **options)

    return read


INDEXES = {
    "filtered": lambda frame: frame[frame.a > 0],
    "named": lambda frame: frame.set_index(pd.Index(np.arange(20) ** 2, name="id")),
    "text": lambda frame: frame.set_index(pd.Index([f"row {i}" for i in range(20)])),
    "dates": lambda frame: frame.set_index(pd.date_range("2020-01-01", periods=20)),
    "levels": lambda frame: frame.set_index(pd.MultiIndex.from_product([[1, 2], range(10)])),
    "range": lambda frame: frame,
}


@pytest.mark.parametrize("index", INDEXES)
def test_the_index_of_a_frame_is_no_column_of_a_parquet_file(tmp_path, index):
    frame = INDEXES[index](pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"]))
    frame.to_parquet(tmp_path / "t.parquet")
    columns, words = said(tmp_path / "t.parquet")
    assert columns == {"a": list(frame.a), "b": list(frame.b)} and not words
    if index == "named":
        assert list(said(tmp_path / "t.parquet", columns=["b", "id"])[0]["id"]) == list(frame.index)


@pytest.mark.parametrize("index", [name for name in INDEXES if name != "named"])
def test_the_index_of_a_frame_is_left_out_of_a_csv_file_with_a_warning(tmp_path, index):
    frame = INDEXES[index](pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"]))
    frame.to_csv(tmp_path / "t.csv")
    columns, words = said(tmp_path / "t.csv")
    assert columns == {"a": list(frame.a), "b": list(frame.b)} and "left out column" in words and "index" in words
    # Read by pandas and written again, it has a name, which pandas made up.
    pd.read_csv(tmp_path / "t.csv").to_csv(tmp_path / "again.csv", index=False)
    assert said(tmp_path / "again.csv")[0] == columns
    assert not said(tmp_path / "t.csv", columns=["a"])[1]


@pytest.mark.parametrize("blank", ["", '""', "  ", "NA", "n/a ", "NAN"])
def test_a_blank_line_in_one_column_is_a_missing_value(said_of, blank):
    with pytest.raises(DataError, match=r"nothing in row 1, column 'x' \(1 of 4 rows\)"):
        said_of(f"x\n1.0\n{blank}\n3.0\n4.0\n")
    columns, words = said_of(f"x\r\n{blank}\r\n1.0\r\n{blank}\r\n3.0\r\n", drop_missing=True)
    assert columns == {"x": [1.0, 3.0]} and "left out 2 of 4 rows" in words


def test_blank_lines_at_the_ends_are_no_rows(said_of):
    assert said_of("\n\nx\n1.5\n2.5\n\n  \n\n") == ({"x": [1.5, 2.5]}, "")
    assert said_of("\n\na,b\n1.5,2.5\n\n\n") == ({"a": [1.5], "b": [2.5]}, "")
    # Above a column of numbers without a name, a blank line may be a cell.
    with pytest.raises(DataError, match="nothing in row 0"):
        said_of("\n1.5\n2.5\n")


def test_blank_lines_between_rows_of_several_columns_are_no_rows_and_said(said_of):
    for end in ("\n", "\r\n", "\r"):
        columns, words = said_of("a,b\n1,2\n\n  \n3,4\n".replace("\n", end))
        assert columns == {"a": [1, 3], "b": [2, 4]} and "2 blank lines between the rows" in words
    assert "1 blank line between" in said_of("a,b\n\n1,2\n")[1]
    assert said_of("a\tb\n1\t2\n\t\n", "t.tsv", drop_missing=True)[0] == {"a": [1], "b": [2]}
    assert said_of('a,note\n1,"one\n\ntwo"\n3,x\n', columns=["a"]) == ({"a": [1, 3]}, "")


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("0,1,2\n.5,1.5,2.5\n", {"0": [0.5], "1": [1.5], "2": [2.5]}, ""),
        (",0,1\n0,.5,1.5\n1,3.5,4.5\n", {"0": [0.5, 3.5], "1": [1.5, 4.5]}, "left out column 0"),
        (",0\n0,.5\n1,3.5\n", {"0": [0.5, 3.5]}, "left out column 0"),
        ("0,1\n1,2\n", {"0": [1], "1": [2]}, "first line"),
        ("0\n1.5\n", {"0": [1.5]}, "first line"),
        ("0\n1\n", {"x0": [0, 1]}, "first line"),
        ("1,2\n.5,1.5\n", {"x0": [1, 0.5], "x1": [2, 1.5]}, "first line"),
        ("0,1,3\n1,2,4\n", {"x0": [0, 1], "x1": [1, 2], "x2": [3, 4]}, "first line"),
        ("2019,2020\n.5,1.5\n", {"x0": [2019, 0.5], "x1": [2020, 1.5]}, "first line"),
        ("1e3\n5\n", {"x0": [1000, 5]}, "first line"),
        ("country,2019\nx,1.5\n", None, ""),
    ],
)
def test_a_first_line_of_numbers_is_names_only_where_it_counts(said_of, text, columns, words):
    if columns is None:
        assert said_of(text, drop=["country"]) == ({"2019": [1.5]}, "")
        return
    found = said_of(text)
    assert found[0] == columns and (words in found[1] if words else not found[1])


def test_a_first_line_with_the_names_that_are_asked_for_is_one_of_names(said_of, tmp_path):
    assert said_of("2019,2020\n.5,1.5\n", columns=["2020"]) == ({"2020": [1.5]}, "")
    np.testing.assert_array_equal(read_rows(tmp_path / "t.csv", ["2020", "2019"]).values, [[1.5, 0.5]])
    # A row of another table that is left out for a header would be lost.
    assert "first line" in said_of("Ann,1.5\nBob,2.5\n", drop=["Ann"])[1]


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("t.tsv", "a\tb\n1.5\t2\n", {"a": [1.5], "b": [2]}),
        ("t.tsv", "a\tb, in m\n1,5\t2\n", {"a": [1.5], "b, in m": [2]}),
        ("t.csv", "a\tb\n1.5\t2\n", {"a": [1.5], "b": [2]}),
        ("t.csv", "a;b\n1,5;-2,25\n3;,5\n1e3;4,\n", {"a": [1.5, 3, 1000], "b": [-2.25, 0.5, 4]}),
        ("t.csv", "a;b\n1.5;2\n", {"a": [1.5], "b": [2]}),
        ("t.csv", "h, m;w, kg\n1,5;2,5\n", {"h, m": [1.5], "w, kg": [2.5]}),
        ("t.csv", "a;b,c\n1,2\n", {"a;b": [1], "c": [2]}),
        ("t.csv", "a;b\n1,500;2,300\n0,125;12,5\n", {"a": [1.5, 0.125], "b": [2.3, 12.5]}),
        ("t.csv", "# made by hand, twice\na,b\n1,2\n", {"a": [1], "b": [2]}),
        ("t.csv", "# made by hand\n# a,b\n1,2\n", {"a": [1], "b": [2]}),
        ("t.csv", "#a,b\n1,2\n", {"a": [1], "b": [2]}),
        ("t.csv", "#,b\n1,2\n", {"#": [1], "b": [2]}),
        ("t.csv", "# height\n1\n2\n", {"height": [1, 2]}),
        ("t.csv", "\ufeffa,b\n1,2\n", {"a": [1], "b": [2]}),
        ("t.csv", 'a,"b, ""c"""\n1,2\n', {"a": [1], 'b, "c"': [2]}),
    ],
)
def test_files_that_people_have(said_of, name, text, columns):
    assert said_of(text, name) == (columns, "")


def test_a_comment_that_is_no_header_gives_no_names(said_of):
    assert list(said_of("# made by hand\n1\n2\n")[0]) == ["x0"]
    columns, words = said_of("# made by hand\n1,2\n")
    assert list(columns) == ["x0", "x1"] and "first line" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # One and a half, or fifteen hundred.
        ("a;b\n1,500;2,300\n", "'1,500' in row 0, column 'a', in which the comma may mark decimals or thousands"),
        ("a;b\n7;2\n5;12,300\n", "'12,300' in row 1, column 'b', in which the comma"),
        ("a;b\n1,5;2\n1.500,5;3\n", "'1.500,5' in row 1, column 'a'"),
        ("a;b\n1,5;2\n2;1.500\n", "'1.500' in row 1, column 'b'"),
        ("a;b\n1,234,567;2,5\n", "'1,234,567' in row 0, column 'a'"),
        ("1,234,567;2\n3,5;2\n", "'1,234,567' in row 0, column 'x0'"),
        ("x\n1,5\n2,5\n", "Expected 1 cells in every row"),
        ('a,b\n"1,5",2\n', "'1,5' in row 0, column 'a'"),
    ],
)
def test_marks_that_may_be_two_things_are_refused(said_of, text, words):
    with pytest.raises(DataError) as error, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said_of(text)
    assert words in str(error.value)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lambda b: bytes(pa.compress(b, "zstd", asbytes=True))])
def test_packed_files_are_read_to_the_end_or_refused(tmp_path, pack):
    suffix = {gzip.compress: "gz", bz2.compress: "bz2"}.get(pack, "zst")
    path = tmp_path / f"t.csv.{suffix}"
    path.write_bytes(pack(b"a\n1\n") + pack(b"2\n3\n"))
    assert said(path) == ({"a": [1, 2, 3]}, "")
    path.write_bytes(pack(b"a\n1\n" * 1000)[:-5])
    with pytest.raises(DataError, match="cannot be read"):
        read_table(path)


def test_open_files_and_pipes_say_by_their_bytes_what_they_are(tmp_path):
    write_table(tmp_path / "t.parquet", frame(VALUES))
    write_table(tmp_path / "t.csv.gz", frame(VALUES))
    np.save(tmp_path / "t.npy", VALUES)
    for name in ("t.parquet", "t.csv.gz", "t.npy"):
        np.testing.assert_array_equal(read_table(io.BytesIO((tmp_path / name).read_bytes())).values, VALUES)
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=lambda: (tmp_path / "pipe").write_text("a\n1\n"), daemon=True).start()
    assert said(tmp_path / "pipe") == ({"a": [1]}, "")


def test_only_the_columns_that_are_used_are_checked(said_of, tmp_path):
    text = "a,name,b,day\n1,x,,2020-01-01\n2,,4,\n"
    assert said_of(text, columns=["a"]) == ({"a": [1, 2]}, "")
    assert said_of(text, columns=["b", "a"], drop_missing=True)[0] == {"b": [4], "a": [2]}
    assert said_of(text, drop=["b", "name", "day"]) == ({"a": [1, 2]}, "")
    for options, words in (
        ({"columns": ["A"]}, "among 'a', 'name', 'b', 'day' in .* got 'A'"),
        ({"drop": ["nam"]}, "did you mean 'name'"),
        ({"columns": ["a", "a"]}, "'a' twice"),
        ({"drop": ["a", "b", "name", "day"]}, "got none beside those left out"),
    ):
        with pytest.raises(DataError, match=words):
            said_of(text, **options)
    pd.DataFrame({"a": [1.5], "a.b": [2.5], "t": ["x"]}).to_parquet(tmp_path / "t.parquet")
    assert said(tmp_path / "t.parquet", columns=["a"])[0] == {"a": [1.5]}


def test_all_that_is_wrong_is_named_at_once(said_of):
    head = "a,t1,g1,t2,g2,i\n"
    rows = [[1, "x", 2, 3, 4, 5], [1, "", "", "y", "", "inf"], [1, 1, 2, 3, "NA", 5]]
    with pytest.raises(DataError) as error:
        said_of(head + "".join(",".join(map(str, row)) + "\n" for row in rows))
    for words in (
        "'x' in row 0, column 't1'",
        "'y' in row 1, column 't2'",
        "nothing in row 1, column 'g1' (1 of 3 rows)",
        "nothing in row 1, column 'g2' (2 of 3 rows)",
        "infinity in row 1, column 'i'",
        "--drop-missing",
    ):
        assert words in str(error.value)
    with pytest.raises(DataError, match="column 'c9'; and 15 more columns; try"):
        said_of("\n".join(",".join(cells) for cells in ([f"c{i}" for i in range(25)], ["1"] * 25, ["x"] * 25)) + "\n")


def test_no_row_is_left_where_a_column_is_empty(said_of):
    with pytest.raises(DataError, match="got none of 2; try leaving out column 'b'"):
        said_of("a,b\n1,\n2,\n", drop_missing=True)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([None, datetime.date(2020, 1, 31)], r"nothing in row 0, column 'c' \(1 of 2 rows\)"),
        ([datetime.timedelta(days=2)], "duration 2 days, 0:00:00 in row 0"),
        ([[1.0, 2.0]], r"list \[1.0, 2.0\] in row 0"),
        ([b"1.5"], "b'1.5' in row 0"),
        ([None, None], r"nothing in row 0, column 'c' \(2 of 2 rows\)"),
        ([1.0, None], r"nothing in row 1, column 'c' \(1 of 2 rows\)"),
        ([True, None], r"nothing in row 1"),
        ([1.0, float("nan")], r"nothing in row 1"),
    ],
)
def test_odd_cells_of_parquet_are_named(tmp_path, cells, words):
    pyarrow.parquet.write_table(pa.table({"c": cells}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=words):
        read_table(tmp_path / "t.parquet")


def test_a_models_columns_are_found_by_name_or_by_place(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name,b,a\nx,1,2\n,3,4\n")
    np.testing.assert_array_equal(read_rows(path, ["a", "b"]).values, [[2, 1], [4, 3]])
    np.testing.assert_array_equal(read_rows(path, ["x0", "x1"], columns=["b", "a"]).values, [[1, 2], [3, 4]])
    with pytest.raises(DataError, match=r"the model's 2 columns in .*, got 3 \('name', 'b', 'a'\).*--columns"):
        read_rows(path, ["x0", "x1"])
    with pytest.raises(DataError, match=r"none called 'namee' \(did you mean 'name'\?\)"):
        read_rows(path, ["namee", "b"])
    with pytest.raises(DataError, match="nothing in row 1, column 'name'|'x' in row 0, column 'name'"):
        read_rows(path, ["name"])
    # Names that were made up say nothing: the first two of three columns may be any.
    np.save(tmp_path / "t.npy", np.ones((4, 3)))
    with pytest.raises(DataError, match="got 3"):
        read_rows(tmp_path / "t.npy", ["x0", "x1"])
    assert read_rows(tmp_path / "t.npy", ["a", "b", "c"]).values.shape == (4, 3)

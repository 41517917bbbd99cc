"""Places to write: links, pipes, devices and modes stay what they are, and what cannot be written is known before."""

import os
import stat
import threading

import numpy as np
import pytest
from matplotlib.figure import Figure

from liouville import checkpoint, plots
from liouville._files import check_writable, replacing
from liouville.callbacks import DensityMovie, PictureLog
from liouville.cli._common import check_place
from liouville.data import check_output, check_pictures_file, write_pictures, write_table

WRITERS = {
    "model.safetensors": lambda path: checkpoint.write(path, "model", {"a": np.ones(300)}, {}),
    "table.csv": lambda path: write_table(path, {"a": np.ones(300)}),
    "table.csv.gz": lambda path: write_table(path, {"a": np.ones(300)}),
    "table.parquet": lambda path: write_table(path, {"a": np.ones(300)}),
    "table.npz": lambda path: write_table(path, {"a": np.ones(300)}),
    "pictures.png": lambda path: write_pictures(path, np.ones((2, 8, 8, 1), np.uint8)),
    "figure.pdf": lambda path: plots.save(Figure(), path),
    "movie.gif": lambda path: movie(path).close(),
}
CHECKS = {
    "check_writable": check_writable,
    "check_output": check_output,
    "check_pictures_file": lambda path: check_pictures_file(path.with_suffix(".npy")),
    "check_format": lambda path: plots.check_format(path.with_suffix(".png")),
    "check_place": check_place,
    "DensityMovie": lambda path: DensityMovie(path.with_suffix(".gif")),
    "PictureLog": lambda path: PictureLog(path.parent),
}


def movie(path) -> DensityMovie:
    from PIL import Image

    made = DensityMovie(path)
    made.frames = [Image.new("P", (8, 8))] * 2
    return made


@pytest.fixture(params=WRITERS)
def writer(request, tmp_path):
    """Return a path, and what writes a file of its kind there."""
    return tmp_path / request.param, WRITERS[request.param]


def mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(writer):
    path, write = writer
    real = path.parent / "real"
    for wanted in (0o600, 0o664):
        real.write_bytes(b"")
        real.chmod(wanted)
        path.unlink(missing_ok=True)
        path.symlink_to("real")
        write(path)
        assert path.is_symlink() and real.stat().st_size > 20
        assert mode(real) == wanted
        assert sorted(os.listdir(path.parent)) == sorted([path.name, "real"])


def test_a_link_to_nothing_makes_what_it_points_at(writer):
    path, write = writer
    path.symlink_to("real")
    write(path)
    assert path.is_symlink() and (path.parent / "real").stat().st_size > 20


def test_a_new_file_has_the_mode_of_the_umask(writer):
    path, write = writer
    old = os.umask(0o027)
    try:
        write(path)
    finally:
        os.umask(old)
    assert mode(path) == 0o640


def test_a_pipe_stays_a_pipe_and_gets_all_bytes(writer):
    path, write = writer
    write(path)
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    found = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    reader.start()
    write(path)
    reader.join(10)
    assert stat.S_ISFIFO(os.stat(path).st_mode)
    # A PDF says when it was made, and a header of safetensors is in any order.
    assert len(found[0]) == len(content) if path.suffix in (".pdf", ".safetensors") else found[0] == content


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_place_that_cannot_be_written_is_known_before(check, tmp_path):
    with pytest.raises(OSError, match="/proc"):
        check(type(tmp_path)("/proc/table.csv"))
    if check is not CHECKS["PictureLog"]:
        with pytest.raises(FileNotFoundError, match=r"Expected a file in a folder that is there, got .*none.*; try"):
            check(tmp_path / "none" / "table.csv")


def test_checks_leave_nothing_behind(tmp_path):
    (tmp_path / "old.csv").write_text("a\n1\n")
    for name in ("old.csv", "new.csv"):
        check_writable(tmp_path / name)
    assert os.listdir(tmp_path) == ["old.csv"] and (tmp_path / "old.csv").read_text() == "a\n1\n"
    check_writable("/dev/null")


def test_what_is_not_to_be_written_is_refused_and_left(writer):
    path, write = writer
    path.write_bytes(b"kept")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match=r"Expected a file that can be written, got .*read-only; try"):
        write(path)
    assert path.read_bytes() == b"kept" and mode(path) == 0o444
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=r"Expected a file, got a folder at .*; try"):
        write(path)
    path.rmdir()
    path.symlink_to(path.name)
    with pytest.raises(OSError, match=r"Expected a file, got a link at .*; try"):
        write(path)
    assert path.is_symlink()


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_a_name_may_be_as_long_as_a_name_can_be(tmp_path):
    path = tmp_path / ("a" * 251 + ".csv")
    WRITERS["table.csv"](path)
    assert path.stat().st_size > 20

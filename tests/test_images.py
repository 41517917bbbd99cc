"""Pictures from files."""

import gzip
import io
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from liouville import DataError
from liouville.data import _images, digits, read_pictures


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def png(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_with_their_labels(tmp_path, grey, packed):
    suffix, opened = (".gz", gzip.open) if packed else ("", open)
    for name, array in (("a-images-idx3-ubyte", grey), ("a-labels-idx1-ubyte", np.arange(5, dtype=np.uint8))):
        with opened(tmp_path / f"{name}{suffix}", "wb") as file:
            file.write(idx(array))
    found = read_pictures(tmp_path / f"a-images-idx3-ubyte{suffix}")
    np.testing.assert_array_equal(found.pixels[..., 0], grey)
    np.testing.assert_array_equal(found.labels, np.arange(5))
    # Nothing of an unpacked file is read before it is asked for.
    assert isinstance(found.pixels.base, np.memmap) or packed


def test_arrays_are_mapped_or_named(tmp_path, grey):
    np.save(tmp_path / "a.npy", grey)
    assert isinstance(read_pictures(tmp_path / "a.npy").pixels.base, np.memmap)
    colours = np.repeat(grey[..., None], 3, axis=-1)
    np.savez(tmp_path / "a.npz", train=colours, test=colours[:2], labels=np.arange(5))
    assert read_pictures(f"{tmp_path}/a.npz:test").pixels.shape == (2, 4, 6, 3)
    with pytest.raises(DataError, match="NAME for one"):
        read_pictures(tmp_path / "a.npz")


def test_folders_are_classes(tmp_path, grey):
    for number, picture in enumerate(grey):
        (tmp_path / f"class{number % 2}").mkdir(exist_ok=True)
        (tmp_path / f"class{number % 2}" / f"{number}.png").write_bytes(png(picture))
    found = read_pictures(tmp_path)
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(found.pixels[..., 0], grey[[0, 2, 4, 1, 3]])


def test_colours_have_three_channels(tmp_path):
    Image.fromarray(np.full((2, 3, 3), [1, 2, 3], np.uint8)).save(tmp_path / "a.png")
    found = read_pictures(tmp_path)
    assert found.labels is None
    np.testing.assert_array_equal(found.pixels, np.full((1, 2, 3, 3), [1, 2, 3]))


@pytest.mark.parametrize("nested", [False, True])
def test_parquet_files_hold_encoded_pictures(tmp_path, grey, nested):
    encoded = [png(picture) for picture in grey]
    column = [{"bytes": content, "path": None} for content in encoded] if nested else encoded
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()}) if nested else pa.binary()
    table = pa.table({"label": [3, 1, 2, 0, 1], "image": pa.array(column, kind)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = read_pictures(tmp_path / "a.parquet")
    np.testing.assert_array_equal(found.pixels[..., 0], grey)
    np.testing.assert_array_equal(found.labels, [3, 1, 2, 0, 1])


def test_bad_files_are_named_or_counted(tmp_path, grey):
    (tmp_path / "a.png").write_bytes(png(grey[0]))
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.png").write_bytes(png(grey[1])[:50])
    (tmp_path / "d.png").write_bytes(png(grey[2][:3]))
    (tmp_path / "e.png").write_bytes(png(grey[3]))
    with pytest.raises(DataError, match=r"b\.png"):
        read_pictures(tmp_path)
    found = read_pictures(tmp_path, skip_bad=True)
    np.testing.assert_array_equal(found.pixels[..., 0], grey[[0, 3]])
    assert [name in line for name, line in zip("bcd", found.skipped, strict=True)] == [True] * 3
    assert "3 x 6" in found.skipped[2]


def test_what_holds_no_pictures_is_refused(tmp_path, grey):
    with pytest.raises(FileNotFoundError, match="nothing at"):
        read_pictures(tmp_path / "missing")
    with pytest.raises(DataError, match="0 that cannot be read"):
        read_pictures(tmp_path)
    np.save(tmp_path / "a.npy", grey / 255)
    with pytest.raises(DataError, match=r"float64 of shape \(5, 4, 6\)"):
        read_pictures(tmp_path / "a.npy")
    (tmp_path / "b-idx3-ubyte").write_bytes(idx(grey)[:-1])
    with pytest.raises(DataError, match="Expected 120 bytes"):
        read_pictures(tmp_path / "b-idx3-ubyte")
    (tmp_path / "c-idx3-ubyte").write_bytes(b"\x00")
    with pytest.raises(DataError, match="cut or foreign"):
        read_pictures(tmp_path / "c-idx3-ubyte")
    (tmp_path / "d.txt").write_text("1")
    with pytest.raises(DataError, match="folder of PNG"):
        read_pictures(tmp_path / "d.txt")


def test_many_decoded_pictures_are_mapped(tmp_path, grey, monkeypatch):
    monkeypatch.setattr(_images, "MOST_IN_MEMORY", 10)
    (tmp_path / "a.png").write_bytes(png(grey[0]))
    found = read_pictures(tmp_path)
    assert isinstance(found.pixels, np.memmap)
    np.testing.assert_array_equal(found.pixels[0, ..., 0], grey[0])


def test_digits_have_seventeen_levels():
    found = digits()
    assert found.pixels.max() == found.levels - 1 == 16
    assert found.labels is not None
    assert set(found.labels) == set(range(10))

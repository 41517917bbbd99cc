"""Pictures from files: idx, NPY and NPZ, folders of PNG and JPEG, Parquet with encoded pictures.

All are kept as they are in files, in bytes: mapped from the file where that can be, else in memory, or in a temporary
file where they are many. Floats are made of them a batch at a time, by who needs them.
"""

import gzip
import io
import math
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_digits

from .._errors import DataError
from .._files import check_writable, replacing

ENCODED = (".png", ".jpg", ".jpeg")
IDX_BYTES = 0x08
# Decoded pictures of more bytes than this go to a temporary file that is mapped, not to memory.
MOST_IN_MEMORY = 2**30
BLOCK_PICTURES = 4096
MODES = {1: "L", 3: "RGB"}
WRITTEN = (".png", ".npy", ".npz")
# Sheets of pictures: smaller ones are enlarged to this many pixels, with lines of this grey between them.
SMALLEST_TILE, MARGIN = 28, 128


class Pictures(NamedTuple):
    """Pictures of one size.

    Attributes
    ----------
    pixels
        Bytes of shape ``(n, height, width, channels)``; mapped from a file or in memory.
    labels
        The class of each picture, as a whole number from 0 on, or None.
    levels
        Number of values that a pixel can have.
    skipped
        Why files were left out, one line for each.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    levels: int
    skipped: list[str]


def digits() -> Pictures:
    """Return scikit-learn's handwritten digits: 1,797 pictures of 8 x 8 pixels with 17 levels.

    Examples
    --------
    >>> digits().pixels.shape
    (1797, 8, 8, 1)
    """
    found: Any = load_digits()
    return Pictures(found.images.astype(np.uint8)[..., None], found.target.astype(np.int64), 17, [])


def read_pictures(path: str | os.PathLike, *, skip_bad: bool = False) -> Pictures:
    """Read pictures of one size from a file or a folder.

    Parameters
    ----------
    path
        An idx file of pictures (MNIST's; packed by gzip or not; its labels are found beside it); an NPY or NPZ file of
        bytes, of shape ``(n, height, width)`` or ``(n, height, width, channels)``, ``FILE.npz:NAME`` for one array of
        several; a Parquet file with a column of encoded pictures and, if it has one, a column ``label``; a folder of
        PNG and JPEG files, whose folders inside, if there are any, are the classes.
    skip_bad
        True leaves out files that cannot be read, and says so in ``skipped``; False refuses.

    Returns
    -------
    Pictures
        Grey pictures have one channel, all others three.

    Raises
    ------
    DataError
        Where there is no picture, one cannot be read or has another size; the message names it.
    FileNotFoundError
        Where there is nothing at the path.
    """
    path, name = _split_name(path)
    if not path.exists():
        raise FileNotFoundError(f"Expected pictures, got nothing at {path}; try another path.")
    if path.is_dir():
        return _read_folder(path, skip_bad)
    if path.suffix == ".parquet":
        return _read_parquet(path, skip_bad)
    if path.suffix in (".npy", ".npz"):
        pixels = _read_numpy(path, name)
        return Pictures(pixels, None, 256, [])
    if "idx" in path.name:
        labels = Path(str(path).replace("images-idx3", "labels-idx1"))
        found = read_idx(labels).astype(np.int64) if labels != path and labels.exists() else None
        return Pictures(_with_channels(read_idx(path), path), found, 256, [])
    raise DataError(
        f"Expected pictures in a folder or as idx, .npy, .npz or .parquet, got {path}; try a folder of PNG files."
    )


def read_idx(path: Path) -> np.ndarray:
    """Return the array of bytes of an idx file, packed by gzip or not.

    Raises
    ------
    DataError
        Where it is no idx file of bytes, or cut.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            zeros, kind, axes = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{axes}I", file.read(4 * axes))
            content = file.read() if packed else b""
    except (struct.error, OSError, EOFError) as error:
        raise DataError(f"Expected an idx file, got {path}, which is cut or foreign ({error}); try another.") from None
    if zeros or kind != IDX_BYTES:
        raise DataError(f"Expected an idx file of bytes, got {path} of kind {zeros:#x}/{kind:#x}; try another file.")
    start = 4 + 4 * axes
    size = len(content) if packed else path.stat().st_size - start
    if size != math.prod(shape):
        raise DataError(f"Expected {math.prod(shape):,} bytes in {path}, got {size:,}; try a fresh copy.")
    if packed:
        return np.frombuffer(content, np.uint8).reshape(shape)
    return np.memmap(path, np.uint8, "r", start, shape)


def check_pictures(X, levels: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return pictures as bytes, with an axis of channels; what is bytes already, or mapped from a file, stays so.

    Parameters
    ----------
    X
        Whole numbers of shape ``(n, height, width)`` or ``(n, height, width, channels)``.
    levels
        Number of values that a pixel can have.
    shape
        Shape that each picture should have, or None for any.

    Raises
    ------
    DataError
        Where they are something else; the message names the first picture that is wrong.
    """
    if np.ma.is_masked(X):
        first = int(np.argwhere(np.ma.getmaskarray(X))[0][0])
        raise DataError(f"Expected whole pictures, got masked pixels in picture {first}; try leaving it out.")
    pixels = np.asanyarray(X)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.dtype.kind not in "ui" or 0 in pixels.shape:
        raise DataError(
            "Expected whole numbers of shape (n, height, width) or (n, height, width, channels), got "
            f"{pixels.dtype} of shape {np.shape(X)}; try X.astype(numpy.uint8)."
        )
    if shape is not None and pixels.shape[1:] != shape:
        raise DataError(f"Expected pictures of shape {shape}, got {pixels.shape[1:]}; try resizing them.")
    if pixels.dtype == np.uint8 and levels == 256:
        # No byte can be wrong: a long file need not be read for it.
        return pixels
    for start in range(0, len(pixels), BLOCK_PICTURES):
        block = pixels[start : start + BLOCK_PICTURES]
        if block.min() < 0 or block.max() >= levels:
            bad = int(np.argwhere((block < 0) | (block >= levels))[0][0])
            raise DataError(
                f"Expected pixels from 0 to {levels - 1}, got {block[bad].min()} to {block[bad].max()} in picture "
                f"{start + bad}; try levels=256."
            )
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint8)


def check_pictures_file(path: str | os.PathLike) -> None:
    """Raise what `write_pictures` would raise of a path, before the work is done that it is for."""
    path = Path(path)
    if path.suffix.lower() not in WRITTEN:
        raise ValueError(f"Expected a file that ends in {', '.join(WRITTEN)}, got {path}; try {path.stem}.png.")
    check_writable(path)


def write_pictures(path: str | os.PathLike, pixels: np.ndarray, levels: int = 256) -> None:
    """Write pictures to a file, all or nothing: side by side as PNG, or their bytes as NPY or NPZ.

    Parameters
    ----------
    path
        File whose suffix says the format.
    pixels
        Bytes of shape ``(n, height, width, channels)``.
    levels
        Number of values that a pixel can have: as PNG the highest is white.

    Raises
    ------
    ValueError
        Where the suffix is none of these.
    OSError
        Where the file cannot be written.
    """
    check_pictures_file(path)
    suffix = Path(path).suffix.lower()
    with replacing(path) as file:
        if suffix == ".png":
            tiled = tile(pixels, levels)
            Image.fromarray(tiled[..., 0] if tiled.shape[-1] == 1 else tiled).save(file, format="PNG")
        elif suffix == ".npy":
            np.save(file, pixels)
        else:
            np.savez_compressed(file, pixels=pixels)


def tile(pixels: np.ndarray, levels: int = 256) -> np.ndarray:
    """Return pictures side by side as one, in rows of about as many as there are rows, small ones enlarged.

    Examples
    --------
    >>> tile(digits().pixels[:6], 17).shape
    (51, 76, 1)
    """
    num, height, width, channels = pixels.shape
    scale = max(1, SMALLEST_TILE // max(height, width))
    columns = math.ceil(math.sqrt(num * height / width))
    rows = math.ceil(num / columns)
    cell = (scale * height + 1, scale * width + 1)
    sheet = np.full((rows * cell[0] + 1, columns * cell[1] + 1, channels), MARGIN, np.uint8)
    bright = np.round(pixels.astype(np.float32) * (255 / (levels - 1))).astype(np.uint8)
    for number, picture in enumerate(bright.repeat(scale, axis=1).repeat(scale, axis=2)):
        top, left = 1 + cell[0] * (number // columns), 1 + cell[1] * (number % columns)
        sheet[top : top + scale * height, left : left + scale * width] = picture
    return sheet


def _split_name(path: str | os.PathLike) -> tuple[Path, str | None]:
    """Return a path and the name behind its colon, if it is an NPZ file's."""
    text = os.fspath(path)
    if ".npz:" in text:
        text, name = text.rsplit(":", 1)
        return Path(text), name
    return Path(text), None


def _read_numpy(path: Path, name: str | None) -> np.ndarray:
    """Return the bytes of an NPY file, mapped, or of an NPZ file's array."""
    try:
        found: Any = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"Expected arrays of numbers, got {path} ({error}); try a fresh copy.") from None
    if isinstance(found, np.ndarray):
        return _with_channels(found, path)
    with found:
        arrays = [key for key in found.files if name in (None, key)]
        if name is None and len(arrays) > 1:
            arrays = [key for key in arrays if found[key].ndim >= 3]
        if len(arrays) != 1:
            raise DataError(
                f"Expected one array of pictures in {path}, got {arrays or found.files}; try {path}:NAME for one."
            )
        return _with_channels(found[arrays[0]], path)


def _with_channels(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Return pictures with an axis of channels, or raise where they are none."""
    shape = (*pixels.shape, 1) if pixels.ndim == 3 else pixels.shape
    if pixels.dtype != np.uint8 or len(shape) != 4 or shape[-1] not in MODES or not len(pixels):
        raise DataError(
            "Expected bytes of shape (n, height, width) or (n, height, width, channels) with 1 or 3 channels, got "
            f"{pixels.dtype} of shape {pixels.shape} in {path}; try pixels.astype(numpy.uint8)."
        )
    return pixels.reshape(shape)


def _read_folder(folder: Path, skip_bad: bool) -> Pictures:
    """Read the PNG and JPEG files of a folder, in the order of their names."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENCODED)
    names = sorted({path.relative_to(folder).parts[0] for path in files if path.parent != folder})
    classes = {name: number for number, name in enumerate(names)}
    entries = ((str(path), path, classes.get(path.relative_to(folder).parts[0], -1)) for path in files)
    return _decode(entries, len(files), folder, skip_bad)


def _read_parquet(path: Path, skip_bad: bool) -> Pictures:
    """Read a Parquet file's column of encoded pictures, a batch of rows at a time."""
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"Expected a Parquet file, got {path} ({error}); try a fresh copy.") from None
    column = next((field.name for field in file.schema_arrow if _holds_bytes(field.type)), None)
    if column is None:
        raise DataError(
            f"Expected a column of encoded pictures in {path}, got {file.schema_arrow.names}; try another file."
        )
    label = "label" if "label" in file.schema_arrow.names else None
    return _decode(_parquet_entries(file, column, label), file.metadata.num_rows, path, skip_bad)


def _holds_bytes(kind) -> bool:
    types = pyarrow.types
    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind)


def _parquet_entries(file, column: str, label: str | None) -> Iterator[tuple[str, io.BytesIO, int]]:
    """Yield each row's name, its encoded picture and its class (-1 for none)."""
    row = 0
    for batch in file.iter_batches(batch_size=256, columns=[column, *([label] if label else [])]):
        labels = batch[label].to_pylist() if label else [-1] * len(batch)
        for value, number in zip(batch[column].to_pylist(), labels, strict=True):
            content = value["bytes"] if isinstance(value, dict) else value
            yield f"row {row}", io.BytesIO(content or b""), number
            row += 1


def _decode(entries: Iterable[tuple[str, Any, int]], count: int, source: Path, skip_bad: bool) -> Pictures:
    """Decode named pictures into one array; the first good one says what size all have."""
    pixels, labels, skipped = np.zeros((0, 0, 0, 1), np.uint8), [], []
    for name, file, label in entries:
        try:
            picture = _decode_one(name, file)
            if labels and picture.shape != pixels.shape[1:]:
                raise DataError(
                    f"Expected a picture of {_size(pixels.shape[1:])} as the first, got {_size(picture.shape)} in "
                    f"{name}; try resizing it."
                )
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
            continue
        if not labels:
            pixels = _blank((count, *picture.shape))
        pixels[len(labels)] = picture
        labels.append(label)
    if not labels:
        raise DataError(f"Expected pictures in {source}, got {len(skipped)} that cannot be read; try another path.")
    classes = np.asarray(labels, np.int64)
    return Pictures(pixels[: len(labels)], classes if classes.min() >= 0 else None, 256, skipped)


def _decode_one(name: str, file: Any) -> np.ndarray:
    """Return one picture's bytes, of shape ``(height, width, channels)``."""
    try:
        with Image.open(file) as picture:
            mode = "L" if picture.mode in ("1", "L") else "RGB"
            return np.asarray(picture.convert(mode), np.uint8).reshape(*picture.size[::-1], -1)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"Expected a picture, got {name}, which cannot be read ({error}); try a fresh copy.") from None


def _blank(shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of bytes to fill: in memory, or mapped from a temporary file where they are many."""
    if math.prod(shape) <= MOST_IN_MEMORY:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _size(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height} x {width} with {channels} channel{'s' if channels > 1 else ''}"

"""What to do as training goes: ready callbacks for ``FlowDensity.fit(X, callback=...)``.

A callback is any function of the step, the loss and a handle on the flow, which returns the flow when it is
called (`FlowHandle`). It is called whenever the host looks in on training, about twice a second; the time that
it takes is time of the fit. Where it returns True, training ends and the best weights are kept; what it raises
ends the fit without them.
"""

import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from . import evaluation
from ._files import check_writable, replacing
from ._progress import FlowHandle as FlowHandle
from .data import tile, write_pictures, write_table
from .density import Density
from .metrics import bits_per_dim
from .plots import DENSITY_MAP, DEPTH, plot_training, save

Limits = tuple[tuple[float, float], tuple[float, float]]
_NUM_LIMIT_SAMPLES = 2000
_FLUSH_SECONDS = 2
_DPI = 100
_SHEET = 36


class DensityMovie:
    """Draw the density of two continuous columns as training goes, and write an animated GIF, or an MP4, at the end.

    Each frame evaluates the flow on a grid, so frames are drawn no more often than `min_seconds`. The file is
    written when the ``with`` block ends, by an error too, or by `close`.

    Parameters
    ----------
    path
        The file, ``*.gif``; or ``*.mp4``, a fraction of its size, which takes ffmpeg.
    limits
        ``((low, high), (low, high))`` of both columns, in the table's units; None takes the range of samples of
        the first flow, which has the data's mean and covariance.
    num
        Points per axis of the grid.
    min_seconds
        Least time between two frames, in seconds.
    frame_seconds
        How long a frame is shown; the last one is shown ten times as long.
    max_frames
        Number of frames in the file: of more, every second one is dropped.

    Raises
    ------
    ValueError
        Where the file is neither, or there is no ffmpeg for an MP4.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from liouville import FlowDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> with tempfile.TemporaryDirectory() as folder, DensityMovie(f"{folder}/density.gif", num=20) as movie:
    ...     density = FlowDensity(max_iter=5, width=8, depth=1, preprocess="whiten").fit(X, callback=movie)
    ...     print(len(movie.frames) > 0)
    True
    """

    def __init__(
        self,
        path: str | os.PathLike,
        limits: Limits | None = None,
        *,
        num: int = 80,
        min_seconds: float = 1.0,
        frame_seconds: float = 0.15,
        max_frames: int = 200,
    ):
        if num < 2 or max_frames < 2:
            raise ValueError(f"Expected num and max_frames of 2 at least, got {num} and {max_frames}; try num=80.")
        _check_movie(Path(path))
        check_writable(path)
        self.path, self.limits, self.num = Path(path), limits, num
        self.min_seconds, self.frame_seconds, self.max_frames = min_seconds, frame_seconds, max_frames
        self.frames: list[Image.Image] = []
        self._last = -math.inf

    def __call__(self, step: int, loss: float, flow: FlowHandle) -> None:
        """Draw a frame, where it is time for one."""
        if time.perf_counter() - self._last < self.min_seconds:
            return
        current = flow()
        self.limits = _limits(current, self.limits)
        self.frames.append(_frame(current, self.limits, self.num, f"{flow.kind}, step {step}"))
        if len(self.frames) > self.max_frames:
            self.frames = self.frames[::2]
        self._last = time.perf_counter()

    def close(self) -> None:
        """Write the file, all or nothing; without a frame there is none."""
        if not self.frames:
            return
        if self.path.suffix.lower() == ".mp4":
            _write_mp4(self.path, self.frames, self.frame_seconds)
            return
        durations = [round(1000 * self.frame_seconds)] * len(self.frames)
        durations[-1] *= 10
        first, *rest = (frame.quantize(256) for frame in self.frames)
        with replacing(self.path) as file:
            first.save(file, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)

    def __enter__(self) -> "DensityMovie":
        return self

    def __exit__(self, *error) -> None:
        self.close()


def _check_movie(path: Path) -> None:
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ValueError(f"Expected a movie that ends in .gif or .mp4, got {path}; try {path.stem}.gif.")
    if path.suffix.lower() == ".mp4" and not FFMpegWriter.isAvailable():
        raise ValueError(
            f"Expected ffmpeg, which encodes {path}, got none on the path of programs; try installing it, or "
            f"{path.stem}.gif."
        )


def _write_mp4(path: Path, frames: list[Image.Image], frame_seconds: float) -> None:
    """Write frames as H.264, of even width and height, as its players want them; the last one ten times as long."""
    width, height = (side - side % 2 for side in frames[0].size)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    picture = figure.figimage(np.asarray(frames[0])[:height, :width])
    writer = FFMpegWriter(fps=cast(int, 1 / frame_seconds), codec="libx264", extra_args=["-pix_fmt", "yuv420p"])
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "movie.mp4"
        with writer.saving(figure, str(made), _DPI):
            for frame in [*frames, *[frames[-1]] * 9]:
                picture.set_data(np.asarray(frame)[:height, :width])
                writer.grab_frame()
        with replacing(path) as file:
            file.write(made.read_bytes())


def _frame(flow: Density, limits: Limits, num: int, title: str) -> Image.Image:
    """Return a map of a density of two columns."""
    x, y = (np.linspace(low, high, num) for low, high in limits)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    log_prob = evaluation.score(flow, grid)[0].reshape(num, num)
    figure = Figure(figsize=(3.6, 3.6), dpi=_DPI, layout="constrained")
    # What could not be solved stays grey: it is neither dense nor empty.
    axes = figure.subplots(subplot_kw={"facecolor": "0.7", "title": title, "box_aspect": 1})
    top = np.nanmax(log_prob) if np.any(np.isfinite(log_prob)) else 0.0
    extent = (x[0], x[-1], y[0], y[-1])
    style: dict[str, Any] = {"cmap": DENSITY_MAP, "interpolation": "bilinear", "vmin": top - DEPTH, "vmax": top}
    axes.imshow(log_prob, origin="lower", extent=extent, aspect="auto", **style)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _limits(flow: Density, given: Limits | None) -> Limits:
    """Return the limits of a map, as given or found, or raise where there is none to draw."""
    if flow.shape != (2,):
        raise ValueError(f"Expected two columns, got points of shape {flow.shape}; try a table of two columns.")
    if flow.frame.has_masses:
        raise ValueError(
            "Expected two continuous columns, got levels, whole numbers or values that many rows share, which have no "
            "density; try liouville.plots.plot_corner after the fit."
        )
    if given is not None:
        return given
    rows = evaluation.sample(flow, _NUM_LIMIT_SAMPLES, seed=0)[0]
    low, high = np.nanquantile(rows, 0.001, axis=0), np.nanquantile(rows, 0.999, axis=0)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


class PictureLog:
    """Write samples and the course of training into a folder, as a density of pictures learns.

    ``samples.png`` is a sheet of the same draws each time; ``training.csv`` has a line for each look of the host, with
    the best bits per dimension of the validations so far; ``training.png`` draws it. Each is replaced as a whole.

    Parameters
    ----------
    folder
        The folder; it is made where it is not there.
    num
        Number of pictures on the sheet.
    min_seconds
        Least time between two sheets, in seconds: drawing takes time of the fit.

    Examples
    --------
    >>> import tempfile
    >>> from liouville import ImageDensity
    >>> from liouville.data import digits
    >>> density = ImageDensity(levels=17, vector_field="conv", width=8, depth=1, max_iter=5, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with PictureLog(folder, num=3) as log:
    ...         density = density.fit(digits().pixels[:200], callback=log)
    ...     print(sorted(path.name for path in log.folder.iterdir()))
    ['samples.png', 'training.csv', 'training.png']
    """

    def __init__(self, folder: str | os.PathLike, *, num: int = 64, min_seconds: float = 60.0):
        self.folder, self.num, self.min_seconds = Path(folder), num, min_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.folder / "samples.png")
        self.rows: list[dict[str, float]] = []
        self._flow, self._size = None, 0
        self._last = time.perf_counter()

    def __call__(self, step: int, loss: float, flow: FlowHandle) -> None:
        """Take note of the numbers, and write the files where it is time to."""
        if self._flow is None:
            self._size = int(np.prod(flow().shape))
        self._flow = flow
        numbers = dict(flow.numbers)
        bits = bits_per_dim(numbers.pop("nll"), self._size)
        self.rows.append({**numbers, "bits_per_dim": bits})
        if time.perf_counter() - self._last > self.min_seconds:
            self.write()

    def write(self) -> None:
        """Write the files; nothing where there has been no look yet."""
        if self._flow is None:
            return
        pictures = self._flow()
        drawn, _ = evaluation.sample(pictures, self.num, seed=0)
        write_pictures(self.folder / "samples.png", drawn, cast(int, pictures.frame.levels))
        columns = {name: [float(row[name]) for row in self.rows] for name in self.rows[0]}
        write_table(self.folder / "training.csv", columns)
        save(plot_training(columns), self.folder / "training.png")
        self._last = time.perf_counter()

    def __enter__(self) -> "PictureLog":
        return self

    def __exit__(self, *error) -> None:
        self.write()


class TensorBoardLog:
    """Log loss, validation NLL, evaluations, skipped steps and penalties for TensorBoard.

    Each kind of preprocessing that takes part in a race is a run, in a folder of its own. Numbers that are not
    known yet are left out. What is logged is in the files within two seconds, and all of it after the ``with``
    block or `close`.

    Parameters
    ----------
    folder
        Folder of the runs: what ``tensorboard --logdir`` takes.
    picture_seconds
        Least time between two pictures, in seconds: a map of a density of two continuous columns, or a sheet of the
        same draws of a density of pictures. Drawing takes time of the fit: None draws none.

    Raises
    ------
    ImportError
        Where tensorboardX, which writes the files, is not installed.
    """

    def __init__(self, folder: str | os.PathLike, *, picture_seconds: float | None = None):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "Expected the package tensorboardX, got none; try pip install 'liouville[tensorboard]'."
            ) from error
        self.folder, self.picture_seconds = Path(folder), picture_seconds
        self._open, self._writers, self._limits, self._last = SummaryWriter, {}, None, -math.inf

    def __call__(self, step: int, loss: float, flow: FlowHandle) -> None:
        """Write the numbers of this moment, and a picture where it is time for one."""
        if flow.kind not in self._writers:
            self._writers[flow.kind] = self._open(str(self.folder / flow.kind), flush_secs=_FLUSH_SECONDS)
        writer = self._writers[flow.kind]
        for name, value in flow.numbers.items():
            if name not in ("step", "seconds") and math.isfinite(value):
                writer.add_scalar(name, value, step)
        if self.picture_seconds is not None and time.perf_counter() - self._last >= self.picture_seconds:
            writer.add_image("density", self._picture(flow, step), step, dataformats="HWC")
            self._last = time.perf_counter()

    def _picture(self, flow: FlowHandle, step: int) -> np.ndarray:
        current = flow()
        if len(current.shape) > 1:
            drawn, _ = evaluation.sample(current, _SHEET, seed=0)
            sheet = tile(drawn, cast(int, current.frame.levels))
            return sheet if sheet.shape[-1] == 3 else np.repeat(sheet, 3, axis=2)
        self._limits = _limits(current, self._limits)
        return np.asarray(_frame(current, self._limits, 60, f"{flow.kind}, step {step}"))

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def __enter__(self) -> "TensorBoardLog":
        return self

    def __exit__(self, *error) -> None:
        self.close()

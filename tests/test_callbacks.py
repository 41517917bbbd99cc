"""Callbacks: what they are told, and what the ready ones write."""

import io
import struct
import sys

import imageio_ffmpeg
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from tensorboardX.proto.event_pb2 import Event

from checks import LinearField
from liouville import FlowDensity, evaluation
from liouville.bijections import CNF
from liouville.callbacks import DensityMovie, TensorBoardLog
from liouville.density import Density
from liouville.distributions import Normal, Transformed
from liouville.integrate import Integrator
from liouville.training import Trainer

FAST = {"max_iter": 45, "width": 8, "depth": 1, "preprocess": "whiten", "random_state": 0}


@pytest.fixture(scope="module")
def table():
    return np.random.default_rng(0).normal(size=(400, 2)) @ np.array([[2.0, 30.0], [0.0, 50.0]]) + [5.0, -300.0]


@pytest.fixture(scope="module")
def told():
    """Return a table of two modes, a fit of it that is better than its start, and what its callback was told."""
    rng, calls = np.random.default_rng(1), []
    modes = rng.choice([-1.0, 1.0], (400, 1)) * [3.0, 0.0] + rng.normal(size=(400, 2))
    table = modes @ np.array([[2.0, 30.0], [0.0, 50.0]]) + [5.0, -300.0]
    density = FlowDensity(**{**FAST, "max_iter": 90}).fit(table, callback=lambda *told: calls.append(told))
    assert density.facts_["best_step"] > 0
    return table, density, calls


def test_callback_is_told_of_every_look(told):
    _, density, calls = told
    assert [step for step, _, _ in calls] == density.history_["step"]
    np.testing.assert_array_equal([loss for _, loss, _ in calls], density.history_["loss"])
    assert all(flow.numbers["step"] == step and flow.kind == "whiten" for step, _, flow in calls)
    assert calls[-1][2].numbers["nll"] == density.facts_["validation_nll"]


def test_handle_gives_the_flow_of_its_moment_in_the_units_of_the_table(told):
    table, density, calls = told
    # A flow starts as the Gaussian that fits the rows to train on: nine tenths of the table.
    start = evaluation.score(calls[0][2](), table)[0]
    truth = stats.multivariate_normal(table.mean(0), np.cov(table.T)).logpdf(table)
    assert calls[0][0] == 0 and abs(np.mean(start - truth)) < 0.02 and np.max(np.abs(start - truth)) < 1.0
    best = [flow for step, _, flow in calls if step == density.facts_["best_step"]][-1]
    np.testing.assert_array_equal(evaluation.score(best(), table)[0], density.score_samples(table))
    assert np.any(evaluation.score(calls[-1][2](), table)[0] != start)


def test_watching_changes_nothing_and_costs_nothing_until_the_handle_is_called(table, monkeypatch):
    built, original = [], Trainer.flow
    monkeypatch.setattr(Trainer, "flow", lambda self, params: built.append(0) or original(self, params))
    alone = FlowDensity(**FAST).fit(table)
    num_built, handles = len(built), []
    watched = FlowDensity(**FAST).fit(table, callback=lambda step, loss, flow: handles.append(flow))
    assert len(built) == 2 * num_built and len(handles) > 3
    handles[0]()
    assert len(built) == 2 * num_built + 1
    np.testing.assert_array_equal(alone.score_samples(table), watched.score_samples(table))


def test_kinds_in_a_race_are_told_apart(table):
    kinds = {}
    fast = {**FAST, "max_iter": 30, "depth": 0, "preprocess": "auto"}
    FlowDensity(**fast).fit(table, callback=lambda step, loss, flow: kinds.setdefault(flow.kind, flow))
    assert len(kinds) > 1
    truth = stats.multivariate_normal(table.mean(0), np.cov(table.T)).logpdf(table).mean()
    assert all(abs(evaluation.score(flow(), table)[0].mean() - truth) < 0.3 for flow in kinds.values())


def test_what_a_callback_raises_ends_the_fit(table):
    def stop(step, loss, flow):
        raise KeyboardInterrupt

    density = FlowDensity(**FAST)
    with pytest.raises(KeyboardInterrupt):
        density.fit(table, callback=stop)
    assert not hasattr(density, "flow_")


class Handle:
    """A handle on a Gaussian."""

    def __init__(self, mean=(0.0, 0.0), kind="whiten", **numbers):
        self.kind = kind
        self.numbers = {"step": 0, "loss": 1.0, "nll": np.inf, "evaluations": np.nan, "skipped": 0, **numbers}
        self._mean = mean

    def __call__(self):
        cnf = CNF(LinearField(jnp.zeros((len(self._mean), len(self._mean)))), integrator=Integrator.constant(1))
        return Density.of(Transformed(Normal(self._mean, 0.5), cnf))


def frames(path) -> list[np.ndarray]:
    """Return the frames of a GIF in grey, as arrays."""
    with Image.open(path) as image:
        found = []
        for i in range(image.n_frames):
            image.seek(i)
            found.append(np.asarray(image.convert("L"), float))
    return found


def test_movie_has_a_frame_per_look_with_the_mass_where_it_is(tmp_path):
    limits = ((-4.0, 4.0), (-4.0, 4.0))
    with DensityMovie(tmp_path / "a.gif", limits, num=40, min_seconds=0) as movie:
        for step, mean in enumerate([(2.5, -1.5), (-2.5, 1.5), (-2.5, -1.5)]):
            movie(step, 0.0, Handle(mean))
        assert not (tmp_path / "a.gif").exists()
    found = frames(tmp_path / "a.gif")
    assert len(found) == 3 and [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    for frame, (x, y) in zip(found, [(2.5, -1.5), (-2.5, 1.5), (-2.5, -1.5)], strict=True):
        # Inside the axes the map is dark where there is nothing.
        inside = frame[60:-40, 50:-20]
        rows, columns = np.nonzero(inside > 200)
        assert (np.mean(columns) > inside.shape[1] / 2) == (x > 0)
        assert (np.mean(rows) < inside.shape[0] / 2) == (y > 0)


def test_movie_takes_its_time_and_drops_frames_when_there_are_many(tmp_path):
    slow = DensityMovie(tmp_path / "slow.gif", num=10, min_seconds=1e6)
    fast = DensityMovie(tmp_path / "fast.gif", num=10, min_seconds=0, max_frames=4)
    for step in range(5):
        slow(step, 0.0, Handle())
        fast(step, 0.0, Handle((0.1 * step, 0.0)))
    assert len(slow.frames) == 1 and len(fast.frames) == 3
    # Limits that are not given are those of the first flow's samples: about three standard deviations of 0.5.
    np.testing.assert_allclose(fast.limits, [(-1.5, 1.5)] * 2, atol=0.5)


def test_movie_of_a_fit_that_fails_is_written(tmp_path, table):
    def both(step, loss, flow):
        movie(step, loss, flow)
        if step:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError), DensityMovie(tmp_path / "a.gif", num=16, min_seconds=0) as movie:
        FlowDensity(**FAST).fit(table, callback=both)
    assert len(frames(tmp_path / "a.gif")) == 2
    low, high = np.transpose(movie.limits)
    assert np.all(low < np.quantile(table, 0.01, axis=0)) and np.all(high > np.quantile(table, 0.99, axis=0))


def test_movie_refuses_what_it_cannot_draw(tmp_path):
    movie = DensityMovie(tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"Expected two columns, got points of shape \(3,\); try"):
        movie(0, 0.0, Handle((0.0, 0.0, 0.0)))
    movie.close()
    assert not (tmp_path / "a.gif").exists()
    with pytest.raises(ValueError, match="Expected num and max_frames of 2 at least, got 1 and 200; try num=80"):
        DensityMovie(tmp_path / "a.gif", num=1)


def pictures(folder) -> list[tuple[int, Image.Image]]:
    """Return the pictures of a run, with their steps."""
    shown = [(step, value.image.encoded_image_string) for step, value in values_of(folder) if value.HasField("image")]
    return [(step, Image.open(io.BytesIO(encoded))) for step, encoded in shown]


def events(folder) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars of a run."""
    found = {}
    for step, value in values_of(folder):
        found.setdefault(value.tag, []).append((step, value.simple_value))
    return found


def values_of(folder) -> list:
    """Return what a run has, each with its step, read record by record: length, checksum, event, checksum."""
    (path,), found = folder.glob("events*"), []
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        found += [(event.step, value) for value in event.summary.value]
    return found


def test_log_has_the_history_of_a_fit(tmp_path, table):
    with TensorBoardLog(tmp_path) as log:
        density = FlowDensity(**FAST).fit(table, callback=log)
    found, history = events(tmp_path / "whiten"), density.history_
    assert set(found) == {"loss", "nll", "evaluations", "skipped"}
    known = np.isfinite(history["loss"])
    np.testing.assert_array_equal([step for step, _ in found["loss"]], np.asarray(history["step"])[known])
    np.testing.assert_allclose([loss for _, loss in found["loss"]], np.asarray(history["loss"])[known], rtol=1e-6)
    np.testing.assert_allclose(found["nll"][-1][1], density.facts_["validation_nll"], rtol=1e-6)


def test_log_has_a_run_per_kind_and_leaves_out_what_is_not_known(tmp_path):
    log = TensorBoardLog(tmp_path)
    log(3, 1.5, Handle(kind="whiten", loss=1.5))
    log(4, 2.5, Handle(kind="standardize", loss=np.nan, nll=2.0))
    log.close()
    assert set(events(tmp_path / "whiten")) == {"loss", "skipped"}
    assert events(tmp_path / "standardize")["nll"] == [(4, 2.0)]


def test_log_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"Expected the package tensorboardX, got none; try pip install"):
        TensorBoardLog(tmp_path)


@pytest.mark.parametrize("preprocess", ["whiten", "auto"])
def test_a_callback_that_returns_true_ends_the_fit_and_keeps_it(table, preprocess, tmp_path):
    looks, path = [], tmp_path / "checkpoint"

    def watch(step, loss, flow):
        looks.append((flow.kind, step))
        return step >= 8

    density = FlowDensity(**{**FAST, "max_iter": 10_000, "preprocess": preprocess}, checkpoint=str(path))
    density.fit(table, callback=watch)
    assert looks[-1][1] == density.n_iter_ < 1000 and sum(step >= 8 for _, step in looks) == 1
    # The last weights were validated, too: that look was not told.
    assert density.history_["step"][-1] == density.n_iter_ and np.isfinite(density.history_["nll"][-1])
    assert np.isfinite(density.score(table)) and not path.exists()


def test_what_is_not_true_goes_on(table):
    density = FlowDensity(**{**FAST, "max_iter": 6}).fit(table, callback=lambda *told: [1])
    assert density.n_iter_ == 6


def test_a_callback_that_ends_the_fit_at_once_leaves_the_closed_forms(table):
    density = FlowDensity(**FAST).fit(table, callback=lambda *told: np.bool_(True))
    assert density.n_iter_ == 0
    truth = stats.multivariate_normal(table.mean(0), np.cov(table.T)).logpdf(table)
    assert abs(density.score(table) - truth.mean()) < 0.02


def test_movies_are_what_their_names_say(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"Expected a movie that ends in .gif or .mp4, got .*a.avi; try a.gif"):
        DensityMovie(tmp_path / "a.avi")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"Expected ffmpeg, which encodes .*a.mp4, got none.*a.gif"):
        DensityMovie(tmp_path / "a.mp4")
    (tmp_path / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    with DensityMovie(tmp_path / "a.mp4", num=10, min_seconds=0) as movie:
        for step in range(3):
            movie(step, 0.0, Handle((0.1 * step, 0.0)))
    assert (tmp_path / "a.mp4").read_bytes()[4:12] == b"ftypisom"
    # The last frame is shown ten times as long.
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4"))[0] == 12


def test_log_has_pictures_where_they_are_asked_for(tmp_path):
    with TensorBoardLog(tmp_path, picture_seconds=0) as log:
        log(3, 1.5, Handle((2.0, 0.0)))
        log(4, 1.4, Handle((0.0, 0.0)))
    shown = pictures(tmp_path / "whiten")
    assert [step for step, _ in shown] == [3, 4]
    assert all(np.asarray(picture).shape == (360, 360, 3) and np.ptp(picture) > 100 for _, picture in shown)

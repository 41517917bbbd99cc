"""The estimator of pictures: what it learns, how it measures, and that nothing is lost on the way."""

import functools
import json
import math
import os
import shutil
import subprocess
import sys
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

from liouville import CheckpointError, DataError, FlowDensity, ImageDensity, _splits, selection
from liouville.bijections import PixelMargins
from liouville.cli import app
from liouville.data import tile, write_pictures
from liouville.density import Density
from liouville.dequantization import UniformDequantization
from liouville.distributions import Normal, Transformed
from liouville.frames import Frame
from liouville.sharding import in_parts, rows_mesh
from liouville.training import StreamedData, TrainingData

LEVELS = 4
SMALL = {"levels": LEVELS, "vector_field": "conv", "width": 8, "depth": 1, "batch_size": 32, "random_state": 0}


def stripes(num, seed=0):
    """Return pictures of 4 x 4 pixels: dark, but for one bright row with noise."""
    rng = np.random.default_rng(seed)
    pixels = (rng.uniform(size=(num, 4, 4, 1)) < 0.1).astype(np.uint8)
    pixels[np.arange(num), rng.integers(4, size=num)] += 2
    return pixels


@functools.cache
def fitted(recipe="flow_matching", max_iter=30, **params):
    return ImageDensity(recipe=recipe, max_iter=max_iter, **{**SMALL, **params}).fit(stripes(400))


def same_weights(one, other):
    leaves = [jax.tree.leaves(density.flow_) for density in (one, other)]
    return all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


@eqx.filter_jit
def bound_of(flow, x, key):
    return flow.log_prob_bound(x, key=key)


def test_margins_make_independent_pixels_exact():
    """The bound of independent pixels is their probability, whatever the noise."""
    rng = np.random.default_rng(0)
    pixels = rng.binomial(3, 0.2, size=(500, 2, 3, 1)).astype(np.uint8)
    margins = PixelMargins.fit(pixels, 4)
    shares = np.stack([(pixels == k).mean(axis=0) for k in range(4)], axis=-1)
    np.testing.assert_allclose(margins.edges[1], shares, atol=2e-3)
    flow = Density(Transformed(Normal.standard((2, 3, 1)), margins), Frame((2, 3, 1), (), 4, UniformDequantization()))
    for x in pixels[:5]:
        expected = np.log(np.take_along_axis(margins.edges[1], x[..., None].astype(int), -1)).sum()
        for seed in range(3):
            bound = bound_of(flow, jnp.asarray(x), jax.random.key(seed))
            np.testing.assert_allclose(bound, expected, rtol=1e-4)


def test_margins_are_undone_and_agree_on_host_and_device():
    margins = PixelMargins.fit(stripes(300), LEVELS)
    x = np.random.default_rng(1).uniform(0.001, 0.999, size=(50, 4, 4, 1))
    z, log_det = margins.inverse_and_log_det(x)
    back, minus = margins.transform_and_log_det(z)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(minus, -log_det, rtol=1e-9)
    level = np.floor(x[0] * LEVELS).astype(int)[..., None]
    below, mass, _ = (np.take_along_axis(part, level, -1)[..., 0] for part in margins.edges)
    np.testing.assert_allclose(z[0], stats.norm.ppf(below + mass * (x[0] * LEVELS - level[..., 0])), rtol=1e-6)
    on_device, device_log_det = eqx.filter_jit(margins.inverse_and_log_det)(jnp.asarray(x[0]))
    np.testing.assert_allclose(on_device, z[0], atol=1e-4)
    np.testing.assert_allclose(device_log_det, log_det[0], rtol=1e-5)
    np.testing.assert_allclose(eqx.filter_jit(margins.transform)(on_device), x[0], atol=1e-5)


@pytest.mark.slow
def test_a_short_fit_beats_the_independent_pixels_it_starts_from():
    density, test = fitted(max_iter=600), stripes(500, 1)
    margins = PixelMargins.fit(stripes(400), LEVELS)
    independent = -np.log2(np.take_along_axis(margins.edges[1][None], test[..., None].astype(int), -1)).mean()
    bits = density.bits_per_dim(test)
    assert bits.mean + 4 * bits.std_error < independent
    assert bits.num_failed == 0
    # Nothing predicts better than the truth: a row, and sixteen coins.
    entropy = (math.log2(4) + 16 * stats.bernoulli(0.1).entropy() / math.log(2)) / 16
    assert bits.mean > entropy - 4 * bits.std_error
    drawn = density.sample(300, random_state=0)
    assert drawn.dtype == np.uint8
    # Pixels of a row go together, which the independent ones do not.
    together = lambda x: np.corrcoef(x[:, :, 1].ravel(), x[:, :, 2].ravel())[0, 1]
    assert together(drawn) > 0.2


def test_closed_forms_are_not_trained():
    margins = PixelMargins.fit(stripes(400), LEVELS)
    found = fitted().flow_.frame.links[0]
    # A tenth is held out, so the shares are not quite the same; but they are still shares.
    np.testing.assert_allclose(found.edges[1].sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(found.edges[1], margins.edges[1], atol=0.03)


def test_a_row_of_scores_depends_on_nothing_else():
    density, test = fitted(), stripes(70, 1)
    np.testing.assert_array_equal(density.score_samples(test)[:5], density.score_samples(test[:5]))
    np.testing.assert_array_equal(density.sample(5, random_state=1), density.sample(40, random_state=1)[:5])


@pytest.mark.slow
def test_the_lines_of_the_protocol():
    density, test = fitted(), stripes(200, 1)
    found = density.evaluate(test, num_draws=8, num_probes=2, num_exact=100)
    assert list(found) == ["1 draw", "8 draws", "exact", "probes", "mid-points"]
    assert found["exact"].num_probes == 0
    assert found["exact"].probe_error == 0
    assert found["exact"].num_pictures == 100
    # Probes are unbiased; the bound of many draws is tighter.
    gap = abs(found["exact"].mean - found["probes"].mean)
    assert gap < 4 * found["probes"].probe_error + 1e-4
    assert found["8 draws"].mean < found["1 draw"].mean
    nats = -density.score_samples(test, num_probes=2).mean() / 16 / math.log(2)
    assert found["1 draw"].mean == pytest.approx(nats)


def test_certify_says_how_far_log_densities_move():
    certificate = fitted().certify(stripes(40, 1), num_rows=32)
    assert certificate.num_rows == 32
    assert certificate.num_failed == 0
    assert 0 < certificate.mean_shift < 0.05


def test_a_file_keeps_the_model(tmp_path):
    density, test = fitted(), stripes(10, 1)
    density.save(tmp_path / "model")
    again = ImageDensity.load(tmp_path / "model")
    np.testing.assert_array_equal(again.score_samples(test), density.score_samples(test))
    assert again.facts_ == density.facts_
    with pytest.raises(CheckpointError, match="try ImageDensity.load"):
        FlowDensity.load(tmp_path / "model")


class Killed(Exception):
    """What a test interrupts a fit with."""


@pytest.mark.slow
def test_a_fit_that_is_killed_ten_times_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("liouville.training._SEGMENT_SECONDS", 0.02)
    monkeypatch.setattr("liouville._fitting.SAVING_SHARE", math.inf)
    path, rng, steps = str(tmp_path / "checkpoint"), np.random.default_rng(0), []
    params = {**SMALL, "max_iter": 400}

    def kill(after):
        looks = iter(range(after))

        def callback(step, loss, flow):
            steps.append(step)
            if next(looks, None) is None:
                raise Killed

        return callback

    for after in rng.integers(2, 6, size=10):
        with pytest.raises(Killed):
            ImageDensity(**params, checkpoint=path).fit(stripes(400), callback=kill(after))
    resumed = ImageDensity(**params, checkpoint=path).fit(stripes(400))
    assert 10 < max(steps) < 400
    assert not os.path.exists(path)
    assert same_weights(resumed, ImageDensity(**params).fit(stripes(400)))


@pytest.mark.slow
def test_likelihood_trains_noise_of_its_own():
    density = fitted("rnode", 60, dequantization="variational", vector_field="concat_squash", width=16)
    bits = density.history_["bits_per_dim"]
    assert density.facts_["validation_bits_per_dim"] < bits[0] - 0.02
    # The noise starts as uniform: its last layer is zero.
    last = density.flow_.frame.noise.flow.bijection.vector_field.field.layers[-1]
    assert np.abs(last.convolution.weight).max() > 1e-3
    with pytest.raises(ValueError, match="uniform dequantization"):
        ImageDensity(dequantization="variational").fit(stripes(300))


@pytest.mark.slow
def test_the_history_has_the_penalties():
    history = fitted("rnode", 60, dequantization="variational", vector_field="concat_squash", width=16).history_
    for name in ("kinetic_energy", "jacobian_frobenius"):
        known = np.asarray(history[name])[np.isfinite(history[name])]
        assert known.size and np.all(known >= 0) and known[-1] > 0
    assert "kinetic_energy" not in fitted().history_


def test_fewer_bits_are_a_matter_of_training():
    """Scores of a model that was trained with rounded fields come from fields that are not."""
    density = fitted(precision="bfloat16", max_iter=20)
    assert "LowPrecision" not in repr(density.flow_)
    learned, other = density.history_["loss"], fitted(max_iter=20).history_["loss"]
    assert 1e-6 < abs(learned[-1] - other[-1]) < 0.05


def test_pictures_that_do_not_fit_the_device_come_in_parts(monkeypatch, tmp_path):
    whole = fitted()
    monkeypatch.setattr(_splits, "MOST_ON_DEVICE", 16 * 100)
    pixels = stripes(400)
    np.save(tmp_path / "pixels.npy", pixels)
    density = ImageDensity(**SMALL, max_iter=30)
    mapped = density.fit(np.load(tmp_path / "pixels.npy", mmap_mode="r"))
    assert same_weights(mapped, ImageDensity(**SMALL, max_iter=30).fit(pixels))
    assert not same_weights(mapped, whole)


def test_parts_of_a_stream_depend_on_the_step_alone():
    rows, index = np.arange(200, dtype=np.uint8)[:, None], np.arange(0, 200, 2)
    sizes = {"batch_size": 4, "part_rows": 20, "seed": 0}
    stream = StreamedData(rows, index, np.ones(len(index)), **sizes, conditions=rows / 2)
    first, until = stream.at(0)
    assert until == 5
    assert first.rows.dtype == jnp.uint8
    assert set(np.asarray(first.rows).ravel()) <= set(index)
    later, _ = stream.at(7)
    assert set(np.asarray(later.rows).ravel()) != set(np.asarray(first.rows).ravel())
    fresh = StreamedData(rows, index, np.ones(len(index)), **sizes).at(8)[0]
    np.testing.assert_array_equal(fresh.rows, later.rows)
    np.testing.assert_array_equal(later.conditions, np.asarray(later.rows) / 2)


def test_bytes_stay_bytes_on_the_device():
    assert TrainingData.pad(stripes(10), np.ones(10)).rows.dtype == jnp.uint8


def test_gradients_in_parts_are_gradients():
    loss = lambda params, batch, key: (jnp.mean((batch @ params) ** 2), {"watched": jnp.mean(batch)})
    gradient = jax.value_and_grad(loss, has_aux=True)
    params, batch, key = jnp.arange(3.0), jax.random.normal(jax.random.key(0), (12, 3)), jax.random.key(1)
    whole, divided = gradient(params, batch, key), jax.jit(in_parts(gradient, 4, rows_mesh()))(params, batch, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, divided)


@pytest.mark.slow
def test_parts_train_as_well():
    bits = fitted(parts=2, max_iter=300).bits_per_dim(stripes(200, 1))
    assert bits.mean == pytest.approx(fitted(max_iter=300).bits_per_dim(stripes(200, 1)).mean, abs=4 * bits.std_error)


ON_FOUR_DEVICES = """
import sys
sys.path.insert(0, "tests")
import jax
from liouville.sharding import spread
from test_image_density import *
density = ImageDensity(**SMALL, max_iter=5).fit(stripes(400))
two = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("rows",))
laid_out = jax.jit(lambda rows: spread(rows, two))(jnp.arange(8.0))
print(len(jax.devices()), len(laid_out.sharding.device_set), repr(float(density.score(stripes(50, 1)))))
"""


@pytest.mark.slow
def test_many_devices_learn_what_one_does():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES], capture_output=True, text=True, check=True, env=environment
    )
    num, laid_out, score = run.stdout.split()
    assert num == "4" and laid_out == "2"
    one = ImageDensity(**SMALL, max_iter=5).fit(stripes(400))
    assert float(score) == pytest.approx(one.score(stripes(50, 1)), rel=1e-4)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((5, 4)), "Expected whole numbers of shape"),
        (np.zeros((5, 4, 4)), "got float64"),
        (np.full((5, 4, 4), 4, np.uint8), "Expected pixels from 0 to 3, got 4 to 4 in picture 0"),
        (np.full((5, 4, 4), -1), "Expected pixels from 0 to 3"),
    ],
)
def test_what_are_no_pictures_is_refused(pixels, message):
    with pytest.raises(DataError, match=message):
        ImageDensity(levels=LEVELS).fit(pixels)


def test_very_few_pictures_can_be_fitted():
    density = ImageDensity(**SMALL, max_iter=2).fit(np.unique(stripes(40), axis=0)[:5])
    assert density.facts_["validation_pictures"] == 5 and density.n_iter_ == 2
    assert np.isfinite(density.score_samples(stripes(3))).all()


def test_pictures_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"Expected pictures of shape \(4, 4, 1\), got \(5, 4, 1\)"):
        fitted().score_samples(np.zeros((2, 5, 4), np.uint8))


@pytest.mark.parametrize(
    ("name", "value"), [("recipe", "realnvp"), ("width", 0), ("parts", 1.5), ("precision", "int8"), ("levels", 257)]
)
def test_parameters_without_a_meaning_are_refused(name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        ImageDensity(**{name: value}).fit(stripes(20))


def test_the_command_line_goes_from_a_folder_to_samples(tmp_path):
    for number, picture in enumerate(stripes(60)):
        Image.fromarray(picture[..., 0] * 60).save(tmp_path / f"{number:02}.png")
    (tmp_path / "99.png").write_text("no picture")
    model, run = tmp_path / "model.liouville", CliRunner().invoke
    sizes = ["--set", "vector_field=conv", "--set", "width=4", "--set", "depth=1", "--set", "batch_size=16"]
    sizes += ["--set", "max_iter=3"]
    log = tmp_path / "log"
    fit = ["fit", str(tmp_path), "--kind", "image", "-o", str(model), "-q", *sizes, "--log", str(log)]
    assert run(app, fit).exit_code == 1
    done = run(app, [*fit, "--skip-bad"])
    assert done.exit_code == 0, done.output
    assert "60 pictures of 4 x 4 x 1" in done.output
    assert "1 pictures were left out" in done.output
    assert sorted(path.name for path in log.iterdir()) == ["samples.png", "training.csv", "training.png"]
    assert (log / "training.csv").read_text().startswith("step,seconds,loss,evaluations,skipped,bits_per_dim")
    shutil.rmtree(log)
    sheet = tmp_path / "sheet.PNG"
    assert run(app, ["sample", str(model), "-n", "6", "-o", str(sheet), "--seed", "0"]).exit_code == 0
    assert Image.open(sheet).size == (3 * 29 + 1, 2 * 29 + 1)
    sheet.unlink()
    (tmp_path / "99.png").unlink()
    scores = run(app, ["score", str(model), str(tmp_path)])
    assert len(scores.stdout.splitlines()) == 61
    lines = run(app, ["evaluate", str(model), str(tmp_path), "--exact", "4"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["measured", "1", "exact", "probes", "mid-points"]
    assert "ImageDensity" in run(app, ["info", str(model)]).stdout
    for wrong in (["evaluate", str(model), str(tmp_path), "--train", str(tmp_path)], ["sample", str(model)]):
        assert run(app, wrong).exit_code == 2
    assert run(app, ["score", str(model), str(tmp_path), "--columns", "a"]).exit_code == 2
    unread = run(app, ["score", str(model), "-"])
    assert unread.exit_code == 1 and "Expected a file or a folder of pictures" in unread.output
    assert run(app, ["plot", str(model), "--kind", "training", "-o", str(tmp_path / "t.svg")]).exit_code == 0
    assert run(app, ["plot", str(model), "-o", str(tmp_path / "t.svg")]).exit_code == 2


@pytest.mark.parametrize(
    ("evaluations", "left", "expected"), [(60, 1000, 200), (6, 1000, 20), (60, 10, 8), (60, 1e6, 500)]
)
def test_pictures_that_choose_leave_time_to_train(monkeypatch, evaluations, left, expected):
    """A validation takes 2% of the time that is left, on a clock: ten times as long where the solve was that short."""
    clock, few = types.SimpleNamespace(now=0.0), 8
    monkeypatch.setattr(selection.time, "perf_counter", lambda: clock.now)

    def score(num):
        # The first call compiles; a picture takes a tenth of a second.
        clock.now += 60 * (num == 1) + 0.1 * num
        return None, types.SimpleNamespace(num_evaluations=np.full(num, evaluations))

    num, seconds = selection.validated_in_time(score, few, 500, deadline=60 + 0.1 + 0.1 * few + left)
    assert num == pytest.approx(expected, abs=1)
    assert seconds == pytest.approx(0.1 * num * selection._SOLVE_EVALUATIONS / evaluations)


def test_sheets_show_pictures_in_order(tmp_path):
    pixels = np.zeros((3, 2, 2, 1), np.uint8)
    pixels[1] = 3
    sheet = tile(pixels, 4)
    assert sheet.shape == (2 * 29 + 1, 2 * 29 + 1, 1)
    assert sheet[10, 10, 0] == 0
    assert sheet[10, 40, 0] == 255
    write_pictures(tmp_path / "pictures.npz", pixels)
    np.testing.assert_array_equal(np.load(tmp_path / "pictures.npz")["pixels"], pixels)
    with pytest.raises(ValueError, match="ends in .png"):
        write_pictures(tmp_path / "pictures.bmp", pixels)


def benchmark(name: str, *options: str) -> str:
    """Run one of the benchmarks in a process of its own, and return what it prints."""
    script = os.path.join(os.path.dirname(__file__), "..", "benchmarks", name)
    run = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.mark.slow
def test_the_benchmark_of_pictures_runs_from_files(tmp_path):
    for name, num in (("train", 200), ("test", 20)):
        np.save(tmp_path / f"{name}.npy", 80 * stripes(num))
    data, results = f"{tmp_path / 'train.npy'},{tmp_path / 'test.npy'}", tmp_path / "results"
    options = ["--methods", "flow matching", "Gaussian", "--seconds", "5", "--width", "16", "--results", str(results)]
    assert "| flow matching |" in benchmark("images.py", "--data", data, *options)
    found = sorted(path.name for path in (results / "train").iterdir())
    assert found == ["Gaussian.json", *(f"flow-matching.{kind}" for kind in ("json", "png", "safetensors"))]


@pytest.mark.slow
def test_the_benchmark_of_speed_says_what_an_epoch_takes(tmp_path):
    case = ["--cases", "flow matching, default", "--shapes", "28 x 28 x 1", "--width", "4", "--batch", "2"]
    said = benchmark("images_speed.py", *case, "--results", str(tmp_path))
    assert " pictures/s, " in said and " s epoch" in said
    (path,) = tmp_path.iterdir()
    (found,) = json.loads(path.read_text())["cases"]
    assert found["epoch"] == pytest.approx(30_000 * found["step"])
